"""The loop that every phase of training shares."""

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from worldsim.errors import TrainingError
from worldsim.inputs import checked_device
from worldsim.training.config import TrainConfig
from worldsim.training.draws import SampleGenerators, generators_for
from worldsim.training.learner import Learner
from worldsim.training.run import Run
from worldsim.training.team import part_of_update


@dataclass(frozen=True, kw_only=True)
class Part:
    """What of an update is computed at once.

    Attributes:
        rows: Places in the whole batch.
        generators: The sources of everything random about them.
    """

    rows: range
    generators: SampleGenerators


LossOf = Callable[[int, Part], tuple[Tensor, dict[str, Tensor], int]]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase: what to minimise, and what to do now and then.

    Attributes:
        name: Its label in metrics and folders.
        learner: The network and its optimiser.
        loss_of: (update, part) to the loss by `learner.objective`, its parts, and the number of frames in it.
        evaluate: Gives numbers on held-out data of the network with averaged weights; called every `evaluate_every`
            updates, in the leading process.
        describe: Says which data the batch of an update consists of.
        extra_state: Tensors to save beside the learner's.
    """

    name: str
    learner: Learner
    loss_of: LossOf
    evaluate: Callable[[Any], Mapping[str, float]] | None = None
    describe: Callable[[int], str] | None = None
    extra_state: Callable[[], Mapping[str, Tensor]] | None = None


def run_phase(phase: Phase, run: Run, config: TrainConfig, *, show_progress: bool) -> None:
    """Trains to the last step, logging, evaluating and saving on the way.

    Raises:
        TrainingError: If the loss or a gradient is not finite (the last good state stays on disk), or the processes
            cannot share the batch.
    """
    learner, meter, members = phase.learner, _Meter(), phase.learner.members
    parts = members.parts(learner.config)
    saved = time.monotonic()
    with _progress(show_progress and members.leads) as bar:
        task = bar.add_task(phase.name, total=learner.config.steps, completed=learner.step, numbers="")
        while learner.step < learner.config.steps:
            step = learner.step
            due = members.leads and time.monotonic() - saved > 60.0 * config.save_minutes
            numbers, frames = _gradients(phase, config, parts, due=due)
            due = numbers.pop("due") > 0.0
            if not math.isfinite(numbers["loss"]):
                what = f" on {phase.describe(step)}" if phase.describe else ""
                raise TrainingError(
                    expected=f"a finite loss in phase {phase.name!r}",
                    got=f"{numbers['loss']} at update {step} (seed {config.seed}){what}",
                    remedy="The last good state is kept; resume with a lower rate, or look at the data of that batch.",
                )
            norm = learner.update()
            meter.add(numbers, frames * members.size)
            done = learner.step == learner.config.steps
            if learner.step % config.log_every == 0 or done:
                means = meter.flush()
                run.log(phase=phase.name, step=learner.step, rate=learner.config.rate_at(step), norm=norm, **means)
                text = f"loss {means['loss']:.4f}  {means['frames_per_s']:.0f} frames/s"
                bar.update(task, completed=learner.step, numbers=text)
            if phase.evaluate is not None and (learner.step % config.evaluate_every == 0 or done):
                # Its batches have shapes of their own, not worth compiling for.
                with learner.averaged() as network, torch.compiler.set_stance("force_eager"):
                    if network is not None:
                        held = {f"held_{k}": v for k, v in phase.evaluate(network).items()}
                        run.log(phase=phase.name, step=learner.step, **held)
            if due or done:
                learner.save(phase.extra_state() if phase.extra_state else None)
                saved = time.monotonic()


def _gradients(phase: Phase, config: TrainConfig, parts: list[range], *, due: bool) -> tuple[dict[str, float], int]:
    """Computes the gradients of an update, part by part, averaged over the processes.

    Returns:
        The means of the loss and its parts over the whole batch, and `due`, above 0 if the leading process asks to
        save; the frames of this process.
    """
    learner, step, frames = phase.learner, phase.learner.step, 0
    device = learner.members.device
    found: list[Tensor] = []
    names: list[str] = []
    for i, rows in enumerate(parts):
        part = Part(rows=rows, generators=generators_for(config.seed, phase.name, step, rows))
        with part_of_update(learner.objective, last=i == len(parts) - 1):
            with autocast(device, config.precision):
                loss, pieces, count = phase.loss_of(step, part)
            (loss / len(parts)).backward()
        names = ["loss", *pieces]
        found.append(torch.stack([x.detach().float() for x in (loss, *pieces.values())]))
        frames += count
    means = torch.cat((torch.stack(found).mean(dim=0), torch.tensor([float(due)], device=device)))
    return dict(zip((*names, "due"), learner.members.mean(means).tolist(), strict=True)), frames


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision, or nothing for float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA if there is one.

    Raises:
        ConfigError: If there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return checked_device(name)


class _Meter:
    """Means of what was added since the last flush, and the throughput."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}
        self.frames, self.since = 0, time.monotonic()

    def add(self, numbers: Mapping[str, float], frames: int) -> None:
        for name, value in numbers.items():
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
