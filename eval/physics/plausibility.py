"""Violation of expectation: is the impossible video more surprising than the possible one it is matched with?

The protocol of IntPhys (Riochet et al., 2018), IntPhys 2 and facebookresearch/jepa-intuitive-physics (Garrido et al.,
2025). Any scorer plugs in: a law, a metric against the truth, or a simulator's own surprise.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import optimize, stats

from eval.clip import Clip
from eval.errors import MeasureError
from eval.score import Evaluator
from eval.uncertainty import wilson_interval

# Surprise of a clip, higher is less plausible; None if the scorer cannot tell.
Scorer = Callable[[Clip], float | None]


class Auroc(NamedTuple):
    """Area under the ROC curve with its confidence interval and DeLong standard error."""

    value: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A lawful clip and the same clip with one violation planted.

    Attributes:
        possible: The lawful clip.
        impossible: The same scene with the violation.
        violation: Its kind, e.g. "teleport".
        severity: Its size on the violation's own scale.
    """

    possible: Clip
    impossible: Clip
    violation: str
    severity: float


class Judged(NamedTuple):
    """A matched pair after scoring.

    Attributes:
        violation: Its kind.
        severity: Its size.
        possible: Surprise of the lawful clip; None or NaN if the scorer could not tell.
        impossible: Surprise of the violated clip.
    """

    violation: str
    severity: float
    possible: float | None
    impossible: float | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How well a scorer tells possible from impossible, over the pairs of one violation (and severity).

    Attributes:
        violation: Kind of violation, or "all".
        severity: Its size, or None for all sizes together.
        n: Number of pairs.
        unscored: Clips to which the scorer gave no value. They count against it: a possible clip as surprising
            without limit, an impossible one as not surprising at all, so that silence never raises a result.
        relative_accuracy: Share of pairs in which the impossible clip is the more surprising; a tie counts ½.
        relative_interval: Its 95 % Wilson interval.
        strict_accuracy: The same with a tie counted as wrong, as in the published code.
        auroc: Over all clips of these pairs, ignoring who is matched with whom.
    """

    violation: str
    severity: float | None
    n: int
    unscored: int
    relative_accuracy: float
    relative_interval: tuple[float, float]
    strict_accuracy: float
    auroc: Auroc


def relative_accuracy(possible: np.ndarray, impossible: np.ndarray, *, tie: float = 0.5) -> float:
    """Share of pairs in which the impossible video is the more surprising one.

    Args:
        possible: (n,) surprise of the possible videos.
        impossible: (n,) surprise of the impossible ones, in the same order.
        tie: What a tie counts; 0 gives the strict variant of the published code.

    Raises:
        MeasureError: If the lengths differ, are zero, or a value is NaN.
    """
    possible, impossible = _scores(possible, "possible"), _scores(impossible, "impossible")
    if possible.shape != impossible.shape:
        raise MeasureError(
            expected="one impossible video for each possible one",
            got=(len(possible), len(impossible)),
            remedy="Pair them by order.",
        )
    return float(np.mean((possible < impossible) + tie * (possible == impossible)))


def auroc(
    negative: np.ndarray,
    positive: np.ndarray,
    *,
    method: Literal["newcombe", "delong"] = "newcombe",
    confidence: float = 0.95,
) -> Auroc:
    """Probability that a positive scores above a negative (ties ½), with an interval.

    Args:
        negative: (m,) scores of the possible (lawful) cases.
        positive: (n,) scores of the impossible ones.
        method: "newcombe": method 5 of Newcombe, Statistics in Medicine 25, 2006, which keeps its width where every
            pair is told apart. "delong": DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988, on the logit scale,
            whose interval has no width there.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The area, its interval, and DeLong's standard error (NaN with fewer than two cases on a side).

    Raises:
        MeasureError: If one side is empty or a score is NaN.
    """
    negative, positive = _scores(negative, "negative"), _scores(positive, "positive")
    m, n = len(negative), len(positive)
    pooled = stats.rankdata(np.concatenate([negative, positive]))
    # Share of the other side that each case beats: DeLong's placements, from midranks.
    over_negative = (pooled[m:] - stats.rankdata(positive)) / m
    over_positive = 1 - (pooled[:m] - stats.rankdata(negative)) / n
    value = float(over_negative.mean())
    error = float("nan")
    if min(m, n) > 1:
        error = float(np.sqrt(over_negative.var(ddof=1) / n + over_positive.var(ddof=1) / m))
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    low, high = _newcombe(value, m, n, z) if method == "newcombe" else _delong(value, error, z)
    return Auroc(value, low, high, error)


def windows_to_video(losses: np.ndarray, how: Literal["mean", "max"] = "mean") -> np.ndarray:
    """One surprise a video from the losses of its windows, as the published code takes it.

    Args:
        losses: (N, W).
        how: "mean" or "max" over windows.

    Raises:
        MeasureError: If there is no window, or `how` is neither.
    """
    losses = np.asarray(losses)
    if losses.ndim != 2 or 0 in losses.shape or how not in {"mean", "max"}:
        raise MeasureError(
            expected='losses (N, W) with how="mean" or "max"', got=f"{losses.shape}, {how!r}", remedy="Check both."
        )
    # In float32 the order of summation would decide between equal videos.
    return losses.mean(axis=1, dtype=np.float64) if how == "mean" else losses.max(axis=1)


def surprise_of(measure: Evaluator, **config: object) -> Scorer:
    """A scorer from an evaluator: its value, turned so that higher is less plausible.

    Raises:
        MeasureError: If the evaluator does not say which direction is better.
    """
    if measure.better == "neither":
        raise MeasureError(
            expected="an evaluator with a better direction", got=measure.name, remedy="Wrap it in a function."
        )
    sign = 1.0 if measure.better == "lower" else -1.0

    def score(clip: Clip) -> float | None:
        found = measure(clip, **config).value
        return None if found is None else sign * found

    return score


def pixel_change(clip: Clip) -> float:
    """The largest change between neighbouring frames, mean of |difference| in levels: a scorer that knows no law.

    What a scorer gains over it is not explained by a jump of pixels alone.
    """
    if len(clip) < 2:
        return 0.0
    change = np.abs(np.diff(clip.frames.astype(np.int16), axis=0))
    return float(change.mean(axis=(1, 2, 3)).max())


def judge(pairs: Iterable[Pair], scorer: Scorer) -> list[Verdict]:
    """Scores matched pairs and says how well possible and impossible are told apart.

    Args:
        pairs: Any iterable; only two numbers a pair are kept.
        scorer: Surprise of a clip, higher is less plausible; None or NaN if it cannot tell.

    Returns:
        As `verdicts`.

    Raises:
        MeasureError: If there is no pair.
    """
    return verdicts([Judged(p.violation, float(p.severity), scorer(p.possible), scorer(p.impossible)) for p in pairs])


def verdicts(cases: Sequence[Judged]) -> list[Verdict]:
    """How well possible and impossible are told apart, for a scorer that has seen all pairs.

    The intervals take pairs as independent: give each its own scene.

    Returns:
        First all pairs together, then all violations at each severity (if there are several), then each violation, each
        followed by itself at each severity.

    Raises:
        MeasureError: If there is no pair.
    """
    if not cases:
        raise MeasureError(expected="at least one pair", got="none", remedy="Render pairs with a planted violation.")
    found: list[Verdict] = []
    for violation in ("all", *sorted({c.violation for c in cases})):
        of_kind = [c for c in cases if violation in {"all", c.violation}]
        found.append(_verdict(violation, None, of_kind))
        severities = sorted({c.severity for c in of_kind})
        if len(severities) > 1:
            found += [_verdict(violation, s, [c for c in of_kind if c.severity == s]) for s in severities]
    return found


def _verdict(violation: str, severity: float | None, cases: Sequence[Judged]) -> Verdict:
    unscored = sum(value is None or math.isnan(value) for case in cases for value in (case.possible, case.impossible))
    possible = np.array([_or(case.possible, np.inf) for case in cases])
    impossible = np.array([_or(case.impossible, -np.inf) for case in cases])
    accuracy = relative_accuracy(possible, impossible)
    return Verdict(
        violation=violation,
        severity=severity,
        n=len(cases),
        unscored=unscored,
        relative_accuracy=accuracy,
        relative_interval=wilson_interval(accuracy * len(cases), len(cases)),
        strict_accuracy=relative_accuracy(possible, impossible, tie=0.0),
        auroc=auroc(possible, impossible),
    )


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None or np.isnan(value) else float(value)


def _scores(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise MeasureError(
            expected=f"{name} scores (n,) without NaN, at least one",
            got=f"shape {values.shape}, {np.isnan(values).sum()} NaN",
            remedy="Count what could not be scored against the scorer; do not drop it.",
        )
    return values


def _newcombe(value: float, m: int, n: int, z: float) -> tuple[float, float]:
    mean_size = (m + n) / 2

    def excess(theta: float, side: float) -> float:
        spread = 2 * mean_size - 1 - 3 * (mean_size - 1) / ((2 - theta) * (1 + theta))
        return value - theta - side * z * np.sqrt(theta * (1 - theta) / (m * n) * spread)

    # The limits solve |value - θ| = z·se(θ). At θ = value itself the right side wins, unless value is 0 or 1, where
    # both vanish: stay a hair away from it.
    hair = 1e-12
    low = 0.0 if value == 0 else _root(lambda theta: excess(theta, 1.0), 0.0, value - hair)
    high = 1.0 if value == 1 else _root(lambda theta: excess(theta, -1.0), value + hair, 1.0)
    return low, high


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    return float(optimize.root_scalar(function, bracket=(low, high), method="brentq").root)


def _delong(value: float, error: float, z: float) -> tuple[float, float]:
    if value in (0.0, 1.0):
        return value, value
    centre, half = np.log(value / (1 - value)), z * error / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-(centre - half))), 1 / (1 + np.exp(-(centre + half)))
    return float(low), float(high)
