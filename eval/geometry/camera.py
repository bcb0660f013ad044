"""How far an estimated camera path is from the commanded one: RotErr, TransErr, CamMC.

Sums over frames of first-frame-relative poses, as in CameraCtrl (arXiv 2404.02101) and CamI2V (arXiv 2410.15957). A
monocular estimate has no scale, so both paths are brought to one first.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from eval.errors import MeasureError
from eval.geometry.pose import check_poses, invert, rotation_angle

Scale = Literal["own", "truth", "fit", "metric"]
# The published code adds this to a path's extent before dividing by it.
_EXTENT_EPSILON = 1e-9


@dataclass(frozen=True, kw_only=True)
class PathError:
    """Distances between two camera paths, relative to their first frames.

    Attributes:
        rot_err_rad: Sum over frames of the angle between the rotations.
        trans_err: Sum of the distances between the positions, in units of the extent for scales `own` and `truth`, else
            of the true path's unit.
        cam_mc: Sum of the Frobenius distances between the 3x4 pose matrices.
        rot_rad: (T,) per frame.
        trans: (T,) per frame.
        mc: (T,) per frame.
        scale: What the estimate's translations were multiplied by to get the true path's unit; NaN if undefined.
    """

    rot_err_rad: float
    trans_err: float
    cam_mc: float
    rot_rad: np.ndarray
    trans: np.ndarray
    mc: np.ndarray
    scale: float


def path_error(truth: np.ndarray, estimate: np.ndarray, *, scale: Scale = "own") -> PathError:
    """RotErr, TransErr and CamMC between two camera paths.

    Args:
        truth: (T, 4, 4) world_from_camera, the commanded path.
        estimate: (T, 4, 4) world_from_camera, in any world frame.
        scale: How translations are made comparable. `own`: each path divided by its own largest distance from its first
            frame (CamI2V's relative figures). `truth`: both divided by the true path's extent (absolute figures).
            `fit`: the estimate times its least-squares scale. `metric`: as they are.

    Raises:
        MeasureError: If the paths differ in length, have fewer than two poses, are not rigid, or `scale` is unknown,
            or "truth" or "fit" and a path that it divides by stands still.
    """
    if scale not in get_args(Scale):
        raise MeasureError(
            expected=f"a scale of {', '.join(get_args(Scale))}", got=repr(scale), remedy="See the docstring."
        )
    truth = check_poses(truth)
    if len(truth) < 2:
        raise MeasureError(expected="at least two poses", got=len(truth), remedy="Pass a path.")
    truth = _from_first(truth)
    estimate = _from_first(check_poses(estimate, num_frames=len(truth)))
    R, t, R_hat, t_hat = truth[:, :3, :3], truth[:, :3, 3], estimate[:, :3, :3], estimate[:, :3, 3]
    extent, extent_hat = path_extent(truth), path_extent(estimate)
    fitted = fit_scale(t, t_hat)
    if scale == "own":
        t, t_hat = t / (extent + _EXTENT_EPSILON), t_hat / (extent_hat + _EXTENT_EPSILON)
    elif scale == "truth":
        _require_motion(extent, "true")
        t, t_hat = t / (extent + _EXTENT_EPSILON), t_hat / (extent + _EXTENT_EPSILON)
    elif scale == "fit":
        _require_motion(extent_hat, "estimated")
        t_hat = t_hat * fitted
    rot = rotation_angle(np.swapaxes(R, 1, 2) @ R_hat)
    trans = np.linalg.norm(t_hat - t, axis=1)
    mc = np.sqrt(((R_hat - R) ** 2).sum(axis=(1, 2)) + trans**2)
    return PathError(
        rot_err_rad=float(rot.sum()),
        trans_err=float(trans.sum()),
        cam_mc=float(mc.sum()),
        rot_rad=rot,
        trans=trans,
        mc=mc,
        scale=fitted,
    )


def path_extent(world_from_camera: np.ndarray) -> float:
    """Largest distance of a camera of the path (T, 4, 4) from the first one, in the poses' unit."""
    position = np.asarray(world_from_camera)[:, :3, 3]
    return float(np.linalg.norm(position - position[0], axis=1).max())


def fit_scale(positions: np.ndarray, estimate: np.ndarray) -> float:
    """The s that minimises sum |positions - s * estimate|^2 over (T, 3) arrays; NaN if `estimate` is all zero."""
    square = float((estimate**2).sum())
    return float((positions * estimate).sum()) / square if square > 0 else float("nan")


def _from_first(poses: np.ndarray) -> np.ndarray:
    return invert(poses[0]) @ poses


def _require_motion(extent: float, which: str) -> None:
    if not extent > _EXTENT_EPSILON:
        raise MeasureError(
            expected=f"a {which} camera path that moves",
            got=f"an extent of {extent:.3g}",
            remedy="The scale of a standing camera is undefined: use scale='own' or 'metric'.",
        )
