"""`evaluate`: roll a simulator out from true cases and grade it beside the truth."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eval.batch import Failure, Mean, mean_of, run_ordered, score_saved
from eval.clip import Clip
from eval.errors import ClipError, EvalError
from eval.suite import Report, Suite

# (frames (C, H, W, 3), actions (T-1, ...) or None, text or None, T) -> (T, H, W, 3), the given frames first.
Simulate = Callable[[np.ndarray, np.ndarray | None, str | None, int], np.ndarray]
# Truth of the true clip that also holds for a simulation of it: what was asked for, not what came out.
COMMANDED = frozenset({"world_from_camera", "K", "caption"})


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One case: the simulation's scores beside the truth's own.

    Attributes:
        name: The true clip's name.
        simulated: The simulation's report, or why there is none.
        true: The report of the true clip, with the same evaluators: what a perfect simulator would get.
    """

    name: str
    simulated: Report | Failure
    true: Report | Failure


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found, in the order of the cases."""

    cases: tuple[CaseResult, ...]

    def mean(self, evaluator: str) -> Mean:
        """Mean normalised value of an evaluator over the cases on which the *truth* can be measured.

        The truth fixes the denominator: where it can be measured and the simulation cannot (it failed, or its objects
        dissolved), the simulation counts as 0. No exclusion raises a score.
        """
        values: list[float] = []
        failed, elsewhere = 0, []
        for case in self.cases:
            true = case.true[evaluator] if isinstance(case.true, Report) else None
            if true is not None and true.status in {"missing", "inapplicable", "insufficient"}:
                elsewhere.append(true.status)
                continue
            simulated = case.simulated[evaluator] if isinstance(case.simulated, Report) else None
            if simulated is None or simulated.value is None:
                failed += 1
            elif simulated.normalised is not None:
                values.append(simulated.normalised)
        return mean_of(values, failed, elsewhere)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "cases": [
                {"name": c.name, "simulated": c.simulated.to_json(), "true": c.true.to_json()} for c in self.cases
            ]
        }


def evaluate(
    simulate: Simulate,
    cases: Iterable[Clip],
    suite: str | Sequence[str] | Suite = "physics",
    *,
    context: int = 1,
    workers: int = 1,
    out: str | Path | None = None,
    progress: Callable[[int, CaseResult], None] | None = None,
) -> Evaluation:
    """Rolls a simulator out from the first frames of true cases and scores it, and the truth, with the same suite.

    The simulator runs in this process, one case after the other in order (it may hold a GPU), while worker processes
    score; so results do not depend on `workers` as long as `simulate` is a function of its arguments.

    Args:
        simulate: `(frames, actions, text, num_frames) -> frames`: the first `context` frames, all actions, the text and
            the length; gives uint8 (num_frames, H, W, 3), beginning with the given frames.
        cases: True clips.
        suite: As in `eval.score`.
        context: How many true frames the simulator is given.
        workers: Processes that score.
        out: A folder for one JSON file per clip; cases found there are not scored again (simulations are made anew, to
            know that they are the same).
        progress: Called with the number of cases done and the newest.

    Raises:
        EvalError: If `workers` or `context` is under 1.
        UnknownNameError: On an unknown suite or evaluator.
    """
    if workers < 1 or context < 1:
        raise EvalError(
            expected="workers >= 1 and context >= 1", got=f"{workers} and {context}", remedy="Use 1 for the least."
        )
    resolved = Suite.of(suite)
    folder = None if out is None else Path(out)
    jobs = _jobs(simulate, cases, resolved, context, folder)
    results: list[CaseResult] = []
    for result in run_ordered(_grade, jobs, workers):
        results.append(result)
        if progress is not None:
            progress(len(results), result)
    return Evaluation(cases=tuple(results))


def simulated_clip(simulate: Simulate, true: Clip, context: int = 1) -> Clip:
    """The clip that a simulator makes of a true case, with the truth as its reference.

    Raises:
        ClipError: If the case is no longer than `context`, or if the simulator gives anything but uint8 frames of the
            case's shape that begin with the frames that it was given.
    """
    if len(true) <= context:
        raise ClipError(
            expected=f"a case longer than its {context} given frames",
            got=f"{len(true)} frames",
            remedy="Use longer ones.",
        )
    given = true.frames[:context]
    frames = np.asarray(simulate(given.copy(), true.actions, true.text, len(true)))
    if frames.shape != true.frames.shape or frames.dtype != np.uint8:
        raise ClipError(
            expected=f"uint8 frames {true.frames.shape} from the simulator",
            got=f"{frames.dtype} {frames.shape}",
            remedy="Return num_frames frames, the given ones included.",
        )
    if not np.array_equal(frames[:context], given):
        raise ClipError(
            expected="the given frames at the start of the simulation",
            got="others",
            remedy="Put the given frames first, unchanged.",
        )
    commanded: Mapping[str, np.ndarray] = {k: v for k, v in true.truth.items() if k in COMMANDED}
    return replace(true, frames=frames, truth=commanded, reference=replace(true, reference=None))


def _jobs(
    simulate: Simulate, cases: Iterable[Clip], suite: Suite, context: int, folder: Path | None
) -> Iterator[tuple[int, Clip, Clip | Failure, Suite, Path | None]]:
    for i, case in enumerate(cases):
        try:
            simulated: Clip | Failure = simulated_clip(simulate, case, context)
        except Exception as error:  # noqa: BLE001 - a simulator that fails on one case is graded 0 there
            simulated = Failure.of(case.name, error)
        yield i, case, simulated, suite, folder


def _grade(job: tuple[int, Clip, Clip | Failure, Suite, Path | None]) -> CaseResult:
    i, case, simulated, suite, folder = job
    true = replace(case, reference=replace(case, reference=None))
    of_truth = score_saved(true, suite, None if folder is None else folder / f"{i:06d}-true")
    if isinstance(simulated, Clip):
        simulated_report = score_saved(simulated, suite, None if folder is None else folder / f"{i:06d}-simulated")
    else:
        simulated_report = simulated
    return CaseResult(name=case.name, simulated=simulated_report, true=of_truth)
