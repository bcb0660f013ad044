"""A run directory: its lock, its metrics, and states from which training resumes exactly.

    RUN/config.json       the resolved configuration
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
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worldsim.errors import TrainingError
from worldsim.files import write_text
from worldsim.training.config import OptimiserConfig, TrainConfig
from worldsim.training.log import Log


@dataclass(frozen=True)
class Run:
    """The directory of a run that this process owns.

    Attributes:
        path: The directory.
        log: Takes the phase, the update and any numbers.
    """

    path: Path
    log: Log


@contextmanager
def open_run(path: str | Path, config: TrainConfig, *, resume: bool) -> Iterator[Run]:
    """Takes a run directory for this process.

    Raises:
        TrainingError: If another process uses it, if it holds a run and `resume` is False, or if the run to be resumed
            has another configuration.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainingError(
                expected=f"{path} to be free",
                got="another process that trains there",
                remedy="Choose another directory.",
            ) from error
        _claim(path / "config.json", config, resume=resume)
        try:
            with Log(path, tensorboard=config.tensorboard) as log:
                yield Run(path, log)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise TrainingError(
                expected=f"space on the disk of {path}",
                got="none left",
                remedy="Free some and resume; the last saved state is intact.",
            ) from error


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
        earlier = TrainConfig.from_dict(json.loads(file.read_text())).to_dict()
        _check_resumable(json.loads(json.dumps(earlier)), json.loads(wanted), file)
    write_text(file, wanted)


def _check_resumable(old: dict[str, Any], new: dict[str, Any], file: Path) -> None:
    # A run may be prolonged or logged otherwise; what would change its numbers may not differ.
    free = {"log_every", "save_minutes", "evaluate_every", "evaluation", "tensorboard", "device", "threads"}
    for key in sorted(set(old) | set(new)):
        if key in free or key.endswith("optimiser"):
            continue
        if old.get(key) != new.get(key):
            raise TrainingError(
                expected=f"the configuration in {file}",
                got=f"another value of {key!r}: {str(new.get(key))[:80]} instead of {str(old.get(key))[:80]}",
                remedy="Resume with the same configuration, or start a new run.",
            )


class Learner:
    """A network with its optimiser and moving average: what one phase of training updates and saves.

    Args:
        network: What is trained.
        config: The optimiser.
        folder: Where states are saved.
    """

    def __init__(self, network: nn.Module, config: OptimiserConfig, folder: Path) -> None:
        self.network, self.config, self.folder = network, config, folder
        self.names = [n for n, p in network.named_parameters() if p.requires_grad]
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        matrices = [p for p in self.parameters if p.ndim > 1]
        vectors = [p for p in self.parameters if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=config.rate, betas=(0.9, 0.95), fused=True)
        self.average = {n: p.detach().clone() for n, p in zip(self.names, self.parameters, strict=True)}
        self.step = 0

    def update(self, loss: Tensor) -> float:
        """One step of the optimiser and the moving average; returns the gradient norm."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate_at(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.optimiser.step()
        # A young average would remember the initial weights for too long.
        decay = min(self.config.ema, (1.0 + self.step) / (10.0 + self.step))
        with torch.no_grad():
            for average, parameter in zip(self.average.values(), self.parameters, strict=True):
                average.lerp_(parameter, 1.0 - decay)
        self.step += 1
        return float(norm)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The network with the averaged weights, ready for evaluation, for as long as the context lasts."""
        kept, mode = [p.detach().clone() for p in self.parameters], self.network.training
        self._assign(list(self.average.values()))
        self.network.eval()
        try:
            yield self.network
        finally:
            self._assign(kept)
            self.network.train(mode)

    def adopt_average(self) -> None:
        """Makes the averaged weights the network's own, at the end of a phase."""
        self._assign(list(self.average.values()))

    def save(self, extra: Mapping[str, Tensor] | None = None) -> None:
        """Writes the state atomically and removes the older ones."""
        target = self.folder / f"step-{self.step:08d}"
        self.folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".state.", suffix=".tmp", dir=self.folder))
        try:
            save_file(self._state() | dict(extra or {}), work / "state.safetensors")
            if not target.exists():
                os.replace(work, target)  # noqa: PTH105
        finally:
            shutil.rmtree(work, ignore_errors=True)
        for old in self.folder.glob("step-*"):
            if old.name < target.name:
                shutil.rmtree(old, ignore_errors=True)

    def restore(self) -> dict[str, Tensor] | None:
        """Reads the latest state, if there is one, and returns what `save` was given beside it."""
        states = sorted(self.folder.glob("step-*/state.safetensors"))
        if not states:
            return None
        tensors = load_file(states[-1])
        self.step = int(tensors.pop("step"))
        with torch.no_grad():
            for name, parameter in zip(self.names, self.parameters, strict=True):
                parameter.copy_(tensors.pop(f"weight.{name}"))
                self.average[name].copy_(tensors.pop(f"average.{name}"))
                if f"first.{name}" in tensors:
                    self.optimiser.state[parameter] = {
                        "step": torch.tensor(float(self.step)),
                        "exp_avg": tensors.pop(f"first.{name}").to(parameter.device),
                        "exp_avg_sq": tensors.pop(f"second.{name}").to(parameter.device),
                    }
        return tensors

    def _state(self) -> dict[str, Tensor]:
        state = {"step": torch.tensor(self.step)}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            state[f"weight.{name}"] = parameter.detach().cpu().contiguous()
            state[f"average.{name}"] = self.average[name].cpu().contiguous()
            moments = self.optimiser.state.get(parameter)
            if moments:
                state[f"first.{name}"] = moments["exp_avg"].cpu().contiguous()
                state[f"second.{name}"] = moments["exp_avg_sq"].cpu().contiguous()
        return state

    @torch.no_grad()
    def _assign(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


def generator_for(seed: int, phase: str, step: int) -> torch.Generator:
    """The source of everything random in one update."""
    digest = int.from_bytes(f"{phase}".encode()[:4].ljust(4, b"\0"), "little")
    return torch.Generator().manual_seed((seed * 1_000_003 + digest) * 1_000_003 + step)
