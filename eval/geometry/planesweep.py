"""Plane sweep: can *any* depth map explain the other views under the commanded camera?

With the camera known and depth unknown, a world that is one rigid scene still has a depth map for every frame under
which the neighbouring frames, warped, land on it. The sweep looks for that map: hypotheses of inverse depth are tried
for all neighbours together (Collins 1996; the cost is local-contrast normalised, so exposure does not matter), the
best is refined by the flow that remains, and what no depth can explain is the score: the part of the residual flow
across the epipolar lines, and the part along them on which the neighbours disagree.

Depth absorbs whatever is consistent with *some* rigid scene, so this measure is weaker than known depth, never
stronger.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from eval.errors import MeasureError
from eval.geometry.depth import FLOW_SIDE, dense_flow, sample, unexplained_levels
from eval.geometry.guards import structure_tensor, visible_flow
from eval.geometry.pose import pixel_grid, project, unproject

# Local contrast is divided by the local standard deviation plus this many grey levels, which keeps sensor noise on flat
# walls from becoming texture.
_NOISE_LEVELS = 3.0
_CONTRAST_WINDOW, _COST_WINDOW = 7, 5
# Absolute differences of normalised contrast above this are outliers (occlusion) and cost no more.
_TRUNCATION = 1.0
# How much nearer than a pixel's own depth the source's surface must be to count as hiding it.
_IN_FRONT = 0.15
# Half the width of the patches that flow is measured on, as a share of the shorter side (8 of 64 pixels).
_REACH = 1 / 16
# Parallax by which depth must bend within that reach to be an edge, pixels at a shorter side of 256.
_EDGE_PX = 1.0


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A source view of a sweep: its frame uint8 (H, W, 3) and `source_from_target` (4, 4)."""

    frame: np.ndarray
    source_from_target: np.ndarray


def hypotheses(near_m: float, far_m: float, count: int) -> np.ndarray:
    """Inverse depths (count,) in 1/m, equally spaced from far to near: equal steps of disparity.

    Raises:
        MeasureError: Unless 0 < near < far and there are at least three.
    """
    if not (0 < near_m < far_m < np.inf and count >= 3):
        raise MeasureError(
            expected="0 < near_m < far_m and at least 3 planes",
            got=f"near {near_m}, far {far_m}, {count} planes",
            remedy="Give the range of distances of the scene in the unit of the poses.",
        )
    return np.linspace(1.0 / far_m, 1.0 / near_m, count)


def local_contrast(frame: np.ndarray) -> np.ndarray:
    """Grey levels minus their local mean, over their local deviation: float32 (H, W), invariant to gain and offset."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    window = (_CONTRAST_WINDOW, _CONTRAST_WINDOW)
    mean = cv2.blur(grey, window)
    variance = cv2.blur(grey * grey, window) - mean * mean
    return (grey - mean) / (np.sqrt(np.maximum(variance, 0.0)) + _NOISE_LEVELS)


def sweep_cost(
    frame: np.ndarray, neighbours: Sequence[Neighbour], K: np.ndarray, inverse_depths: np.ndarray
) -> np.ndarray:
    """Matching cost float32 (D, H, W) of each hypothesis at each pixel, all neighbours together; lower is better.

    Args:
        frame: uint8 (H, W, 3), the target.
        neighbours: Source views of the same size.
        K: (3, 3), pixels.
        inverse_depths: (D,) in 1/m, see `hypotheses`.
    """
    target = local_contrast(frame)
    height, width = target.shape
    sources = [local_contrast(n.frame) for n in neighbours]
    # warpPerspective counts pixel centres as integers, K counts them at +0.5.
    shift = np.array([[1.0, 0.0, -0.5], [0.0, 1.0, -0.5], [0.0, 0.0, 1.0]])
    into, out_of = shift @ K, np.linalg.inv(K) @ np.linalg.inv(shift)
    outside = 1e3
    cost = np.empty((len(inverse_depths), height, width), np.float32)
    for plane, inverse_depth in zip(cost, inverse_depths, strict=True):
        total, count = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
        for source, neighbour in zip(sources, neighbours, strict=True):
            pose = neighbour.source_from_target
            induced = pose[:3, :3] + np.outer(pose[:3, 3] * inverse_depth, [0.0, 0.0, 1.0])
            warped = cv2.warpPerspective(
                source,
                into @ induced @ out_of,
                (width, height),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=(outside,),
            )
            difference = np.abs(warped - target)
            inside = difference < outside / 10
            total += np.where(inside, np.minimum(difference, _TRUNCATION), 0.0)
            count += inside
        mean = np.where(count > 0, total / np.maximum(count, 1.0), _TRUNCATION)
        plane[:] = cv2.blur(mean, (_COST_WINDOW, _COST_WINDOW))
    return cost


def best_inverse_depth(cost: np.ndarray, inverse_depths: np.ndarray) -> np.ndarray:
    """Inverse depth (H, W) of the lowest cost, between planes by a parabola through three costs, median filtered."""
    last = len(inverse_depths) - 1
    best = cost.argmin(axis=0)
    middle = np.clip(best, 1, last - 1)
    before, at, after = (np.take_along_axis(cost, (middle + k)[None], axis=0)[0] for k in (-1, 0, 1))
    bend = before - 2.0 * at + after
    offset = np.where((best == middle) & (bend > 0), 0.5 * (before - after) / np.maximum(bend, 1e-9), 0.0)
    found = np.interp(best + np.clip(offset, -0.5, 0.5), np.arange(last + 1), inverse_depths)
    return cv2.medianBlur(found.astype(np.float32), 5)


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What the best depth map leaves unexplained.

    Attributes:
        inverse_depth: (H, W) in 1/m.
        residual_px: (S, H, W) by neighbour: length of the flow that no depth explains, as far as the target's texture
            shows it, in pixels at a shorter side of 256; NaN where the pixel leaves the neighbour.
        inside: (S, H, W) bool: the pixel lies inside the neighbour under the found depth, with the patch around it.
        edge: (S, H, W) bool: the patch around the pixel straddles a depth edge, so that its flow is a mixture.
        noise_levels: (S,) standard deviation of what neither depth nor flow explains, grey levels.
    """

    inverse_depth: np.ndarray
    residual_px: np.ndarray
    inside: np.ndarray
    edge: np.ndarray
    noise_levels: np.ndarray


def explain(
    frame: np.ndarray, neighbours: Sequence[Neighbour], K: np.ndarray, inverse_depths: np.ndarray, *, rounds: int = 2
) -> Explained:
    """Finds the depth map that explains the neighbours best, and the flow that remains.

    Every round warps the neighbours by the current depth, measures the flow that is left, and moves the inverse depth
    by the least-squares share of that flow along the epipolar directions (a Gauss-Newton step over all neighbours).
    The last round's step is only subtracted.

    Args:
        frame: uint8 (H, W, 3).
        neighbours: At least one source view.
        K: (3, 3), pixels.
        inverse_depths: (D,) range to search, 1/m.
        rounds: Number of warps.
    """
    inverse_depth = best_inverse_depth(sweep_cost(frame, neighbours, K, inverse_depths), inverse_depths)
    limits = float(inverse_depths[0]), float(inverse_depths[-1])
    for _ in range(rounds - 1):
        *_, step = _gauss_newton(frame, neighbours, K, inverse_depth, limits)
        inverse_depth = cv2.medianBlur((inverse_depth + step).astype(np.float32), 3)
    flow, slope, inside, step = _gauss_newton(frame, neighbours, K, inverse_depth, limits)
    tensor = structure_tensor(frame)
    left = np.stack([visible_flow(f, tensor) for f in flow - slope * step[..., None]])
    noise = [
        unexplained_levels(sample(n.frame, _landing(n, K, inverse_depth)[0]), frame, f, i)
        for n, f, i in zip(neighbours, flow, inside, strict=True)
    ]
    reach = max(1, round(_REACH * min(inverse_depth.shape)))
    return Explained(
        inverse_depth=inverse_depth,
        residual_px=np.where(inside, left, np.nan).astype(np.float32),
        inside=np.stack([cv2.erode(i.astype(np.uint8), _square(reach)) > 0 for i in inside]),
        edge=_straddles(inverse_depth, slope, reach),
        noise_levels=np.array(noise),
    )


def _square(reach: int) -> np.ndarray:
    return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)


def _straddles(inverse_depth: np.ndarray, slope: np.ndarray, reach: int) -> np.ndarray:
    """Where depth departs from a plane, within `reach` pixels, by a pixel of parallax: (S, H, W) bool.

    The mean of inverse depth over a window equals its middle on planes, however slanted, and differs beside an edge.
    """
    bend = np.abs(inverse_depth - cv2.blur(inverse_depth, (2 * reach + 1, 2 * reach + 1)))
    bent = bend * np.linalg.norm(slope, axis=-1) > _EDGE_PX
    return np.stack([cv2.dilate(b.astype(np.uint8), _square(reach // 2)) > 0 for b in bent])


def hidden(
    explained: Explained, index: int, neighbour: Neighbour, neighbour_inverse_depth: np.ndarray, K: np.ndarray
) -> np.ndarray:
    """Where a nearer surface of the neighbour hides the target's pixel: (H, W) bool.

    Only a surface *in front* excuses a pixel. One that is behind, or no agreement at all, does not.

    Args:
        explained: The target's depth.
        index: Which of its neighbours.
        neighbour: That neighbour.
        neighbour_inverse_depth: (H, W) found with the neighbour as the target.
        K: (3, 3), pixels.
    """
    pixels, depth_m = _landing(neighbour, K, explained.inverse_depth)
    front = sample(neighbour_inverse_depth.astype(np.float32), pixels)
    return explained.inside[index] & (front * depth_m > 1.0 + _IN_FRONT)


def _gauss_newton(
    frame: np.ndarray,
    neighbours: Sequence[Neighbour],
    K: np.ndarray,
    inverse_depth: np.ndarray,
    limits: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Flow and slope (S, H, W, 2), inside (S, H, W), and the step (H, W) of inverse depth that lowers the flow most."""
    parts = [_remaining(frame, neighbour, K, inverse_depth) for neighbour in neighbours]
    flow, slope, inside = (np.stack(part) for part in zip(*parts, strict=True))
    weight = inside[..., None]
    along = (flow * slope * weight).sum(axis=(0, -1))
    square = (slope * slope * weight).sum(axis=(0, -1))
    low, high = limits
    # Where the baseline moves a pixel by less than half a pixel over the whole range, depth stays as it is.
    step = along / (square + (0.5 / (high - low)) ** 2)
    return flow, slope, inside, np.clip(inverse_depth + step, low, high) - inverse_depth


def _landing(neighbour: Neighbour, K: np.ndarray, inverse_depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (H, W, 2) in the neighbour, and depths (H, W) there; depths at or below zero lie behind it."""
    height, width = inverse_depth.shape
    pose = neighbour.source_from_target
    pixels, depth_m = project(pose[:3, :3] @ unproject(1.0 / inverse_depth, K) + pose[:3, 3:], K)
    return pixels.reshape(height, width, 2), depth_m.reshape(height, width)


def _remaining(
    frame: np.ndarray, neighbour: Neighbour, K: np.ndarray, inverse_depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flow (H, W, 2) left after warping, its slope (H, W, 2) by inverse depth, and where the pixel is inside (H, W).

    Let p(x, w) be where pixel x of inverse depth w lands in the source. The flow f from the picture warped with w to
    the frame, whose true inverse depth is w', satisfies p(x + f, w') = p(x, w); to first order
    f = -(dp/dx)^-1 (dp/dw) (w' - w).
    Flow and slope are in pixels at a shorter side of 256.
    """
    height, width = inverse_depth.shape
    pixels, depth_m = _landing(neighbour, K, inverse_depth)
    x, y = pixels[..., 0], pixels[..., 1]
    inside = (depth_m > 0) & (x >= 0.5) & (x <= width - 0.5) & (y >= 0.5) & (y <= height - 0.5)
    warped = np.where(inside[..., None], sample(neighbour.frame, pixels), frame)
    pose = neighbour.source_from_target
    turned = K @ pose[:3, :3] @ np.linalg.inv(K)
    moved = K @ pose[:3, 3]
    # The landing in homogeneous pixels is `turned @ x + moved * w`; each column below is its derivative.
    at = (turned @ pixel_grid(height, width)).reshape(3, height, width) + moved[:, None, None] * inverse_depth
    by_x, by_y, by_depth = (_derivative(at, column) for column in (turned[:, 0], turned[:, 1], moved))
    determinant = by_x[0] * by_y[1] - by_x[1] * by_y[0]
    determinant = np.where(inside, determinant, 1.0)
    slope = -np.stack([by_y[1] * by_depth[0] - by_y[0] * by_depth[1], by_x[0] * by_depth[1] - by_x[1] * by_depth[0]])
    slope = np.moveaxis(slope / determinant, 0, -1) * (FLOW_SIDE / min(height, width))
    return dense_flow(warped, frame), slope, inside


def _derivative(at: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Derivative (2, H, W) of at[:2] / at[2] when `at` (3, H, W) moves along `column` (3,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (column[:2, None, None] - at[:2] / at[2] * column[2]) / at[2]
