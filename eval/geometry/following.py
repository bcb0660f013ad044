"""Evaluator of camera following: does the recovered camera go where it was told to?"""

import cv2
import numpy as np

from eval.clip import Clip
from eval.geometry import guards
from eval.geometry.camera import PathError, path_error, path_extent
from eval.geometry.known_pose import movers
from eval.geometry.pose import check_intrinsics, check_poses, rotation_angle
from eval.geometry.sfm import is_available, reconstruct
from eval.geometry.sharpness import require_sharp
from eval.geometry.tracking import track
from eval.geometry.unknown import working_frames
from eval.score import Measurement, Unmeasurable, evaluator

# Structure from motion builds no dependable model below this.
SFM_SIDE = 192
# Tracking by depth gains little from more pixels than this and slows with them.
TRACKING_SIDE = 64
_STILL_M, _STILL_RAD = 1e-3, 1e-3
# Standard errors of the recovered camera that are no evidence against the commanded one.
_ERROR_BARS = 3.0
# Error bars wider than this share of the commanded motion tell nothing about a frame; so many frames must be told of.
_TELLING_SHARE, _LEAST_TOLD = 0.5, 0.5


@evaluator(
    "camera_following",
    suite="geometry",
    unit="1",
    better="lower",
    needs=("world_from_camera", "K"),
    claims=("ignored_actions", "scale_drift", "camera_wobble"),
    version=4,
)
def camera_following(clip: Clip, *, max_frames: int = 24) -> Measurement:
    """Distance per frame (CamMC) between the commanded camera path and the one recovered from the frames.

    With depth known the path is tracked directly at any size; without it, by structure from motion at 192 px and more,
    and scale is aligned. Translations are in units of the commanded extent. The direct fit leaves out what is known to
    move, settles on the dominant motion, and comes with error bars: only what lies beyond three standard errors counts,
    and noise, compression and unmasked movers widen them. Blurred frames, whose error bars would excuse too much, are
    refused. Frames where three standard errors are more than half of the commanded motion so far are left out; without
    half of the frames there is no value. Frames whose camera could not be recovered count as a camera that did not
    move. `normalised` is the share of a standing camera's error, beyond the same error bars, that was avoided.

    Args:
        clip: With commanded poses and intrinsics; `depth_m` for the direct fit.
        max_frames: Frames for structure from motion, evenly spread.
    """
    guards.require_frames(clip, 3)
    with guards.refusals():
        poses = check_poses(clip.truth["world_from_camera"], num_frames=len(clip))
        K = check_intrinsics(clip.truth["K"])
        turn = rotation_angle(poses[0, :3, :3].T @ poses[:, :3, :3]).max()
        if path_extent(poses) < _STILL_M and turn < _STILL_RAD:
            raise Unmeasurable("inapplicable", "the commanded camera stands still: a frozen picture would pass")
        if clip.truth.get("depth_m") is not None:
            estimate, used, covariance = _by_depth(clip, poses, K)
            recovered, chosen, method, scale = used > 0, np.arange(len(clip)), "direct", "metric"
        else:
            estimate, recovered, chosen = _by_sfm(clip, K, max_frames)
            covariance = np.zeros((len(chosen), 6, 6))
            method, scale = "sfm", "fit"
        if not recovered[1:].any():
            raise Unmeasurable("insufficient", "no frame has texture enough to recover its camera")
        truth = _unit(poses[chosen])
        estimate = _unit(estimate, path_extent(poses[chosen]) if method == "direct" else None)
        error = path_error(
            truth[recovered], estimate[recovered], scale=scale if path_extent(estimate) > 0 else "metric"
        )
    standing = path_error(truth, np.repeat(truth[:1], len(truth), axis=0), scale="metric")
    bars = _ERROR_BARS * _error_bars(covariance, path_extent(poses[chosen]))
    return _measurement(error, standing, recovered, chosen, len(clip), method, bars)


def _error_bars(covariance: np.ndarray, extent: float) -> np.ndarray:
    """Standard error of CamMC (T,): a small rotation changes its matrix by sqrt(2) times its angle (Frobenius)."""
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    unit = extent if extent > _STILL_M else 1.0
    return np.sqrt(2.0 * variances[:, 3:].sum(axis=1) + variances[:, :3].sum(axis=1) / unit**2)


def _by_depth(clip: Clip, poses: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tracks at a shorter side of about `TRACKING_SIDE`, frames and inverse depths averaged over blocks of pixels."""
    depth_m, moving = clip.truth["depth_m"], movers(clip)
    height, width = clip.frames.shape[1:3]
    step = max(1, min(height, width) // TRACKING_SIDE)
    rows, columns = height // step, width // step

    def blocks(stack: np.ndarray) -> np.ndarray:
        cut = stack[:, : rows * step, : columns * step]
        return np.stack([cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA) for image in cut])

    frames = blocks(clip.frames)
    require_sharp(frames)
    known = np.isfinite(depth_m) & (depth_m > 0)
    # Averages of inverse depth are exact on planes; a block with an unknown pixel is unknown.
    inverse = blocks(np.where(known, 1.0 / np.where(known, depth_m, 1.0), 0.0))
    whole = blocks(known.astype(np.float32)) == 1.0
    depth = np.divide(1.0, inverse, out=np.zeros_like(inverse), where=whole)
    still = None if moving is None else blocks(moving.astype(np.float32)) == 0.0
    return track(frames, depth, poses, np.diag([1 / step, 1 / step, 1.0]) @ K, still)


def _by_sfm(clip: Clip, K: np.ndarray, max_frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    side = min(clip.frames.shape[1:3])
    if side < SFM_SIDE:
        raise Unmeasurable("insufficient", f"without depth_m it needs frames of at least {SFM_SIDE} px, has {side}")
    if not is_available():
        raise Unmeasurable("missing", "without depth_m it needs pycolmap: pip install 'worldsim[sfm]'")
    chosen = guards.spread(len(clip), max_frames)
    frames = working_frames(clip)
    height, width = clip.frames.shape[1:3]
    model = reconstruct(frames[chosen], K=np.diag([frames.shape[2] / width, frames.shape[1] / height, 1.0]) @ K)
    if model.registered.sum() < 3:
        raise Unmeasurable("insufficient", "structure from motion built no model: too little texture or parallax")
    return np.where(model.registered[:, None, None], model.world_from_camera, np.eye(4)), model.registered, chosen


def _unit(poses: np.ndarray, extent: float | None = None) -> np.ndarray:
    """Poses with translations in units of their extent, or of the given one; a path that only turns keeps metres."""
    extent = path_extent(poses) if extent is None else extent
    scaled = poses.copy()
    if extent > _STILL_M:
        scaled[:, :3, 3] /= extent
    return scaled


def _measurement(
    error: PathError,
    standing: PathError,
    recovered: np.ndarray,
    chosen: np.ndarray,
    num_frames: int,
    method: str,
    bars: np.ndarray,
) -> Measurement:
    # A frame without a camera is told of too, unless the camera had been lost before.
    told = bars <= _TELLING_SHARE * standing.mc
    told[0] = False  # where both cameras are put
    if told[1:].mean() < _LEAST_TOLD:
        raise Unmeasurable("insufficient", "the recovered camera is less certain than the commanded motion is long")
    mc = standing.mc.copy()
    mc[recovered] = np.maximum(error.mc - bars[recovered], 0.0)
    per_frame = np.full(num_frames, np.nan)
    per_frame[chosen[told]] = mc[told]
    value = float(mc[told].mean())
    null = float(np.maximum(standing.mc - np.where(recovered, bars, 0.0), 0.0)[told].mean())
    return Measurement(
        value=value,
        normalised=float(np.clip(1.0 - value / null, 0.0, 1.0)),
        coverage=float(told[1:].mean()),
        per_frame=per_frame,
        offending=tuple(int(i) for i in chosen[told & (mc > np.maximum(standing.mc, 1e-9) / 2)]),
        details={
            "method": method,
            "rot_err_rad": error.rot_err_rad,
            "trans_err": error.trans_err,
            "cam_mc": error.cam_mc,
            "cam_mc_standing": float(standing.mc[1:].mean()),
            "cam_mc_error_bar": float(bars[1:].mean()),
            "frames_recovered": int(recovered.sum()),
        },
    )
