"""The loop that every phase of training shares."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Generator, Tensor

from worldsim.errors import TrainingError
from worldsim.training.config import TrainConfig
from worldsim.training.run import Learner, Run, generator_for

LossOf = Callable[[int, Generator], tuple[Tensor, dict[str, Tensor], int]]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase: what to minimise, and what to do now and then.

    Attributes:
        name: Its label in metrics and folders.
        learner: The network and its optimiser.
        loss_of: (step, generator) to the loss, its parts, and the number of frames it was computed on.
        evaluate: Gives numbers on held-out data with the averaged weights; called every `evaluate_every` updates.
        extra_state: Tensors to save beside the learner's.
    """

    name: str
    learner: Learner
    loss_of: LossOf
    evaluate: Callable[[], Mapping[str, float]] | None = None
    extra_state: Callable[[], Mapping[str, Tensor]] | None = None


def run_phase(phase: Phase, run: Run, config: TrainConfig, *, show_progress: bool) -> None:
    """Trains to the last step, logging, evaluating and saving on the way.

    Raises:
        TrainingError: If the loss is not finite; the last good state stays on disk.
    """
    learner, meter = phase.learner, _Meter()
    device = learner.parameters[0].device
    saved = time.monotonic()
    with _progress(show_progress) as bar:
        task = bar.add_task(phase.name, total=learner.config.steps, completed=learner.step, numbers="")
        while learner.step < learner.config.steps:
            step = learner.step
            with autocast(device, config.precision):
                loss, parts, frames = phase.loss_of(step, generator_for(config.seed, phase.name, step))
            if not torch.isfinite(loss):
                raise TrainingError(
                    expected=f"a finite loss in phase {phase.name!r}",
                    got=f"{float(loss)} at update {step} (seed {config.seed})",
                    remedy="The last good state is kept; resume with a lower rate, or look at the data of that batch.",
                )
            norm = learner.update(loss)
            meter.add(float(loss.detach()), parts, frames)
            done = learner.step == learner.config.steps
            if learner.step % config.log_every == 0 or done:
                numbers = meter.flush()
                run.log(phase=phase.name, step=learner.step, rate=learner.config.rate_at(step), norm=norm, **numbers)
                text = f"loss {numbers['loss']:.4f}  {numbers['frames_per_s']:.0f} frames/s"
                bar.update(task, completed=learner.step, numbers=text)
            if phase.evaluate is not None and (learner.step % config.evaluate_every == 0 or done):
                with learner.averaged():
                    run.log(
                        phase=phase.name, step=learner.step, **{f"held_{k}": v for k, v in phase.evaluate().items()}
                    )
            if time.monotonic() - saved > 60.0 * config.save_minutes or done:
                learner.save(phase.extra_state() if phase.extra_state else None)
                saved = time.monotonic()


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision, or nothing for float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class _Meter:
    """Means of what was added since the last flush, and the throughput."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}
        self.frames, self.since = 0, time.monotonic()

    def add(self, loss: float, parts: Mapping[str, Tensor], frames: int) -> None:
        for name, value in {"loss": loss, **{k: float(v) for k, v in parts.items()}}.items():
            self.sums.setdefault(name, []).append(value)
        self.frames += frames

    def flush(self) -> dict[str, float]:
        seconds = max(time.monotonic() - self.since, 1e-9)
        numbers = {k: sum(v) / len(v) for k, v in self.sums.items()}
        numbers |= {"frames_per_s": self.frames / seconds}
        self.sums, self.frames, self.since = {}, 0, time.monotonic()
        return numbers


def _progress(show: bool) -> Progress:  # noqa: FBT001 - private
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    return Progress(*columns, disable=not show or os.environ.get("CI") == "true")
