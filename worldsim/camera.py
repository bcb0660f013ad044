"""Motion of the camera from frame to frame: what a model is conditioned on, and how it follows from poses.

A motion is six numbers: a rotation vector (axis times angle, rad), then a translation (m), of the later camera as the
earlier one sees it. With poses W (`world_from_camera`, OpenCV axes: x right, y down, z forward), frame i moves to frame
i+1 by M = W_i^-1 W_{i+1}, so W_{i+1} = W_i M: turning to the right is a rotation about +y, walking ahead a translation
along +z.
"""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from worldsim.errors import CameraError

MOTION_DIM = 6
_RIGID = 1e-3  # how far from orthonormal a rotation may be: poses are often stored in float32 or as rounded text


def camera_motion(world_from_camera: np.ndarray) -> np.ndarray:
    """Motions between the frames of a video.

    Args:
        world_from_camera: (T+1, 4, 4) poses.

    Returns:
        float64 (T, 6); row i carries frame i to frame i+1.

    Raises:
        CameraError: If these are no rigid, finite poses.
    """
    poses = _checked_poses(world_from_camera)
    turn, place = poses[:, :3, :3], poses[:, :3, 3]
    earlier = np.swapaxes(turn[:-1], 1, 2)
    ahead = np.einsum("tij,tj->ti", earlier, place[1:] - place[:-1])
    if len(ahead) == 0:
        return np.zeros((0, MOTION_DIM))
    return np.concatenate([Rotation.from_matrix(earlier @ turn[1:]).as_rotvec(), ahead], axis=1)


def camera_poses(motion: np.ndarray, first: np.ndarray | None = None) -> np.ndarray:
    """The inverse of `camera_motion`: poses along a run of motions.

    Args:
        motion: (T, 6).
        first: (4, 4) world_from_camera of the first frame; the identity by default.

    Returns:
        float64 (T+1, 4, 4).

    Raises:
        CameraError: If a shape is wrong or a number is not finite.
    """
    steps = checked_motion(motion, (len(motion),))
    poses = np.tile(np.eye(4), (len(steps) + 1, 1, 1))
    poses[0] = np.eye(4) if first is None else _checked_poses(np.asarray(first)[None])[0]
    step = np.eye(4)
    for i, row in enumerate(steps):
        step[:3, :3], step[:3, 3] = Rotation.from_rotvec(row[:3]).as_matrix(), row[3:]
        poses[i + 1] = poses[i] @ step
    return poses


def checked_motion(motion: object, leading: tuple[int, ...]) -> np.ndarray:
    """Motions as float64 (*leading, 6).

    Raises:
        CameraError: If they have another shape, are no numbers, or are not finite.
    """
    wanted = (*leading, MOTION_DIM)
    try:
        array = np.asarray(motion)
        numbers = array.dtype.kind in "fiu"
    except (ValueError, TypeError) as error:  # rows of different lengths, tensors of another device
        raise _wrong(f"an array {wanted}", error) from error
    if not numbers or array.shape != wanted:
        raise _wrong(f"numbers of shape {wanted}", f"{array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise _wrong("finite numbers", "NaN or infinity")
    return array.astype(np.float64)


def read_camera(path: str | Path) -> np.ndarray:
    """Motions from a `.npy` file: motions (T, 6), or poses `world_from_camera` (T+1, 4, 4). float64 (T, 6).

    Raises:
        CameraError: If the file is missing, damaged, or holds something else.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CameraError(
            expected="motions of the camera in a .npy", got=f"{path}: {error}", remedy="Check the file."
        ) from error
    if not isinstance(array, np.ndarray) or array.ndim not in {2, 3}:
        raise _wrong("motions (T, 6) or poses (T+1, 4, 4)", getattr(array, "shape", type(array).__name__))
    return camera_motion(array) if array.ndim == 3 else checked_motion(array, (len(array),))


def motion_range(motion: np.ndarray) -> tuple[float, ...]:
    """The largest absolute value of each of the six numbers, rounding errors around 0 taken as 0."""
    largest = np.abs(np.asarray(motion, np.float64).reshape(-1, MOTION_DIM)).max(axis=0, initial=0.0)
    return tuple(np.where(largest < 1e-6, 0.0, largest).tolist())


def scaled_motion(motion: np.ndarray, ranges: tuple[float, ...]) -> np.ndarray:
    """Motions as a network takes them: rotation and translation each in units of the largest one in training.

    One unit for the three axes of each keeps directions what they are.
    """
    units = [max(part) or 1.0 for part in (ranges[:3], ranges[3:])]
    return (motion / np.repeat(units, 3)).astype(np.float32)


def _checked_poses(poses: np.ndarray) -> np.ndarray:
    array = np.asarray(poses)
    if array.dtype.kind not in "fiu" or array.ndim != 3 or array.shape[1:] != (4, 4) or not len(array):
        raise _wrong("poses world_from_camera (T+1, 4, 4)", f"{array.dtype} {array.shape}")
    array = array.astype(np.float64)
    turn = array[:, :3, :3]
    rigid = np.allclose(turn @ np.swapaxes(turn, 1, 2), np.eye(3), atol=_RIGID) and bool(
        (np.linalg.det(turn) > 0).all()
    )
    if not rigid or not np.isfinite(array).all() or not np.allclose(array[:, 3], [0.0, 0.0, 0.0, 1.0], atol=_RIGID):
        raise _wrong("rigid poses: rotations with determinant 1 and a last row of 0, 0, 0, 1", "other matrices")
    return array


def _wrong(expected: str, got: object) -> CameraError:
    return CameraError(
        expected=f"camera motion as {expected}",
        got=got,
        remedy="Each motion is a rotation vector in rad and a translation in m; see worldsim.camera.",
    )
