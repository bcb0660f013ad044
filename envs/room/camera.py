"""Pinhole cameras in the OpenCV convention: x right, y down, z forward; pixel centres at +0.5."""

from collections.abc import Sized

import numpy as np

from envs.errors import SceneError


def intrinsics(size: tuple[int, int], fov_deg: float) -> np.ndarray:
    """(3, 3) intrinsics in pixels of a camera with square pixels and its principal point in the middle.

    Args:
        size: Height and width in pixels.
        fov_deg: Field of view along the shorter side, in degrees.

    Raises:
        SceneError: If the size is not two positive integers or the field of view not in (0, 180).
    """
    if (
        not isinstance(size, Sized)
        or len(size) != 2
        or not all(isinstance(n, int | np.integer) and n > 0 for n in size)
    ):
        raise SceneError(
            expected="size as two positive integers (height, width)", got=size, remedy="Pass size=(64, 64)."
        )
    height, width = size
    if not 0.0 < fov_deg < 180.0:
        raise SceneError(expected="a field of view in (0, 180) degrees", got=fov_deg, remedy="Pass for example 70.")
    focal_px = 0.5 * min(height, width) / np.tan(0.5 * np.radians(fov_deg))
    return np.array([[focal_px, 0.0, 0.5 * width], [0.0, focal_px, 0.5 * height], [0.0, 0.0, 1.0]])


def world_from_camera(position_m: np.ndarray, yaw_rad: float, pitch_rad: float) -> np.ndarray:
    """(4, 4) pose of a level camera.

    Args:
        position_m: (3,) optical centre.
        yaw_rad: Heading, counter-clockwise seen from above; 0 looks along +x.
        pitch_rad: Elevation of the optical axis; positive looks up.
    """
    cos_yaw, sin_yaw, cos_pitch, sin_pitch = np.cos(yaw_rad), np.sin(yaw_rad), np.cos(pitch_rad), np.sin(pitch_rad)
    pose = np.eye(4)
    pose[:3, 0] = (sin_yaw, -cos_yaw, 0.0)
    pose[:3, 1] = (sin_pitch * cos_yaw, sin_pitch * sin_yaw, -cos_pitch)
    pose[:3, 2] = (cos_pitch * cos_yaw, cos_pitch * sin_yaw, sin_pitch)
    pose[:3, 3] = position_m
    return pose


def yaw_pitch_towards(origin_m: np.ndarray, target_m: np.ndarray) -> tuple[float, float]:
    """Heading and elevation, in radians, that centre a target point in the view."""
    dx, dy, dz = np.asarray(target_m, float) - np.asarray(origin_m, float)
    return float(np.arctan2(dy, dx)), float(np.arctan2(dz, np.hypot(dx, dy)))


def pixel_rays(K: np.ndarray, size: tuple[int, int], offset_px: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """(H, W, 3) ray directions through the pixel centres, camera frame, scaled to z = 1.

    With this scale the ray parameter of a hit *is* its depth along the optical axis.
    """
    height, width = size
    cols = (np.arange(width) + 0.5 + offset_px[0] - K[0, 2]) / K[0, 0]
    rows = (np.arange(height) + 0.5 + offset_px[1] - K[1, 2]) / K[1, 1]
    rays = np.ones((height, width, 3))
    rays[..., 0], rays[..., 1] = cols[None, :], rows[:, None]
    return rays
