"""The surface that known depth maps show, seen anew from any camera: a cloud of points, drawn by z-buffer."""

import cv2
import numpy as np

from eval.geometry.pose import invert, project, unproject

# Points of all views together; more gain nothing at the size of tracking.
_CLOUD_POINTS = 1_000_000
# Points this much further away than the nearest one of a pixel lie on another surface.
_SURFACE_SHARE = 0.1
_NEAREST_M = 0.05
# Depth of a pixel that no point falls into.
_NOTHING_M = 1e9


def points_of(depth_m: np.ndarray, world_from_camera: np.ndarray, K: np.ndarray, where: np.ndarray) -> np.ndarray:
    """World points (3, N) of the pixels `where` (H, W) of a depth map (H, W) that are known."""
    valid = np.isfinite(depth_m) & (depth_m > 0) & where
    points = unproject(np.where(valid, depth_m, 1.0), K)[:, valid.ravel()]
    return world_from_camera[:3, :3] @ points + world_from_camera[:3, 3:]


def cloud_of(depth_m: np.ndarray, world_from_camera: np.ndarray, K: np.ndarray, still: np.ndarray | None) -> np.ndarray:
    """World points (3, N) of all views (T, H, W) where `still`, thinned to about a million."""
    stride = max(1, round(depth_m.size / _CLOUD_POINTS))
    parts = []
    for i, (depth, pose) in enumerate(zip(depth_m, world_from_camera, strict=True)):
        points = points_of(depth, pose, K, np.ones(depth.shape, bool) if still is None else still[i])
        parts.append(points[:, ::stride] if i else points)
    return np.concatenate(parts, axis=1)


def splat_depth(cloud: np.ndarray, world_from_camera: np.ndarray, K: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Depth map (H, W) of a point cloud (3, N) by z-buffer; 0 where no point falls within a pixel's neighbourhood.

    The points of a pixel's front surface are averaged in inverse depth, which is linear across a plane: the nearest
    point alone would bring every slanted surface nearer by half a pixel's slope.
    """
    height, width = size
    index, depth_m = _drawn(cloud, world_from_camera, K, size)
    nearest = np.full(height * width, _NOTHING_M)
    np.minimum.at(nearest, index, depth_m)
    front = depth_m <= (1.0 + _SURFACE_SHARE) * nearest[index]
    count = np.bincount(index[front], minlength=height * width)
    inverse = np.bincount(index[front], weights=1.0 / depth_m[front], minlength=height * width)
    mean = np.divide(count, inverse, out=np.full(height * width, _NOTHING_M), where=count > 0)
    # Gaps between points let single pixels of surfaces behind shine through; a median closes them and keeps edges.
    filled = cv2.medianBlur(mean.reshape(height, width).astype(np.float32), 3)
    return np.where(filled < _NOTHING_M / 2, filled, 0.0)


def covered_by(
    points: np.ndarray, world_from_camera: np.ndarray, K: np.ndarray, size: tuple[int, ...], surface: np.ndarray
) -> np.ndarray:
    """Pixels (H, W) that points (3, N) cover, and one around them; points behind the surface (H, W) cover nothing."""
    height, width = size
    covered = np.zeros(height * width, np.uint8)
    if points.shape[1]:
        index, depth_m = _drawn(points, world_from_camera, K, size)
        behind = (surface.ravel()[index] > 0) & (depth_m > (1.0 + _SURFACE_SHARE) * surface.ravel()[index])
        covered[index[~behind]] = 1
    return cv2.dilate(covered.reshape(height, width), np.ones((3, 3), np.uint8)) > 0


def _drawn(
    points: np.ndarray, world_from_camera: np.ndarray, K: np.ndarray, size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Flat pixel index and depth of the points (3, N) that fall into a camera's picture of a size."""
    height, width = size
    camera = invert(world_from_camera)
    pixels, depth_m = project(camera[:3, :3] @ points + camera[:3, 3:], K)
    x, y = pixels.T
    seen = (depth_m > _NEAREST_M) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return y[seen].astype(int) * width + x[seen].astype(int), depth_m[seen]
