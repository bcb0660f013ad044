"""Physics-IQ: agreement of a generated video with real takes of the same scene, in four metrics and two scores.

Motamed, Culp, Swersky, Jaini & Geirhos, "Do generative video models understand physical principles?", 2025;
google-deepmind/physics-IQ-benchmark. It measures agreement with a reference, not violation of a law. Two real takes of
a scene also differ: their agreement ("physical variance") is the yardstick.

Every function follows the published code; `fixed=True` mends what docs/evaluators-reference.md lists as its defects.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from eval.clip import Clip
from eval.errors import MeasureError
from eval.fidelity import check_pair, evidence, paired
from eval.physics.agreement import Agreement, agreement, compare, mask_overlap, stack
from eval.physics.motion_masks import condense, motion_masks, shrink
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import mean_interval, standard_error

__all__ = [
    "Agreement",
    "Original",
    "PhysicsIQ",
    "Verified",
    "agreement",
    "mask_overlap",
    "motion_masks",
    "original_score",
    "physics_iq",
    "shrink",
    "stack",
    "verified_score",
]

SECONDS = 5
# Keeps the published ratios finite.
RATIO_EPS = 1e-8
# Far more than the rounding error of a product below 10⁴.
HALF_EPS = 1e-6
# Mean squared difference of two roundings to uint8, on frames in [0, 1]: no smaller error can be told from none.
QUANTISATION_MSE = 2 / 12 / 255**2


class Original(NamedTuple):
    """The Original score, 0 to 100, and the summed physical variance that the published code prints beside it."""

    score: float
    physical_variance: float


class Verified(NamedTuple):
    """The Verified score, 0 to 1.

    Attributes:
        score: Mean over scenarios and views.
        per_view: (S, V) score of each view.
        per_metric: (S, V, 4) clipped ratios: spatial, weighted spatial, spatiotemporal IoU, MSE.
    """

    score: float
    per_view: np.ndarray
    per_metric: np.ndarray


@dataclass(frozen=True, kw_only=True)
class PhysicsIQ:
    """Both scores of a set of scenarios.

    Attributes:
        original: Original score, 0 to 100.
        verified: Verified score, 0 to 1.
        verified_interval: 95 % bootstrap interval over scenarios (the independent units).
        per_view: (S, V) Verified score of each view.
        candidate: Agreement of the generated videos with take 1, fields (S, V, ...).
        variance: Agreement of take 1 with take 2, fields (S, V, ...).
    """

    original: float
    verified: float
    verified_interval: tuple[float, float]
    per_view: np.ndarray
    candidate: Agreement
    variance: Agreement


def original_score(candidate: Agreement, variance: Agreement, *, fixed: bool = False) -> Original:
    """The Original score: one ratio of dataset means per metric, MSE subtracted, clipped to [0, 100].

    Args:
        candidate: Generated videos against take 1, fields (S, V, ...).
        variance: Take 1 against take 2, fields (S, V, ...).
        fixed: No rounding on the way, each ratio clipped to [0, 1] before the mean, spacetime IoU.

    Returns:
        NaN as published if a metric is 0/0 over the whole dataset; 0 for that metric with `fixed`.

    Raises:
        MeasureError: If shapes differ or a value is not finite (the published reader drops NaN silently).
    """
    candidate, variance = _checked(candidate, variance)
    if not fixed:
        candidate, variance = _as_read(candidate), _as_read(variance)
    mse, mse_variance = candidate.mse.mean(), variance.mse.mean()
    means = [np.mean(m) for m in _ious(candidate, fixed=fixed)]
    variances = [np.mean(v) for v in _ious(variance, fixed=fixed)]
    if fixed:
        ratios = np.clip([_share(m, v) for m, v in zip(means, variances, strict=True)], 0.0, 1.0)
        score = 100 * float(np.clip(np.mean(ratios) - max(0.0, mse - mse_variance), 0.0, 1.0))
        return Original(score, float(sum(variances) - mse_variance))
    mse_variance = round(mse_variance, 4)
    variances = [round(v, digits) for v, digits in zip(variances, (5, 4, 4), strict=True)]  # spatial: five digits
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [np.float64(m) / v for m, v in zip(means, variances, strict=True)]
    score = 100 * (sum(ratios) / 3 - (mse - mse_variance))
    return Original(round(float(np.clip(score, 0.0, 100.0)), 2), round(float(sum(variances) - mse_variance), 4))


def verified_score(candidate: Agreement, variance: Agreement, *, fixed: bool = False) -> Verified:
    """The Verified score: per scenario and view the mean of four ratios, each clipped to [0, 1]; then the mean.

    Args:
        candidate: Generated videos against take 1, fields (S, V, ...).
        variance: Take 1 against take 2, fields (S, V, ...).
        fixed: No rounding, exact ratios, spacetime IoU, and an MSE ratio that knows the rounding of uint8 frames.

    Raises:
        MeasureError: As `original_score`.
    """
    candidate, variance = _checked(candidate, variance)
    if not fixed:
        candidate, variance = _as_read(candidate), _as_read(variance)
    mse, mse_variance = candidate.mse.mean(axis=-1), variance.mse.mean(axis=-1)
    ious = zip(_ious(candidate, fixed=fixed), _ious(variance, fixed=fixed), strict=True)
    if fixed:
        ratios = [_share(metric, yardstick) for metric, yardstick in ious]
        ratios.append((mse_variance + QUANTISATION_MSE) / (mse + QUANTISATION_MSE))
    else:
        ratios = [metric / (yardstick + RATIO_EPS) for metric, yardstick in ious]
        with np.errstate(divide="ignore"):
            ratios.append(1 / (mse / (mse_variance + RATIO_EPS)))
    per_metric = np.clip(np.stack(ratios, axis=-1), 0.0, 1.0)
    per_view = per_metric.mean(axis=-1)
    return Verified(float(per_view.mean()), per_view, per_metric)


def physics_iq(
    generated: list[list[np.ndarray]],
    take1: list[list[np.ndarray]],
    take2: list[list[np.ndarray]],
    *,
    fps: float,
    seconds: float = SECONDS,
    fixed: bool = False,
    rng: np.random.Generator | None = None,
) -> PhysicsIQ:
    """Both Physics-IQ scores of generated videos against two real takes.

    Args:
        generated: S scenarios of V views, uint8 (T, H, W, 3) RGB, all at `fps`.
        take1: The first real take, in the same order.
        take2: The second real take.
        fps: Frame rate of all videos.
        seconds: How much of the beginning is scored.
        fixed: Mend the defects of the published code.
        rng: For the bootstrap interval; `default_rng(0)` if absent.

    Raises:
        MeasureError: If the nesting differs, or a video is shorter than `seconds` or of another shape.
    """
    count = round(fps * seconds)
    if not len(generated) == len(take1) == len(take2):
        raise MeasureError(
            expected="the same scenarios in all three lists",
            got=(len(generated), len(take1), len(take2)),
            remedy="Generate the missing scenarios.",
        )
    rows, yardsticks = [], []
    for views, first, second in zip(generated, take1, take2, strict=True):
        if not len(views) == len(first) == len(second):
            raise MeasureError(
                expected="the same views of a scenario in all three lists",
                got=(len(views), len(first), len(second)),
                remedy="Generate the missing views.",
            )
        triples = [[_beginning(v, count) for v in triple] for triple in zip(views, first, second, strict=True)]
        compared = [_triple(*triple, fixed=fixed) for triple in triples]
        rows.append([c for c, _ in compared])
        yardsticks.append([v for _, v in compared])
    candidate, variance = stack(rows), stack(yardsticks)
    verified = verified_score(candidate, variance, fixed=fixed)
    per_scenario = verified.per_view.mean(axis=1)
    return PhysicsIQ(
        original=original_score(candidate, variance, fixed=fixed).score,
        verified=verified.score,
        verified_interval=mean_interval(per_scenario, rng=rng or np.random.default_rng(0)),
        per_view=verified.per_view,
        candidate=candidate,
        variance=variance,
    )


@evaluator(
    "physics_iq_agreement",
    suite="fidelity",
    unit="share",
    better="higher",
    needs=("reference",),
    claims=("late", "impulse"),
)
def physics_iq_agreement(clip: Clip, *, factor: int = 1, context: int = 1) -> Measurement:
    """Physics-IQ's motion overlap with the true video: mean of spacetime, spatial and weighted spatial IoU.

    A single reference has no second take, so the published scores are not defined; these are their ingredients,
    mended, at full resolution (`factor=1`) because small videos leave too few pixels at a quarter of the size.
    """
    frames, reference = paired(clip, context)
    found = agreement(frames, reference, factor=factor, fixed=True)
    if found.weighted_spatial_iou == 1.0 and not motion_masks(reference).any():
        raise Unmeasurable("inapplicable", "nothing large enough moves in the video or its reference")
    per_frame = evidence(found.spatiotemporal_iou, max(context, 1))
    overlaps = {
        name: float(iou)
        for name, iou in found._asdict().items()
        if name in {"spacetime_iou", "spatial_iou", "weighted_spatial_iou"}
    }
    value = float(np.mean(list(overlaps.values())))
    return Measurement(
        value=value,
        normalised=value,
        uncertainty=standard_error(per_frame),
        coverage=1 - context / len(clip),
        per_frame=per_frame,
        details={**overlaps, "mse": float(found.mse[context:].mean())},
    )


def _triple(frames: np.ndarray, take1: np.ndarray, take2: np.ndarray, *, fixed: bool) -> tuple[Agreement, Agreement]:
    check_pair(frames, take1)
    check_pair(take2, take1)
    (small, mask), (small1, mask1), (small2, mask2) = (condense(v, antialias=fixed) for v in (frames, take1, take2))
    return compare(small, small1, mask, mask1), compare(small1, small2, mask1, mask2)


def _beginning(video: np.ndarray, count: int) -> np.ndarray:
    if len(video) < count:
        raise MeasureError(
            expected=f"at least {count} frames", got=len(video), remedy="Generate longer videos or lower `seconds`."
        )
    return video[:count]


def _ious(table: Agreement, *, fixed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not fixed:
        return table.spatial_iou, table.weighted_spatial_iou, table.spatiotemporal_iou.mean(axis=-1)
    if table.spacetime_iou is None:
        raise MeasureError(
            expected="spacetime_iou for the fixed score", got="None", remedy="Compare the videos with `agreement`."
        )
    return table.spatial_iou, table.weighted_spatial_iou, table.spacetime_iou


def _as_read(table: Agreement) -> Agreement:
    # The published scores read per-frame lists from a CSV and round them to four decimals as Python does: the decimal
    # value. NumPy rounds the product with 10⁴, which differs only where that lies next to a half.
    def rounded(values: np.ndarray) -> np.ndarray:
        scaled = values * 1e4
        found = np.rint(scaled) / 1e4
        unsure = np.abs(scaled - np.floor(scaled) - 0.5) < HALF_EPS
        found[unsure] = [round(v, 4) for v in values[unsure].tolist()]
        return found

    return table._replace(mse=rounded(table.mse), spatiotemporal_iou=rounded(table.spatiotemporal_iou))


def _checked(candidate: Agreement, variance: Agreement) -> tuple[Agreement, Agreement]:
    per_frame = np.shape(candidate.mse)
    return _check_table(candidate, per_frame), _check_table(variance, per_frame)


def _check_table(table: Agreement, per_frame: tuple[int, ...]) -> Agreement:
    checked = {}
    for name, given in table._asdict().items():
        if given is None:
            continue
        values = checked[name] = np.asarray(given, float)
        wanted = per_frame if name in {"mse", "spatiotemporal_iou"} else per_frame[:2]
        if len(per_frame) != 3 or values.shape != wanted or 0 in wanted:
            raise MeasureError(
                expected=f"{name} of shape {wanted}, as (scenario, view, frame) or (scenario, view)",
                got=str(values.shape),
                remedy="Build both tables with `stack` from the same scenarios and views.",
            )
        if not np.isfinite(values).all():
            raise MeasureError(expected=f"finite {name}", got="NaN or infinity", remedy="Repair the scenario.")
    return Agreement(**checked)


def _share(metric: ArrayLike, yardstick: ArrayLike) -> np.ndarray:
    # Where even two real takes never overlap the metric tells nothing, and earns nothing.
    metric, yardstick = np.asarray(metric, float), np.asarray(yardstick, float)
    return np.divide(metric, yardstick, out=np.zeros_like(metric), where=yardstick > 0)
