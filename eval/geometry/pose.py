"""Cameras as matrices: validation, relative poses, projection.

Conventions: OpenCV cameras (x right, y down, z forward), `world_from_camera` 4x4 in metres, intrinsics `K` 3x3 in
pixels, pixel centres at +0.5.
"""

import numpy as np

from eval.errors import MeasureError

# Deviation of R^T R from the identity that rounding (float32 files, text files) can explain.
_RIGID_TOLERANCE = 1e-3


def check_poses(world_from_camera: np.ndarray, *, num_frames: int | None = None) -> np.ndarray:
    """Returns poses as float64 after checking that each is a rigid transform.

    Args:
        world_from_camera: (T, 4, 4), camera-to-world.
        num_frames: The T that is required, if any.

    Raises:
        MeasureError: On another shape, values that are not finite, a bottom row other than (0, 0, 0, 1), or a 3x3 part
            that is no rotation (singular, scaled, mirrored).
    """
    poses = np.asarray(world_from_camera, dtype=np.float64)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or (num_frames is not None and len(poses) != num_frames):
        wanted = "T" if num_frames is None else num_frames
        raise MeasureError(
            expected=f"poses of shape ({wanted}, 4, 4)", got=str(poses.shape), remedy="Pass one 4x4 matrix a frame."
        )
    if not np.isfinite(poses).all():
        bad = int(np.flatnonzero(~np.isfinite(poses).all(axis=(1, 2)))[0])
        raise MeasureError(expected="finite poses", got=f"NaN or infinity in pose {bad}", remedy="Drop that frame.")
    if np.abs(poses[:, 3] - [0.0, 0.0, 0.0, 1.0]).max(initial=0.0) > _RIGID_TOLERANCE:
        raise MeasureError(
            expected="poses with bottom row (0, 0, 0, 1)",
            got="another bottom row",
            remedy="Transpose row-vector matrices before passing them.",
        )
    R = poses[:, :3, :3]
    error = np.abs(R.transpose(0, 2, 1) @ R - np.eye(3)).max(axis=(1, 2), initial=0.0)
    if (error > _RIGID_TOLERANCE).any():
        bad = int(error.argmax())
        raise MeasureError(
            expected="poses whose 3x3 part is a rotation",
            got=f"pose {bad} with |R^T R - I| = {error[bad]:.3g}",
            remedy="Remove scale from the rotation; singular matrices have no inverse.",
        )
    if (np.linalg.det(R) < 0).any():
        raise MeasureError(
            expected="right-handed rotations (determinant +1)",
            got="a mirrored axis (determinant -1)",
            remedy="Flip two axes, not one, when converting conventions.",
        )
    return poses


def check_intrinsics(K: np.ndarray) -> np.ndarray:
    """Returns a 3x3 intrinsics matrix as float64 after checking it.

    Args:
        K: (3, 3) in pixels, or (T, 3, 3) where all entries are equal.

    Raises:
        MeasureError: On another shape, values that are not finite, focal lengths that are not positive, a last row
            other than (0, 0, 1), or a focal length that changes over time.
    """
    K = np.asarray(K, dtype=np.float64)
    if K.ndim == 3 and len(K) and K.shape[1:] == (3, 3):
        if not np.array_equal(K, np.broadcast_to(K[0], K.shape)):
            raise MeasureError(expected="one K for the clip", got="a zooming camera", remedy="Score constant windows.")
        K = K[0]
    if K.shape != (3, 3) or not np.isfinite(K).all():
        raise MeasureError(expected="a finite 3x3 K", got=f"{K.shape}", remedy="Pass intrinsics in pixels.")
    if K[0, 0] <= 0 or K[1, 1] <= 0 or not np.allclose(K[2], [0.0, 0.0, 1.0]):
        raise MeasureError(
            expected="K with positive focal lengths and last row (0, 0, 1)",
            got=np.array2string(K, precision=4).replace("\n", ""),
            remedy="OpenGL intrinsics carry a minus sign: convert K and poses to OpenCV.",
        )
    return K


def invert(pose: np.ndarray) -> np.ndarray:
    """Inverse of rigid transforms (..., 4, 4), exact to rounding."""
    R = np.swapaxes(pose[..., :3, :3], -1, -2)
    inverse = np.zeros_like(pose)
    inverse[..., :3, :3] = R
    inverse[..., :3, 3] = -np.einsum("...ij,...j->...i", R, pose[..., :3, 3])
    inverse[..., 3, 3] = 1.0
    return inverse


def relative_pose(world_from_a: np.ndarray, world_from_b: np.ndarray) -> np.ndarray:
    """`b_from_a` (..., 4, 4): takes points in camera a to camera b."""
    return invert(world_from_b) @ world_from_a


def rotation_angle(R: np.ndarray) -> np.ndarray:
    """Angle of rotations (..., 3, 3) in radians, [0, pi].

    By atan2 of the skew part and the trace, which is exact near 0 where the arc cosine loses half the digits.
    """
    skew = np.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], axis=-1)
    return np.arctan2(np.linalg.norm(skew, axis=-1), np.trace(R, axis1=-2, axis2=-1) - 1.0)


def pixel_grid(height: int, width: int) -> np.ndarray:
    """Homogeneous pixel centres, float64 (3, H * W), row by row."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x.ravel() + 0.5, y.ravel() + 0.5, np.ones(height * width)])


def unproject(depth_m: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Points (3, H * W) in the camera frame, in metres, of a depth map (H, W) along the optical axis."""
    height, width = depth_m.shape
    return (np.linalg.inv(K) @ pixel_grid(height, width)) * depth_m.ravel()


def project(points: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Projects camera-frame points (3, N).

    Returns:
        Pixels (N, 2) with centres at +0.5, NaN for points at or behind the camera; and depths (N,) in metres.
    """
    depth_m = points[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = ((K @ points)[:2] / depth_m).T
    pixels[~(depth_m > 0)] = np.nan
    return pixels, depth_m


def median_parallax_px(b_from_a: np.ndarray, K: np.ndarray, depth_m: np.ndarray) -> float:
    """Median image motion (pixels) that the translation alone causes at depths `depth_m` (H, W) of camera a.

    Zero for a camera that only turns, whatever the angle: rotation carries no depth information.
    """
    points = unproject(depth_m, K)[:, :: max(1, depth_m.size // 4096)]
    turned = b_from_a[:3, :3] @ points
    before, _ = project(turned, K)
    after, _ = project(turned + b_from_a[:3, 3:], K)
    shift = np.linalg.norm(after - before, axis=1)
    return float(np.nanmedian(shift)) if np.isfinite(shift).any() else 0.0
