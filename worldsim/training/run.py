"""A run directory: its lock, its metrics, and states from which training resumes exactly.

    RUN/config.json       the resolved configuration
    RUN/data.json         which data it trains on
    RUN/metrics.jsonl     one line of numbers at a time
    RUN/tensorboard/      the same numbers as TensorBoard event files
    RUN/samples/          videos of held-out clips, truth above, dream below
    RUN/PHASE/step-N/     weights, moving average and optimiser at update N (safetensors), the latest only
    RUN/checkpoint_best/  the learned world at its best evaluation so far
    RUN/checkpoint/       the learned world at the end, ready for `worldsim.load`

Everything random in update n follows from (seed, phase, n), so a state needs no generator, and a resumed run repeats
the interrupted one bit for bit.
"""

import errno
import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from worldsim.errors import TrainingError
from worldsim.files import write_text
from worldsim.training.config import TrainConfig
from worldsim.training.log import Log
from worldsim.training.team import Team

# A run may be prolonged, logged or divided otherwise when it is resumed; what would change its numbers may not differ.
_FREE = frozenset(
    [
        "log_every",
        "save_minutes",
        "evaluate_every",
        "evaluation",
        "tensorboard",
        "device",
        "threads",
        "workers",
        "shard",
    ]
)


@dataclass(frozen=True)
class Run:
    """The directory of a run.

    Attributes:
        path: The directory.
        log: Takes the phase, the update and any numbers.
    """

    path: Path
    log: Callable[..., None]


@contextmanager
def open_run(path: str | Path, config: TrainConfig, members: Team, *, resume: bool) -> Iterator[Run]:
    """Takes a run directory for the processes that train together; the leading one locks it and writes.

    Raises:
        TrainingError: If another process uses it, if it holds a run and `resume` is False, or if the run to be resumed
            has another configuration.
    """
    path = Path(path)
    if not members.leads:
        members.wait()
        yield Run(path, lambda **_: None)
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise TrainingError(
            expected=f"a directory at {path}", got="a file in its place", remedy="Choose another directory."
        ) from error
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainingError(
                expected=f"{path} to be free",
                got="another process that trains there",
                remedy="Choose another directory.",
            ) from error
        try:
            _claim(path / "config.json", config, resume=resume)
            members.wait()
            with Log(path, tensorboard=config.tensorboard) as log:
                yield Run(path, log)
        except (OSError, SafetensorError) as error:
            if not _disk_is_full(error):
                raise
            raise TrainingError(
                expected=f"space on the disk of {path}",
                got="none left",
                remedy="Free some and resume; the last saved state is intact.",
            ) from error


def _disk_is_full(error: Exception) -> bool:
    # safetensors tells the number of the system's error in words only.
    return getattr(error, "errno", None) == errno.ENOSPC or f"(os error {errno.ENOSPC})" in str(error)


def _claim(file: Path, config: TrainConfig, *, resume: bool) -> None:
    wanted = json.dumps(config.to_dict(), indent=1)
    if file.exists():
        if not resume:
            raise TrainingError(
                expected=f"an empty run directory at {file.parent}",
                got="a run",
                remedy="Pass resume (--resume) to go on with it, or choose another directory.",
            )
        # A run of an earlier version lacks newer fields: they had what are now their defaults.
        earlier = _read(file).to_dict()
        _check_resumable(json.loads(json.dumps(earlier)), json.loads(wanted), file)
    write_text(file, wanted)


def _read(file: Path) -> TrainConfig:
    try:
        return TrainConfig.from_dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise TrainingError(
            expected=f"the configuration of a run in {file}",
            got=f"something else ({error})",
            remedy="Choose another directory.",
        ) from error


def _check_resumable(old: dict[str, Any], new: dict[str, Any], file: Path) -> None:
    for key in sorted(set(old) | set(new)):
        if key in _FREE or key.endswith("optimiser"):
            continue
        if old.get(key) != new.get(key):
            raise TrainingError(
                expected=f"the configuration in {file}",
                got=f"another value of {key!r}: {str(new.get(key))[:80]} instead of {str(old.get(key))[:80]}",
                remedy="Resume with the same configuration, or start a new run.",
            )
