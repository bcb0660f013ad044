"""Memory: does the world look the same when the camera comes back? Functions on arrays."""

from dataclasses import dataclass

import cv2
import numpy as np

from eval.errors import MeasureError
from eval.geometry.depth import FLOW_SIDE

_SMOOTHING_PX, _DEVIATIONS = 1.5, 7.0
# Two pictures of one place differ by so many grey levels through rounding and interpolation.
_ROUNDING_LEVELS = 2.0
# Noise of a colour channel over that of grey, the mean of three weighted by 0.299, 0.587, 0.114.
_CHANNEL_NOISE = 1.5
# By so much a warp by true depth and pose may be off, in pixels at a shorter side of 256.
_MISPLACED_PX = 0.5


def world_stability(start_return: np.ndarray, start_mid: np.ndarray, return_mid: np.ndarray) -> np.ndarray:
    """World Stability (arXiv 2503.08122) of clips that go away and come back along the same path.

    WS = 2 d(start, return) / (d(start, mid) + d(return, mid)); lower is better: 0 is a perfect return, 2 a
    return that shows the turning point.

    Args:
        start_return: (...) distance between the first frame and the returned one, by any frame distance.
        start_mid: (...) distance between the first frame and the one at the turning point.
        return_mid: (...) distance between the returned frame and the one at the turning point.

    Returns:
        (...); NaN where nothing changed on the way (0/0): a static clip has no World Stability.

    Raises:
        MeasureError: On distances that are negative or not finite, or unequal shapes.
    """
    a, b, c = (np.asarray(d, dtype=np.float64) for d in (start_return, start_mid, return_mid))
    if not a.shape == b.shape == c.shape:
        raise MeasureError(expected="equal shapes", got=f"{a.shape}, {b.shape}, {c.shape}", remedy="One triple a clip.")
    _check_distances(a, b, c)
    away = b + c
    return np.divide(2.0 * a, away, out=np.full(a.shape, np.nan), where=away > 0)


def structural_distance(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """1 - SSIM of two frames, averaged over channels and a mask; 0 for equal pictures, about 1 for unrelated ones.

    SSIM as Wang et al. 2004: Gaussian window of sigma 1.5 px, K1 = 0.01, K2 = 0.03; by channel, or an object that comes
    back in another colour of the same brightness would pass. Outside the mask the first picture
    stands in for the second, so that windows across its edge compare nothing foreign.

    Args:
        a: uint8 (H, W, 3).
        b: uint8 (H, W, 3).
        mask: (H, W) bool.

    Raises:
        MeasureError: If the mask is empty, or sizes or types differ from these.
    """
    _check_pictures(a, b, mask)
    x = a.astype(np.float64)
    y = np.where(mask[..., None], b, x)

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (11, 11), 1.5)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(1.0 - ssim[mask].mean())


def changed_levels(a: np.ndarray, b: np.ndarray, noise_levels: float, mask: np.ndarray | None = None) -> float:
    """How much of two frames differs beyond noise: mean, over channels and a mask, of the excess in grey levels.

    Both are smoothed, which leaves a fifth of uncorrelated noise. Up to seven standard deviations of that (flow absorbs
    some of the noise that is named), and at least two levels, are no evidence of change; nor is what a shift by half a
    pixel, at a shorter side of 256, would cause.

    Args:
        a: uint8 (H, W, 3).
        b: uint8 (H, W, 3).
        noise_levels: Standard deviation, in grey levels, of the difference of two frames of an unchanged scene.
        mask: (H, W) bool; all if None.

    Raises:
        MeasureError: If the mask is empty, sizes or types differ from these, or the noise is negative or not finite.
    """
    _check_pictures(a, b, mask)
    _check_distances(noise_levels)
    x = a.astype(np.float32)
    y = b.astype(np.float32) if mask is None else np.where(mask[..., None], b, x)
    x, y = (cv2.GaussianBlur(image, (0, 0), _SMOOTHING_PX) for image in (x, y))
    kept = 1.0 / (2.0 * np.sqrt(np.pi) * _SMOOTHING_PX)
    slope = np.hypot(*(cv2.Sobel(x, cv2.CV_32F, *d, ksize=3, scale=1 / 8) for d in ((1, 0), (0, 1))))
    misplaced = slope * (_MISPLACED_PX * min(a.shape[:2]) / FLOW_SIDE)
    excess = np.maximum(
        np.abs(x - y) - max(_ROUNDING_LEVELS, _DEVIATIONS * kept * _CHANNEL_NOISE * noise_levels) - misplaced, 0.0
    )
    return float((excess if mask is None else excess[mask]).mean())


@dataclass(frozen=True, kw_only=True)
class LoopConsistency:
    """How much of the way from chance to perfect a set of revisits keeps.

    Attributes:
        share: 1 - mean distance / mean null distance: 1 perfect memory, 0 no better than another place's picture.
        distance: Mean distance of the revisits.
        null: Mean distance of the shuffled pairs.
        standard_error: Of `share`, by the jackknife over revisits; NaN for a single one.
    """

    share: float
    distance: float
    null: float
    standard_error: float


def loop_consistency(distance: np.ndarray, null: np.ndarray) -> LoopConsistency:
    """Compares distances between views of the same place with those of shuffled pairs.

    Args:
        distance: (P,) distance between each returned frame and what the earlier frame predicts for it.
        null: (P,) distance of the same returned frames to predictions that belong to other revisits.

    Raises:
        MeasureError: If there are no pairs, lengths differ, a distance is negative or not finite, or the null is zero
            (nothing distinguishes places).
    """
    distance, null = np.asarray(distance, np.float64), np.asarray(null, np.float64)
    if distance.ndim != 1 or distance.shape != null.shape or not len(distance):
        raise MeasureError(
            expected="two equal, non-empty lists of distances",
            got=f"{distance.shape} and {null.shape}",
            remedy="Pass one null distance a revisit.",
        )
    _check_distances(distance, null)
    if not null.sum() > 0:
        raise MeasureError(
            expected="places that differ", got="null distances of zero", remedy="A static or blank clip has no places."
        )
    n = len(distance)
    left_out = [_kept(np.delete(distance, i), np.delete(null, i)) for i in range(n)] if n > 1 else []
    spread = np.sqrt((n - 1) / n * ((np.array(left_out) - np.mean(left_out)) ** 2).sum()) if left_out else np.nan
    return LoopConsistency(
        share=_kept(distance, null),
        distance=float(distance.mean()),
        null=float(null.mean()),
        standard_error=float(spread),
    )


def _check_pictures(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None) -> None:
    shapes = [np.shape(a), np.shape(b), (*np.shape(a)[:2], 3)]
    if mask is not None:
        shapes.append((*np.shape(mask), 3))
    if len(set(shapes)) > 1 or any(i.dtype != np.uint8 for i in (a, b)):
        raise MeasureError(
            expected="two pictures uint8 (H, W, 3) and a mask (H, W)",
            got=f"{a.dtype} {np.shape(a)}, {b.dtype} {np.shape(b)}, mask {None if mask is None else mask.shape}",
            remedy="Resize or convert them first.",
        )
    if mask is not None and not mask.any():
        raise MeasureError(expected="a mask with pixels", got="an empty one", remedy="Compare views that overlap.")


def _check_distances(*distances: np.ndarray | float) -> None:
    if not all((np.isfinite(d) & (np.asarray(d) >= 0)).all() for d in distances):
        raise MeasureError(
            expected="finite distances >= 0",
            got="a negative value, NaN or infinity",
            remedy="Pass distances, not similarities, and leave out what could not be compared.",
        )


def _kept(distance: np.ndarray, null: np.ndarray) -> float:
    total = float(null.sum())
    return 1.0 - float(distance.sum()) / total if total > 0 else float("nan")
