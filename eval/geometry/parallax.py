"""Is there parallax? A homography against a fundamental matrix, by Torr's geometric robust information criterion.

A plane, a distant scene or a camera that only turns is explained by a homography; then *any* fundamental matrix fits
and epipolar errors mean nothing (Torr, "An assessment of information criteria for motion model selection", CVPR 1997).
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from eval.errors import MeasureError
from eval.geometry.epipolar import check_matches, sampson_distance

# Localisation noise of SIFT keypoints, pixels.
_SIGMA_PX = 0.5
MIN_MATCHES = 16


@dataclass(frozen=True, kw_only=True)
class TwoView:
    """Robust two-view models of M matches.

    Attributes:
        F: (3, 3) or None where MAGSAC found none.
        inliers: (M,) bool under F.
        sampson_px: (M,) Sampson distance of *all* matches to F.
        homography_share: Share of the matches that a homography explains within the same threshold.
        has_parallax: F describes the matches better than a homography does.
        motion_px: Median displacement of the matches.
    """

    F: np.ndarray | None
    inliers: np.ndarray
    sampson_px: np.ndarray
    homography_share: float
    has_parallax: bool
    motion_px: float


def two_view(points_a: np.ndarray, points_b: np.ndarray, *, threshold_px: float = 1.0) -> TwoView | None:
    """Fits a fundamental matrix and a homography by MAGSAC++ (Barath et al. 2020) and compares them.

    Returns:
        None if there are fewer than `MIN_MATCHES` matches.

    Raises:
        MeasureError: If points are not (N, 2) and (N, 2), or not finite.
    """
    check_matches(points_a, points_b, np.eye(3))
    if len(points_a) < MIN_MATCHES:
        return None
    F = _fitted(lambda: cv2.findFundamentalMat(points_a, points_b, cv2.USAC_MAGSAC, threshold_px, 0.999, 10000)[0])
    H = _fitted(
        lambda: cv2.findHomography(points_a, points_b, cv2.USAC_MAGSAC, threshold_px, maxIters=10000, confidence=0.999)[
            0
        ]
    )
    motion = float(np.median(np.linalg.norm(points_b - points_a, axis=1)))
    error_F = np.full(len(points_a), np.inf) if F is None else sampson_distance(points_a, points_b, F)
    error_H = np.full(len(points_a), np.inf) if H is None else transfer_error(points_a, points_b, H)
    return TwoView(
        F=F,
        inliers=error_F < threshold_px,
        sampson_px=error_F,
        homography_share=float((error_H < threshold_px).mean()),
        has_parallax=gric(error_F, dimension=3, parameters=7) < gric(error_H, dimension=2, parameters=8),
        motion_px=motion,
    )


def _fitted(fit: Callable[[], np.ndarray | None]) -> np.ndarray | None:
    """The matrix of a robust fit; None where there is none.

    On matches without any common model USAC reports an empty matrix, several stacked ones, or fails an assertion.
    """
    try:
        found = fit()
    except cv2.error:
        return None
    return found if found is not None and found.shape == (3, 3) and np.isfinite(found).all() and found.any() else None


def transfer_error(points_a: np.ndarray, points_b: np.ndarray, H: np.ndarray) -> np.ndarray:
    """Symmetric transfer error (N,) in pixels of a homography b = H a: root mean square of the two directions."""

    def moved(points: np.ndarray, M: np.ndarray) -> np.ndarray:
        out = np.column_stack([points, np.ones(len(points))]) @ M.T
        with np.errstate(divide="ignore", invalid="ignore"):
            return out[:, :2] / out[:, 2:]

    if abs(np.linalg.det(H)) < 1e-12:
        return np.full(len(points_a), np.inf)
    forward = ((moved(points_a, H) - points_b) ** 2).sum(1)
    backward = ((moved(points_b, np.linalg.inv(H)) - points_a) ** 2).sum(1)
    return np.sqrt((forward + backward) / 2.0)


def gric(error_px: np.ndarray, *, dimension: int, parameters: int, sigma_px: float = _SIGMA_PX) -> float:
    """Geometric robust information criterion; the model with the lower value describes the matches better.

    Args:
        error_px: (N,) distance of each match to the model; may be infinite.
        dimension: Of the model manifold in the four-dimensional space of matches: 3 for F, 2 for a homography.
        parameters: Degrees of freedom: 7 for F, 8 for a homography.
        sigma_px: Standard deviation of the localisation noise.

    Raises:
        MeasureError: If there are no matches, or an error is NaN.
    """
    if not len(error_px) or np.isnan(error_px).any():
        raise MeasureError(
            expected="errors of one match or more", got="none, or NaN", remedy="Leave out what has no error."
        )
    space = 4
    n = len(error_px)
    data = np.minimum((error_px / sigma_px) ** 2, 2.0 * (space - dimension)).sum()
    return float(data + np.log(space) * dimension * n + np.log(space * n) * parameters)
