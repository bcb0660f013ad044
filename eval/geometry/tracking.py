"""Camera tracking at any size: six degrees of freedom fitted directly to the image motion, the depth being known.

Sparse features fail at 64 pixels. Here frame t is aligned to frame t-1 by all pixels at once: the source is warped by
the current guess of the motion, dense flow says what is left, and a robust least-squares step turns that into a
correction.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from eval.geometry.depth import FLOW_SIDE, dense_flow, sample
from eval.geometry.guards import textured
from eval.geometry.pose import invert, project, relative_pose, unproject

# Cauchy scale of the robust weights, pixels at a shorter side of 256.
_ROBUST_PX = 0.7
_MIN_PIXELS = 64
# Mean image motion of a step, same unit, from which on no further step is worth its cost.
_CONVERGED_PX = 0.02
# Mean robust cost above which the fit from the commanded motion is doubted and another start is tried.
_DOUBTED_COST = 0.25
# Flow is measured on patches of an eighth of the side; its errors are independent from one patch to the next, no finer.
_PATCHES = 64
# Depth of a pixel that no point falls into.
_NOTHING_M = 1e9


@dataclass(frozen=True, kw_only=True)
class Motion:
    """A fitted camera motion.

    Attributes:
        target_from_source: (4, 4).
        cost: Mean robust cost of the flow that is left; lower is a better explanation.
        coverage: Share of pixels that took part.
        covariance: (6, 6) of the motion's error, a small motion of the target's camera: translation, rotation.
    """

    target_from_source: np.ndarray
    cost: float
    coverage: float
    covariance: np.ndarray


def fit_motion(
    target: np.ndarray,
    source: np.ndarray,
    source_depth_m: np.ndarray,
    K: np.ndarray,
    start: np.ndarray,
    *,
    rounds: int = 6,
) -> Motion:
    """Fits the camera motion from a frame with known depth to another frame.

    Args:
        target: uint8 (H, W, 3).
        source: uint8 (H, W, 3).
        source_depth_m: (H, W) along the optical axis; not positive or not finite where unknown.
        K: (3, 3), pixels.
        start: (4, 4) `target_from_source` to start from.
        rounds: Number of Gauss-Newton steps.
    """
    height, width = source.shape[:2]
    scale = FLOW_SIDE / min(height, width)
    known = (np.isfinite(source_depth_m) & (source_depth_m > 0)).ravel()
    points = unproject(np.where(known.reshape(height, width), source_depth_m, 1.0), K)
    known &= textured(source).ravel()
    pose, best = start.copy(), Motion(target_from_source=start, cost=np.inf, coverage=0.0, covariance=np.zeros((6, 6)))
    for _ in range(rounds + 1):
        moved = pose[:3, :3] @ points + pose[:3, 3:]
        pixels, depth_m = project(moved, K)
        x, y = pixels.T
        used = known & (depth_m > 0.05) & (x >= 0.5) & (x <= width - 0.5) & (y >= 0.5) & (y <= height - 0.5)
        if used.sum() < _MIN_PIXELS:
            break
        inside = used.reshape(height, width)
        # The target seen from the source's pixels: what remains is flow in the target, at matching pixels.
        seen = sample(target, pixels.reshape(height, width, 2).astype(np.float32))
        flow = dense_flow(source, np.where(inside[..., None], seen, source)).reshape(-1, 2)[used]
        # `flow` is measured on the source's grid; to first order the local map to the target's turns and scales it.
        flow = np.einsum("nij,nj->ni", _local_map(pixels, height, width)[used], flow)
        weight = 1.0 / (1.0 + (flow**2).sum(1) / _ROBUST_PX**2)
        cost = float(np.log1p((flow**2).sum(1) / _ROBUST_PX**2).mean())
        J = _jacobian(moved[:, used], K) * scale
        weighted = (J * weight[:, None, None]).reshape(-1, 6)
        A = weighted.T @ J.reshape(-1, 6) + 1e-6 * np.eye(6)
        if cost < best.cost:
            variance = float((weight * (flow**2).sum(1)).sum() / (2.0 * weight.sum()))
            best = Motion(
                target_from_source=pose.copy(),
                cost=cost,
                coverage=float(used.mean()),
                covariance=variance * (known.size / _PATCHES) * np.linalg.inv(A),
            )
        step = np.linalg.solve(A, weighted.T @ flow.reshape(-1))
        pose = _small_motion(step) @ pose
        if np.linalg.norm(J @ step, axis=1).mean() < _CONVERGED_PX:
            break
    return best


def track(
    frames: np.ndarray,
    depth_m: np.ndarray,
    world_from_camera: np.ndarray,
    K: np.ndarray,
    still: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recovers the camera path of a clip that starts at a known pose in a scene of known shape.

    The scene's surface is collected from the commanded views' depth maps; at each recovered pose it is seen anew, so
    that a camera that left the commanded path is still followed.

    Args:
        frames: uint8 (T, H, W, 3); the first shows the scene from `world_from_camera[0]`.
        depth_m: (T, H, W) of the commanded views.
        world_from_camera: (T, 4, 4), commanded.
        K: (3, 3), pixels.
        still: (T, H, W) bool, surfaces that do not move; None for all.

    Returns:
        (T, 4, 4) world_from_camera; (T,) the share of pixels that each frame's fit used, 0 where it failed and the
        pose was kept; and (T, 6, 6) the covariance of each camera's error in its own frame (translation, rotation),
        which grows along the way.
    """
    cloud = _cloud(depth_m, world_from_camera, K, still)
    path, coverage, covariance = [world_from_camera[0].copy()], [1.0], [np.zeros((6, 6))]
    for t in range(1, len(frames)):
        surface = splat_depth(cloud, path[-1], K, frames.shape[1:3])
        commanded = relative_pose(world_from_camera[t - 1], world_from_camera[t])
        best = fit_motion(frames[t], frames[t - 1], surface, K, commanded)
        if not best.cost < _DOUBTED_COST:
            best = min(best, fit_motion(frames[t], frames[t - 1], surface, K, np.eye(4)), key=lambda fit: fit.cost)
        path.append(path[-1] @ invert(best.target_from_source) if best.coverage else path[-1].copy())
        coverage.append(best.coverage)
        carried = _adjoint(best.target_from_source)
        covariance.append(carried @ covariance[-1] @ carried.T + best.covariance)
    return np.stack(path), np.array(coverage), np.stack(covariance)


def _adjoint(pose: np.ndarray) -> np.ndarray:
    """(6, 6): a small motion before a rigid transform, as the small motion after it; translation, then rotation."""
    x, y, z = pose[:3, 3]
    carried = np.zeros((6, 6))
    carried[:3, :3] = carried[3:, 3:] = pose[:3, :3]
    carried[:3, 3:] = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]) @ pose[:3, :3]
    return carried


def splat_depth(cloud: np.ndarray, world_from_camera: np.ndarray, K: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Depth map (H, W) of a point cloud (3, N) by z-buffer; 0 where no point falls within a pixel's neighbourhood."""
    height, width = size
    camera = invert(world_from_camera)
    pixels, depth_m = project(camera[:3, :3] @ cloud + camera[:3, 3:], K)
    x, y = pixels.T
    seen = (depth_m > 0.05) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    index = y[seen].astype(int) * width + x[seen].astype(int)
    order = np.argsort(-depth_m[seen], kind="stable")
    buffer = np.full(height * width, _NOTHING_M)
    # Later writes win, and the nearest point comes last.
    buffer[index[order]] = depth_m[seen][order]
    buffer = buffer.reshape(height, width).astype(np.float32)
    # Gaps between points let single pixels of surfaces behind shine through; a median closes them and keeps edges.
    filled = cv2.medianBlur(buffer, 3)
    return np.where(filled < _NOTHING_M / 2, filled, 0.0)


def _cloud(depth_m: np.ndarray, world_from_camera: np.ndarray, K: np.ndarray, still: np.ndarray | None) -> np.ndarray:
    """World points (3, N) of all views, thinned to about a million."""
    stride = max(1, round(depth_m.size / 1_000_000))
    parts = []
    for i, (depth, pose) in enumerate(zip(depth_m, world_from_camera, strict=True)):
        valid = np.isfinite(depth) & (depth > 0)
        if still is not None:
            valid &= still[i]
        points = unproject(np.where(valid, depth, 1.0), K)[:, valid.ravel()]
        parts.append(pose[:3, :3] @ points + pose[:3, 3:])
        if stride > 1 and i:
            parts[-1] = parts[-1][:, ::stride]
    return np.concatenate(parts, axis=1)


def _jacobian(points: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Derivative (N, 2, 6) of the pixels of points (3, N) by a small motion (translation, rotation) of the points."""
    x, y, z = points
    zero = np.zeros_like(z)
    by_point = np.stack(
        [
            np.stack([K[0, 0] / z, zero, -K[0, 0] * x / z**2], -1),
            np.stack([zero, K[1, 1] / z, -K[1, 1] * y / z**2], -1),
        ],
        axis=1,
    )
    turned = np.stack([np.stack([zero, z, -y], -1), np.stack([-z, zero, x], -1), np.stack([y, -x, zero], -1)], axis=1)
    return np.concatenate([by_point, by_point @ turned], axis=2)


def _small_motion(step: np.ndarray) -> np.ndarray:
    """The rigid transform (4, 4) of a step (6,): translation, then rotation vector."""
    motion = np.eye(4)
    motion[:3, :3] = cv2.Rodrigues(step[3:])[0]
    motion[:3, 3] = step[:3]
    return motion


def _local_map(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Derivative (H * W, 2, 2) of the landing pixels by the source's, by differences; identity where undefined."""
    grid = pixels.reshape(height, width, 2)
    local = np.stack([np.gradient(grid, axis=1), np.gradient(grid, axis=0)], axis=-1).reshape(-1, 2, 2)
    # Across depth edges the difference is no derivative.
    sound = np.isfinite(local).all(axis=(1, 2)) & (np.abs(local - np.eye(2)).max(axis=(1, 2)) < 0.5)
    local[~sound] = np.eye(2)
    return local
