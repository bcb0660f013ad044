"""Evaluator by structure from motion: how much of what matches is explained by one rigid model of all frames?"""

import numpy as np

from eval.clip import Clip
from eval.errors import MeasureError
from eval.geometry import guards
from eval.geometry.camera import path_extent
from eval.geometry.pose import check_intrinsics, check_poses
from eval.geometry.sfm import Reconstruction, reconstruct
from eval.geometry.unknown import MIN_SIDE, fit_pairs, require_parallax, widening, working_frames
from eval.score import Measurement, Unmeasurable, evaluator

MIN_FRAMES = 5
# Two halves of a path share a pose, and each needs a step.
_MIN_DRIFT_POSES = 3
# Of matches that pass the ratio test a few are false whatever the video (Lowe 2004, section 7.1): no model need explain
# those, and whether they are two or four in a hundred is a matter of sharpness.
_TRUE_MATCHES = 0.95
# From here on noise misplaces keypoints by more than SIFT does by itself, and makes matches false: no model explains
# them, of a true scene as little as of one that bends slightly.
_MOST_WIDENED = 2.0**0.5


@evaluator("sfm", suite="geometry", unit="share", better="higher", claims=("frame_wobble",), version=2)
def sfm(clip: Clip, *, threshold_px: float = 1.0, max_frames: int = 16, gap_s: float = 0.3) -> Measurement:
    """Share of all matched keypoints that one rigid model of the whole clip explains (pycolmap), nothing known.

    Keypoints of frames that could not be registered stay in the denominator; no model at all is 0. The threshold is
    widened by what the video's own noise misplaces; keypoints seen under too small an angle to be triangulated are held
    against the epipolar lines of the model's cameras. 1 is reached when all but a twentieth is explained: that many
    matches are false in any video. Noise that misplaces keypoints by more than SIFT itself does gives a status instead
    of a value. Details: registered frames, points, track length, reprojection error, and scale drift where a camera was
    commanded. Blind to what a change of scene leaves consistent on either side (popping), to a wrong but rigid camera,
    and to sliding textures that move less than the threshold: see `epipolar_magsac`.

    Args:
        clip: Frames of at least 128 px; about 256 px is needed for a model of a few hundred points.
        threshold_px: Reprojection error up to which a keypoint is explained, in pixels of frames reduced to at most
            512.
        max_frames: At most this many frames, evenly spread.
        gap_s: Seconds between the frames of the pairs on which motion and parallax are tested beforehand.
    """
    guards.require_frames(clip, MIN_FRAMES)
    guards.require_side(clip, MIN_SIDE)
    require_parallax(list(fit_pairs(clip, gaps_s=[gap_s], threshold_px=1.0, max_pairs=8).values()))
    widened = widening(clip)
    if widened > _MOST_WIDENED:
        raise Unmeasurable("insufficient", "the video's own noise misplaces keypoints by more than SIFT itself does")
    with guards.refusals():
        chosen = guards.spread(len(clip), max_frames)
        frames = working_frames(clip)
        K = clip.truth.get("K")
        if K is not None:
            height, width = clip.frames.shape[1:3]
            K = np.diag([frames.shape[2] / width, frames.shape[1] / height, 1.0]) @ check_intrinsics(K)
        model = reconstruct(frames[chosen], K=K)
        limit = threshold_px * widened
        explained = model.explained_share(limit)
        value = min(1.0, explained / _TRUE_MATCHES)
        details = (
            {"threshold_px": limit, "explained_share": explained} | _details(model) | _scale_drift(clip, model, chosen)
        )
    unregistered = chosen[~model.registered]
    return Measurement(
        value=value,
        normalised=value,
        coverage=float(model.registered.mean()),
        offending=tuple(int(i) for i in unregistered),
        details=details,
    )


def _details(model: Reconstruction) -> dict[str, float]:
    seen = np.isfinite(model.errors_px)
    return {
        "frames_attempted": len(model.registered),
        "frames_registered": int(model.registered.sum()),
        "models": model.num_models,
        "points": len(model.points),
        "track_length": float(model.track_lengths.mean()) if len(model.points) else 0.0,
        "reprojection_px": float(model.errors_px[seen].mean()) if seen.any() else float("nan"),
    }


def _scale_drift(clip: Clip, model: Reconstruction, chosen: np.ndarray) -> dict[str, float]:
    """Change of the model's scale against the commanded camera's from the first half of the clip to the second."""
    commanded = clip.truth.get("world_from_camera")
    if commanded is None or model.registered.sum() < 6:
        return {}
    true = check_poses(commanded)[chosen][model.registered]
    estimate = model.world_from_camera[model.registered]
    return {"scale_drift": scale_drift(true, estimate)}


def scale_drift(truth: np.ndarray, estimate: np.ndarray) -> float:
    """Log ratio of an estimated path's scale in its second half to that in its first, against the true path.

    The scale of a half is its extent over the true extent of the same frames.

    Args:
        truth: (T, 4, 4) world_from_camera.
        estimate: (T, 4, 4) world_from_camera of the same frames, in any unit.

    Returns:
        0 for a path that is true up to one scale; NaN where a half of either path stands still.

    Raises:
        MeasureError: If the paths have other shapes or fewer than three poses, are not finite or not rigid.
    """
    truth = check_poses(truth)
    if len(truth) < _MIN_DRIFT_POSES:
        raise MeasureError(expected="at least three poses", got=len(truth), remedy="Pass a longer path.")
    estimate = check_poses(estimate, num_frames=len(truth))
    half = len(truth) // 2
    ratios = []
    for part in (slice(0, half + 1), slice(half, None)):
        extent, extent_hat = path_extent(truth[part]), path_extent(estimate[part])
        if extent <= 1e-6 * path_extent(truth) or extent_hat == 0:
            return float("nan")
        ratios.append(extent_hat / extent)
    return float(np.log(ratios[1] / ratios[0]))
