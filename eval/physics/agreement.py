"""Physics-IQ's four metrics: how a video's motion and pixels agree with another's, in one camera view."""

from typing import NamedTuple

import cv2
import numpy as np

from eval.errors import MeasureError
from eval.fidelity import check_pair
from eval.physics.motion_masks import SHRINK, condense

BYTE = 255


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
    (small, mask), (reference_small, reference_mask) = (
        condense(v, factor=factor, antialias=fixed) for v in (frames, reference)
    )
    return compare(small, reference_small, mask, reference_mask)


def mask_overlap(mask: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Spatiotemporal (T,), spatial, weighted spatial and spacetime IoU of bool (T, h, w) masks; empty ∧ empty is 1."""
    if mask.shape != reference.shape or mask.ndim != 3 or mask.dtype != bool or reference.dtype != bool:
        raise MeasureError(
            expected="two bool masks (T, h, w) of one shape",
            got=f"{mask.dtype} {mask.shape} and {reference.dtype} {reference.shape}",
            remedy="Use motion_masks and shrink on videos of one size and length.",
        )
    packed, reference_packed = (np.packbits(m.reshape(len(m), -1), axis=1) for m in (mask, reference))
    both = _on(packed & reference_packed)
    either = _on(packed) + _on(reference_packed) - both
    count, reference_count = _times(mask), _times(reference)
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
    fields = {name: [[getattr(view, name) for view in row] for row in rows] for name in Agreement._fields}
    if any(value is None for row in fields["spacetime_iou"] for value in row):
        del fields["spacetime_iou"]
    return Agreement(**{name: np.array(values) for name, values in fields.items()})


def compare(frames: np.ndarray, reference: np.ndarray, mask: np.ndarray, reference_mask: np.ndarray) -> Agreement:
    """The metrics of shrunk frames (T, h, w, 3) and masks (T, h, w) of two videos."""
    per_frame, spatial, weighted, spacetime = mask_overlap(mask, reference_mask)
    return Agreement(
        _unit_mse(frames, reference), per_frame, np.array(spatial), np.array(weighted), np.array(spacetime)
    )


def _unit_mse(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    # Exact, in integers; the published code accumulates float32, and is 1e-8 of this off.
    squares = [cv2.norm(a, b, cv2.NORM_L2SQR) for a, b in zip(frames, reference, strict=True)]
    return np.array(squares) / (255**2 * frames[0].size)


def _on(packed: np.ndarray) -> np.ndarray:
    """How many bits of each row are on."""
    return np.bitwise_count(packed).sum(axis=1, dtype=np.int64)


def _times(mask: np.ndarray) -> np.ndarray:
    """How often each pixel of bool (T, h, w) is on."""
    total = np.zeros(mask.shape[1:], np.uint32)
    # Sums of so few frames fit a byte, and bytes are added many at a time.
    for start in range(0, len(mask), BYTE):
        total += np.add.reduce(mask[start : start + BYTE].view(np.uint8), axis=0, dtype=np.uint8)
    return total


def _ratio(part: np.integer, whole: np.integer) -> float:
    return float(part / whole) if whole > 0 else 1.0
