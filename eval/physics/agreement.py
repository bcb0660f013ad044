"""Physics-IQ's four metrics: how a video's motion and pixels agree with another's, in one camera view."""

from typing import NamedTuple

import numpy as np

from eval.errors import MeasureError
from eval.fidelity import check_pair
from eval.physics.motion_masks import SHRINK, motion_masks, shrink


class Agreement(NamedTuple):
    """How two videos agree. For tables the fields carry leading axes (scenario, view).

    Attributes:
        mse: (..., T) mean squared error of each frame on [0, 1].
        spatiotemporal_iou: (..., T) overlap of the two masks of each frame; 1 where both are empty.
        spatial_iou: (...) overlap of where anything ever moved.
        weighted_spatial_iou: (...) overlap of how often each pixel moved, Σmin / Σmax.
        spacetime_iou: (...) overlap of the two moving volumes, Σ|A∩B| / Σ|A∪B| over all frames; used by the fixed
            scores in place of the mean of `spatiotemporal_iou`, not needed by the published ones.
    """

    mse: np.ndarray
    spatiotemporal_iou: np.ndarray
    spatial_iou: np.ndarray
    weighted_spatial_iou: np.ndarray
    spacetime_iou: np.ndarray | None = None


def agreement(frames: np.ndarray, reference: np.ndarray, *, factor: int = SHRINK, fixed: bool = False) -> Agreement:
    """The four metrics of one view: masks, downscaling, comparison.

    Args:
        frames: uint8 (T, H, W, 3), RGB.
        reference: uint8 (T, H, W, 3), RGB.
        factor: Divisor of height and width before comparison.
        fixed: Average whole blocks when shrinking, instead of the published sampling.

    Raises:
        MeasureError: If the videos differ in shape (the published code cuts the longer mask video silently).
    """
    check_pair(frames, reference)
    masks = [shrink(motion_masks(v), factor=factor, antialias=fixed) for v in (frames, reference)]
    small = [shrink(v, factor=factor, antialias=fixed) for v in (frames, reference)]
    return compare(small[0], small[1], masks[0], masks[1])


def mask_overlap(mask: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Spatiotemporal (T,), spatial, weighted spatial and spacetime IoU of bool (T, h, w) masks; empty ∧ empty is 1."""
    if mask.shape != reference.shape or mask.ndim != 3 or mask.dtype != bool or reference.dtype != bool:
        raise MeasureError(
            expected="two bool masks (T, h, w) of one shape",
            got=f"{mask.dtype} {mask.shape} and {reference.dtype} {reference.shape}",
            remedy="Use motion_masks and shrink on videos of one size and length.",
        )
    both = np.count_nonzero(mask & reference, axis=(1, 2))
    either = np.count_nonzero(mask | reference, axis=(1, 2))
    count, reference_count = mask.sum(axis=0), reference.sum(axis=0)
    per_frame = np.divide(both, either, out=np.ones(len(mask)), where=either > 0)
    spatial = _ratio(((count > 0) & (reference_count > 0)).sum(), ((count + reference_count) > 0).sum())
    weighted = _ratio(np.minimum(count, reference_count).sum(), np.maximum(count, reference_count).sum())
    return per_frame, spatial, weighted, _ratio(both.sum(), either.sum())


def stack(rows: list[list[Agreement]]) -> Agreement:
    """One table (S, V, ...) of the agreements of S scenarios in V views.

    Raises:
        MeasureError: If there is no row, or views or frames differ in number.
    """
    shapes = {(len(row), view.mse.shape) for row in rows for view in row}
    if len(shapes) != 1:
        raise MeasureError(
            expected="every scenario with the same number of views and frames",
            got=sorted(map(str, shapes)) or "no scenario",
            remedy="Cut all videos to the same duration and frame rate.",
        )
    return Agreement(*(np.array([[getattr(view, f) for view in row] for row in rows]) for f in Agreement._fields))


def compare(frames: np.ndarray, reference: np.ndarray, mask: np.ndarray, reference_mask: np.ndarray) -> Agreement:
    """The metrics of shrunk frames (T, h, w, 3) and masks (T, h, w) of two videos."""
    per_frame, spatial, weighted, spacetime = mask_overlap(mask, reference_mask)
    return Agreement(
        _unit_mse(frames, reference), per_frame, np.array(spatial), np.array(weighted), np.array(spacetime)
    )


def _unit_mse(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    # The published code subtracts frames / 255 in float32 and lets float32 accumulate the mean.
    levels = (np.arange(256) / 255.0).astype(np.float32)
    difference = (levels[frames] - levels[reference]).reshape(len(frames), -1)
    return np.mean(difference**2, axis=1).astype(np.float64)


def _ratio(part: np.integer, whole: np.integer) -> float:
    return float(part / whole) if whole > 0 else 1.0
