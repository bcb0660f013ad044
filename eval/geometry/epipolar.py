"""Epipolar distances of matched points, and the fundamental matrix that they need.

A fundamental matrix F relates pixels of images a and b by x_b^T F x_a = 0 (Hartley and Zisserman, Multiple View
Geometry, chapters 9 and 11).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.errors import MeasureError
from eval.geometry.pose import check_intrinsics, check_poses


def skew(t: np.ndarray) -> np.ndarray:
    """The 3x3 matrix whose product with v is the cross product of `t` (3,) and v."""
    x, y, z = t
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def fundamental_from_poses(b_from_a: np.ndarray, K_a: np.ndarray, K_b: np.ndarray) -> np.ndarray:
    """Fundamental matrix (3, 3) of two calibrated cameras; zero where the baseline is zero.

    Args:
        b_from_a: (4, 4), camera a to camera b, see `eval.geometry.pose.relative_pose`.
        K_a: (3, 3) intrinsics of a, pixels.
        K_b: (3, 3) intrinsics of b, pixels.

    Raises:
        MeasureError: If `b_from_a` is no rigid transform, or intrinsics are none.
    """
    b_from_a = check_poses(np.asarray(b_from_a)[None])[0]
    K_a, K_b = check_intrinsics(K_a), check_intrinsics(K_b)
    essential = skew(b_from_a[:3, 3]) @ b_from_a[:3, :3]
    return np.linalg.inv(K_b).T @ essential @ np.linalg.inv(K_a)


def sampson_distance(points_a: np.ndarray, points_b: np.ndarray, F: np.ndarray) -> np.ndarray:
    """Sampson distance in pixels: first-order distance of a match to the nearest match that satisfies F.

    Args:
        points_a: (N, 2) pixels in image a.
        points_b: (N, 2) pixels in image b.
        F: (3, 3).

    Returns:
        (N,), infinite where the gradient vanishes (both points at epipoles, or F = 0). The square is what
        `kornia.geometry.epipolar.sampson_epipolar_distance` gives by default.
    """
    check_matches(points_a, points_b, F)
    lines_b, lines_a = _homogeneous(points_a) @ F.T, _homogeneous(points_b) @ F
    numerator = np.abs(np.sum(_homogeneous(points_b) * lines_b, axis=1))
    denominator = np.sqrt((lines_b[:, :2] ** 2).sum(1) + (lines_a[:, :2] ** 2).sum(1))
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.inf), where=denominator > 0)


def point_line_distances(points_a: np.ndarray, points_b: np.ndarray, F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances in pixels of each point to the epipolar line of its partner: in image b, and in image a; each (N,).

    NaN where the line is undefined (0/0: zero baseline).
    """
    check_matches(points_a, points_b, F)
    lines_b, lines_a = _homogeneous(points_a) @ F.T, _homogeneous(points_b) @ F
    numerator = np.abs(np.sum(_homogeneous(points_b) * lines_b, axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return numerator / np.linalg.norm(lines_b[:, :2], axis=1), numerator / np.linalg.norm(lines_a[:, :2], axis=1)


def symmetric_epipolar_distance(points_a: np.ndarray, points_b: np.ndarray, F: np.ndarray) -> np.ndarray:
    """Symmetric epipolar distance SED in pixels (N,): the mean of the two point-to-line distances.

    As in Yu et al., Photoconsistent novel view synthesis (arXiv 2304.10700). kornia's "symmetrical" distance is the
    *sum of squares* of the same two numbers.
    """
    in_b, in_a = point_line_distances(points_a, points_b, F)
    return (in_b + in_a) / 2.0


@dataclass(frozen=True, kw_only=True)
class Tsed:
    """Thresholded symmetric epipolar distance of a sequence of image pairs.

    Attributes:
        median_px: (P,) median SED of each pair, NaN where there are no matches or no baseline.
        num_matches: (P,).
        consistent: (P,) bool.
        share: Consistent pairs over *all* pairs; pairs without matches count as inconsistent.
    """

    median_px: np.ndarray
    num_matches: np.ndarray
    consistent: np.ndarray
    share: float


def tsed(
    matches: Sequence[tuple[np.ndarray, np.ndarray]],
    fundamentals: Sequence[np.ndarray],
    *,
    threshold_px: float = 2.0,
    min_matches: int = 10,
) -> Tsed:
    """Share of pairs with at least `min_matches` matches and a median SED below `threshold_px` (arXiv 2304.10700).

    Blind to errors along the epipolar line. A pair with exactly zero baseline has no lines and counts as inconsistent,
    as in the published code; leave pure rotations out beforehand, see `eval.geometry.pose.median_parallax_px`.

    Args:
        matches: For each pair, points (N, 2) in a and (N, 2) in b.
        fundamentals: For each pair, F (3, 3).
        threshold_px: The median must lie strictly below.
        min_matches: The number of matches must reach this.

    Raises:
        MeasureError: If there are no pairs, or not one F a pair.
    """
    if not matches or len(matches) != len(fundamentals):
        raise MeasureError(
            expected="at least one pair, and one F a pair",
            got=f"{len(matches)} pairs, {len(fundamentals)} matrices",
            remedy="Pass neighbouring frames.",
        )
    medians = np.array(
        [
            np.median(symmetric_epipolar_distance(a, b, F)) if len(a) else np.nan
            for (a, b), F in zip(matches, fundamentals, strict=True)
        ]
    )
    counts = np.array([len(a) for a, _ in matches])
    consistent = (counts >= min_matches) & (medians < threshold_px)
    return Tsed(median_px=medians, num_matches=counts, consistent=consistent, share=float(consistent.mean()))


def fundamental_eight_point(points_a: np.ndarray, points_b: np.ndarray) -> np.ndarray:
    """Fundamental matrix (3, 3) of unit norm by the normalised eight-point algorithm (Hartley 1997), all points used.

    Raises:
        MeasureError: If there are fewer than eight matches, or all points of an image coincide.
    """
    check_matches(points_a, points_b, np.eye(3))
    if len(points_a) < 8:
        raise MeasureError(expected="at least 8 matches", got=len(points_a), remedy="Use more textured frames.")
    a, T_a = _normalised(points_a)
    b, T_b = _normalised(points_b)
    design = (b[:, :, None] * a[:, None, :]).reshape(len(a), 9)
    F = np.linalg.svd(design)[2][-1].reshape(3, 3)
    U, s, Vt = np.linalg.svd(F)
    F = T_b.T @ (U * [s[0], s[1], 0.0]) @ Vt @ T_a
    return F / np.linalg.norm(F)


def _normalised(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Homogeneous points with zero mean and mean distance sqrt(2), and the 3x3 matrix that makes them so."""
    mean = points.mean(axis=0)
    spread = np.linalg.norm(points - mean, axis=1).mean()
    if not spread > 0:
        raise MeasureError(expected="distinct points", got="points that coincide", remedy="Use textured frames.")
    scale = np.sqrt(2.0) / spread
    T = np.array([[scale, 0.0, -scale * mean[0]], [0.0, scale, -scale * mean[1]], [0.0, 0.0, 1.0]])
    return _homogeneous(points) @ T.T, T


def _homogeneous(points: np.ndarray) -> np.ndarray:
    return np.column_stack([points, np.ones(len(points))]).astype(np.float64)


def check_matches(points_a: np.ndarray, points_b: np.ndarray, F: np.ndarray) -> None:
    """Refuses what are no matches: unequal or other shapes than (N, 2), F other than (3, 3), values not finite.

    Raises:
        MeasureError: On any of these.
    """
    a, b = np.shape(points_a), np.shape(points_b)
    if len(a) != 2 or a != b or a[1] != 2:
        raise MeasureError(
            expected="matched points of shapes (N, 2) and (N, 2)", got=f"{a} and {b}", remedy="Pass pixel coordinates."
        )
    if np.shape(F) != (3, 3):
        raise MeasureError(expected="F of shape (3, 3)", got=str(np.shape(F)), remedy="Pass one matrix a pair.")
    if not (np.isfinite(points_a).all() and np.isfinite(points_b).all() and np.isfinite(F).all()):
        raise MeasureError(expected="finite points and F", got="NaN or infinity", remedy="Drop unmatched points.")
