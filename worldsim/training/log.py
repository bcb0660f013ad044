"""The numbers of a run: `metrics.jsonl` always, TensorBoard event files where its package is installed."""

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NOTICE = "TensorBoard is not installed, so RUN/tensorboard is not written (pip install 'worldsim[tensorboard]')"


METRICS = "metrics.jsonl"


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """The lines of RUN/metrics.jsonl, in the order in which they were written.

    A last line that was cut short, by a full disk or a kill, is left out. Updates that a resumed run computed again
    stand twice.

    Args:
        run: The run directory.
    """
    text = (Path(run) / METRICS).read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


class Log:
    """Appends numbers to RUN/metrics.jsonl and RUN/tensorboard.

    What an interrupted run left of its last line is removed, so that none is glued to it.

    Args:
        path: The run directory.
        tensorboard: Whether to write event files; without the package a line on standard error says that there are
            none.
    """

    def __init__(self, path: Path, *, tensorboard: bool) -> None:
        self.file = path / METRICS
        if self.file.is_file():
            written = self.file.read_bytes()
            os.truncate(self.file, written.rfind(b"\n") + 1)
        self._writer: Any = _summary_writer(path / "tensorboard") if tensorboard else None

    def __call__(self, *, phase: str, step: int, **numbers: float) -> None:
        """Writes one line, and one scalar `phase/name` for each number."""
        with self.file.open("a") as stream:
            stream.write(json.dumps({"phase": phase, "step": step, **numbers}) + "\n")
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(f"{phase}/{name}", value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()


def _summary_writer(folder: Path) -> Any:  # noqa: ANN401 - of an optional package
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        print(NOTICE, file=sys.stderr)
        return None
    return SummaryWriter(str(folder))
