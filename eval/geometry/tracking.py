"""Camera tracking at any size: six degrees of freedom fitted directly to the image motion, the depth being known.

Sparse features fail at 64 pixels. Here a frame is aligned to an earlier one, its keyframe, by all pixels at once: the
keyframe is warped by the current guess of the motion, dense flow says what is left, and a robust least-squares step
turns that into a correction. A keyframe is kept while enough of it is seen: errors add up over keyframes, not frames.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from eval.geometry.depth import FLOW_SIDE, dense_flow, sample
from eval.geometry.guards import textured
from eval.geometry.pose import invert, project, relative_pose, unproject
from eval.geometry.surface import cloud_of, covered_by, points_of, splat_depth

# Residual flow is rarely smaller than this on true frames, pixels at a shorter side of 256.
_FLOW_PX = 0.1
# Robust weights fall to a quarter at so many typical residuals: a mover or a shadow is no part of the camera's motion.
_ROBUST_WIDTH = 2.0
# Scale of the cost by which fits are compared, same unit as `_FLOW_PX`; mean image motion of the last step.
_COST_PX, _CONVERGED_PX = 0.7, 0.02
_MIN_PIXELS = 64
_NEAREST_M = 0.05
# Mean robust cost above which a fit is doubted, and another start or keyframe is tried.
_DOUBTED_COST = 0.25
# A keyframe is worn out when less than this share of what its first fit used is still seen.
_WORN_SHARE = 0.6
# Flow is measured on patches of an eighth of the side; its errors are independent from one patch to the next, no finer.
_PATCHES_A_SIDE = 8


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


@dataclass(frozen=True)
class _Landing:
    """Where the source's pixels land in the target: `used` (N,), `points` (3, N), `pixels` (N, 2)."""

    used: np.ndarray
    points: np.ndarray
    pixels: np.ndarray


def fit_motion(
    target: np.ndarray,
    source: np.ndarray,
    source_depth_m: np.ndarray,
    K: np.ndarray,
    start: np.ndarray,
    *,
    hidden: np.ndarray | None = None,
    rounds: int = 6,
) -> Motion:
    """Fits the camera motion from a frame with known depth to another frame.

    Weights are Geman and McClure's, at a width that follows the median of what is left: the fit starts with everything
    and ends on the dominant motion. The covariance adds three parts: the scatter of the flow that is left, what the
    difference of the aligned pictures (noise, codec, interpolation) leaves uncertain in any fit, and the square of what
    a fit to grey levels would change: flow is smooth, and biased where the motion is not.

    Args:
        target: uint8 (H, W, 3).
        source: uint8 (H, W, 3).
        source_depth_m: (H, W) along the optical axis; not positive or not finite where unknown.
        K: (3, 3), pixels.
        start: (4, 4) `target_from_source` to start from.
        hidden: (H, W) bool, pixels of the target that do not show the source's surface; None for none.
        rounds: Number of Gauss-Newton steps.
    """
    height, width = source.shape[:2]
    scale = FLOW_SIDE / min(height, width)
    known = (np.isfinite(source_depth_m) & (source_depth_m > 0)).ravel()
    points = unproject(np.where(known.reshape(height, width), source_depth_m, 1.0), K)
    known &= textured(source).ravel()
    pose, best = start.copy(), Motion(target_from_source=start, cost=np.inf, coverage=0.0, covariance=np.zeros((6, 6)))
    for _ in range(rounds + 1):
        landing = _land(points, known, pose, K, hidden, (height, width))
        used = landing.used
        if used.sum() < _MIN_PIXELS:
            break
        inside = used.reshape(height, width)
        # The target seen from the source's pixels: what remains is flow in the target, at matching pixels.
        seen = sample(target, landing.pixels.reshape(height, width, 2))
        flow = dense_flow(source, np.where(inside[..., None], seen, source)).reshape(-1, 2)[used]
        # `flow` is measured on the source's grid; to first order the local map to the target's turns and scales it.
        flow = np.einsum("nij,nj->ni", _local_map(landing.pixels, height, width)[used], flow)
        square = (flow**2).sum(1)
        weight = _robust_weights(square, max(_FLOW_PX, float(np.sqrt(np.median(square)))))
        cost = float(np.log1p(square / _COST_PX**2).mean())
        J = _jacobian(landing.points[:, used], K) * scale
        weighted = (J * weight[:, None, None]).reshape(-1, 6)
        A = weighted.T @ J.reshape(-1, 6) + 1e-6 * np.eye(6)
        if cost < best.cost:
            variance = float((weight * square).sum() / (2.0 * weight.sum()))
            best = Motion(
                target_from_source=pose.copy(),
                cost=cost,
                coverage=float(used.mean()),
                covariance=variance * (known.size / _PATCHES_A_SIDE**2) * np.linalg.inv(A),
            )
        step = np.linalg.solve(A, weighted.T @ flow.reshape(-1))
        pose = _small_motion(step) @ pose
        if np.linalg.norm(J @ step, axis=1).mean() < _CONVERGED_PX:
            break
    if not best.coverage:
        return best
    landing = _land(points, known, best.target_from_source, K, hidden, (height, width))
    return replace(best, covariance=best.covariance + _photometric_covariance(target, source, landing, K))


def _land(
    points: np.ndarray,
    known: np.ndarray,
    target_from_source: np.ndarray,
    K: np.ndarray,
    hidden: np.ndarray | None,
    size: tuple[int, int],
) -> _Landing:
    height, width = size
    moved = target_from_source[:3, :3] @ points + target_from_source[:3, 3:]
    pixels, depth_m = project(moved, K)
    x, y = pixels.T
    used = known & (depth_m > _NEAREST_M) & (x >= 0.5) & (x <= width - 0.5) & (y >= 0.5) & (y <= height - 0.5)
    if hidden is not None:
        used &= sample(hidden.astype(np.float32), pixels.reshape(height, width, 2)).ravel() == 0.0
    return _Landing(used, moved, pixels)


def _robust_weights(square: np.ndarray, sigma: float) -> np.ndarray:
    return 1.0 / (1.0 + square / (_ROBUST_WIDTH * sigma) ** 2) ** 2


def _photometric_covariance(target: np.ndarray, source: np.ndarray, landing: _Landing, K: np.ndarray) -> np.ndarray:
    """(6, 6): the error of the motion that follows from what the aligned pictures differ by, gain and offset apart.

    The sandwich estimate of robust least squares on grey levels, with scores summed over patches, in which errors
    depend on each other (Huber 1967; Liang and Zeger 1986). To this scatter it adds, as a square, the step that grey
    levels would still take from where flow settled: what two estimates of one motion differ by, either may be off by.
    """
    height, width = source.shape[:2]
    used, grid = landing.used, landing.pixels.reshape(height, width, 2)
    grey_s, grey_t = (_smooth_grey(frame) for frame in (source, target))
    before, after = grey_s.ravel()[used].astype(float), sample(grey_t, grid).ravel()[used]
    # Of the target's grey, so that it is the derivative by where the points land.
    gradient = np.stack([cv2.Sobel(grey_t, cv2.CV_32F, *d, scale=1 / 8) for d in ((1, 0), (0, 1))], axis=-1)
    gradient = sample(gradient, grid).reshape(-1, 2)[used]
    motion = np.einsum("ni,nij->nj", gradient, _jacobian(landing.points[:, used], K))
    J = np.column_stack([motion, -before, -np.ones(len(before))])
    # Gain and offset of the picture, from which most of the pixels differ by little.
    gain, offset = np.linalg.lstsq(np.column_stack([before, np.ones(len(before))]), after, rcond=None)[0]
    error = after - gain * before - offset
    weight = _robust_weights(error**2, max(1.0, 1.4826 * float(np.median(np.abs(error)))))
    A = (J * weight[:, None]).T @ J + 1e-6 * np.eye(8)
    scores = J * (weight * error)[:, None]
    y, x = np.divmod(np.flatnonzero(used), width)
    patch = (y * _PATCHES_A_SIDE // height) * _PATCHES_A_SIDE + x * _PATCHES_A_SIDE // width
    sums = np.zeros((_PATCHES_A_SIDE**2, 8))
    np.add.at(sums, patch, scores)
    patches = len(np.unique(patch))
    inverse = np.linalg.inv(A)
    scatter = inverse @ (sums.T @ sums * patches / max(1, patches - 8)) @ inverse
    step = inverse @ scores.sum(axis=0)
    return (scatter + np.outer(step, step))[:6, :6]


def _smooth_grey(frame: np.ndarray) -> np.ndarray:
    """Grey levels (H, W) float32 without the finest detail, of which samples between pixels would be wrong."""
    return cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 0.8)


class _Tracker:
    """The state of `track`: the path so far, and the keyframe to which frames are aligned."""

    def __init__(
        self,
        frames: np.ndarray,
        depth_m: np.ndarray,
        world_from_camera: np.ndarray,
        K: np.ndarray,
        still: np.ndarray | None,
    ) -> None:
        self.frames, self.commanded, self.K, self.size = frames, world_from_camera, K, frames.shape[1:3]
        self.cloud = cloud_of(depth_m, world_from_camera, K, still)
        moving = np.zeros(depth_m.shape, bool) if still is None else ~still
        self.movers = [points_of(d, p, K, m) for d, p, m in zip(depth_m, world_from_camera, moving, strict=True)]
        self.path, self.coverage, self.covariance = [world_from_camera[0].copy()], [1.0], [np.zeros((6, 6))]
        self.use_key(0)

    def use_key(self, index: int) -> None:
        """From now on frames are aligned to this one; its movers' pixels have no depth."""
        surface = splat_depth(self.cloud, self.path[index], self.K, self.size)
        behind = covered_by(self.movers[index], self.path[index], self.K, self.size, surface)
        self.key, self.surface = index, np.where(behind, 0.0, surface)

    def fit(self, t: int) -> Motion:
        """Aligns frame t to the keyframe from the commanded step, from standing still, or from the commanded pose."""
        step = relative_pose(self.commanded[t - 1], self.commanded[t])
        best = None
        for guess in (self.path[-1] @ invert(step), self.path[-1], self.commanded[t]):
            hidden = None
            if self.movers[t].shape[1]:
                hidden = covered_by(self.movers[t], guess, self.K, self.size, np.zeros(self.size))
            start = invert(guess) @ self.path[self.key]
            found = fit_motion(self.frames[t], self.frames[self.key], self.surface, self.K, start, hidden=hidden)
            best = found if best is None or found.cost < best.cost else best
            if best.cost < _DOUBTED_COST:
                break
        assert best is not None
        return best

    def advance(self, t: int) -> None:
        """Finds the camera of frame t, with a new keyframe where the old one is worn out or explains it badly."""
        best = self.fit(t)
        worn = best.coverage < _WORN_SHARE * (self.coverage[self.key + 1] if self.key < t - 1 else 0.0)
        if self.key < t - 1 and (worn or not best.cost < _DOUBTED_COST):
            old = self.key
            self.use_key(t - 1)
            again = self.fit(t)
            if worn or again.cost < best.cost:
                best = again
            else:
                self.use_key(old)
        self.path.append(self.path[self.key] @ invert(best.target_from_source) if best.coverage else self.path[-1])
        self.coverage.append(best.coverage)
        carried = _adjoint(best.target_from_source)
        self.covariance.append(carried @ self.covariance[self.key] @ carried.T + best.covariance)


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
        which grows from one keyframe to the next.
    """
    tracker = _Tracker(frames, depth_m, world_from_camera, K, still)
    for t in range(1, len(frames)):
        tracker.advance(t)
    return np.stack(tracker.path), np.array(tracker.coverage), np.stack(tracker.covariance)


def _adjoint(pose: np.ndarray) -> np.ndarray:
    """(6, 6): a small motion before a rigid transform, as the small motion after it; translation, then rotation."""
    x, y, z = pose[:3, 3]
    carried = np.zeros((6, 6))
    carried[:3, :3] = carried[3:, 3:] = pose[:3, :3]
    carried[:3, 3:] = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]) @ pose[:3, :3]
    return carried


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
