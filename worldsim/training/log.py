"""The numbers of a run: `metrics.jsonl` always, TensorBoard event files where its package is installed."""

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NOTICE = "TensorBoard is not installed, so RUN/tensorboard is not written (pip install 'worldsim[tensorboard]')"


class Log:
    """Appends numbers to RUN/metrics.jsonl and RUN/tensorboard.

    Args:
        path: The run directory.
        tensorboard: Whether to write event files; without the package a line on standard error says that there are
            none.
    """

    def __init__(self, path: Path, *, tensorboard: bool) -> None:
        self.file = path / "metrics.jsonl"
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
