"""Picture quality without weights or reference: flicker, freeze, blur, mid-frame and warping error, and dynamics.

None of these is a law of physics, and a still video would win all of them; therefore they refuse a video in which
nothing changes, and `dynamics` stands beside. What each measure claims to see is planted in clips and found again by
`worldsim validate --world quality`.
"""

import cv2
import numpy as np
from scipy import ndimage

from eval.clip import Clip
from eval.errors import MeasureError
from eval.optical_flow import MIN_SIDE_PX, consistent, explained, flow, warp
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error

# Mean absolute change in levels below which a pair of frames shows no motion.
STILL_LEVELS = 0.05
# A pixel moves if its optical flow is longer.
MOVING_PX = 0.25
# Of `blur`: a straight edge drawn over one pixel in between, which is as crisp as pixels show without stairs.
CRISP = 0.6
# A picture that hung for a frame moves twice as far in the next.
CATCH_UP = 1.5
ROUNDING_LEVELS = 0.5
FLICKER_FRAMES = 5
NOTHING_MOVES = "nothing moves in the whole clip; see `dynamics`"


def luminance(frames: np.ndarray) -> np.ndarray:
    """Rec. 709 luma (T, H, W) in levels 0-255 of uint8 (T, H, W, 3).

    Raises:
        MeasureError: On another shape or type.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise MeasureError(
            expected="uint8 frames (T, H, W, 3)",
            got=f"{frames.dtype} {frames.shape}",
            remedy="Convert with eval.clip.as_frames.",
        )
    return frames.astype(np.float32) @ np.array([0.2126, 0.7152, 0.0722], np.float32)


def flicker_levels(frames: np.ndarray) -> np.ndarray:
    """Alternation of the picture's mean luminance, trend removed, per frame (T,) in levels.

    A sixteenth of the fourth difference of the mean luminance: the amplitude of an alternation between successive
    frames. What moving bodies, cameras and exposure change of the mean is smooth, and passes up to a cubic in time, so
    that few frames per second are no flicker. NaN for the first and last two frames.
    """
    mean = luminance(frames).mean(axis=(1, 2)).astype(float)
    amplitude = np.full(len(mean), np.nan)
    if len(mean) >= FLICKER_FRAMES:
        amplitude[2:-2] = np.abs(np.diff(mean, n=4)) / 16.0
    return amplitude


def frame_change(frames: np.ndarray) -> np.ndarray:
    """Mean absolute change of luminance from each frame to the next, (T-1,) in levels."""
    return np.abs(np.diff(luminance(frames), axis=0)).mean(axis=(1, 2)).astype(float)


def sharpness(frames: np.ndarray) -> np.ndarray:
    """Share of the gradient energy that a 3x3 Gaussian removes, per frame (T,), in [0, 1]; NaN for flat frames.

    Blur removes fine detail first, so a blurred picture has less left to lose (re-blur principle of Crete et al., The
    blur effect, SPIE 2007). Unlike the variance of the Laplacian it does not grow with contrast.
    """
    luma = luminance(frames)
    result = np.full(len(luma), np.nan)
    for t, picture in enumerate(luma):
        before = _gradient_energy(picture)
        if before > 1e-3:
            result[t] = 1.0 - _gradient_energy(cv2.GaussianBlur(picture, (3, 3), 1.0)) / before
    return result


@evaluator("flicker", suite="quality", unit="levels", better="lower", claims=("alternation",), version=2)
def flicker(clip: Clip) -> Measurement:
    """Mean amplitude of alternating brightness from frame to frame, slow changes removed; levels of 255."""
    _need_frames(clip, FLICKER_FRAMES)
    _need_change(clip)
    # Half a level is what rounding, noise and compression do to the mean of a frame.
    amplitude = flicker_levels(clip.frames)
    per_frame = np.where(amplitude <= ROUNDING_LEVELS, 0.0, amplitude)
    values = per_frame[2:-2]
    return Measurement(
        value=float(values.mean()),
        # One level is the rounding of the picture, ten are seen by anyone.
        normalised=float(1.0 / (1.0 + (values.mean() / 2.0) ** 2)),
        uncertainty=standard_error(values),
        coverage=len(values) / len(clip),
        per_frame=per_frame,
        offending=_outliers(per_frame, 2.0),
    )


@evaluator("freeze", suite="quality", unit="share", better="lower", claims=("stutter",), version=2)
def freeze(clip: Clip) -> Measurement:
    """Share of frame pairs in which the picture hangs: it stands still, then jumps to where it would have been.

    A picture that rests and goes on as before, or rests to the end, may show bodies or a camera at rest: these pairs
    are counted in `details["resting"]` only.
    """
    _need_frames(clip, 3)
    change = frame_change(clip.frames)
    usual = float(np.percentile(change, 90))
    if usual < STILL_LEVELS:
        raise Unmeasurable("inapplicable", NOTHING_MOVES)
    _need_size(clip)
    # Less than a twentieth of the clip's usual change, however small that is.
    still = change < 0.05 * usual
    hung = np.zeros(len(change), bool)
    for start, stop in _runs(still):
        hung[start:stop] = _catches_up(clip.frames, start, stop)
    share = float(hung.mean())
    return Measurement(
        value=share,
        normalised=1.0 - share,
        uncertainty=float(np.sqrt(share * (1 - share) / len(change))),
        coverage=len(change) / len(clip),
        per_frame=np.concatenate([[np.nan], change]),
        offending=tuple(int(t) + 1 for t in np.flatnonzero(hung)),
        details={"resting": float((still & ~hung).mean())},
    )


@evaluator("blur", suite="quality", unit="share", better="lower", claims=("softening",), version=3)
def blur(clip: Clip) -> Measurement:
    """How far edges are softer than crisp ones, by what re-blurring removes: 0 crisp, near 1 washed out.

    What is as crisp as pixels can show counts as 0: how much crisper it is depends on texture and on the number of
    pixels that a scene is drawn with, and is no defect.
    """
    if min(clip.frames.shape[1:3]) < MIN_SIDE_PX:
        raise Unmeasurable("insufficient", f"frames under {MIN_SIDE_PX} px a side")
    _need_change(clip)
    kept = 1.0 - sharpness(clip.frames)
    known = np.isfinite(kept)
    if not known.any():
        raise Unmeasurable("inapplicable", "flat frames: there is no edge to be sharp")
    per_frame = np.maximum((kept - CRISP) / (1.0 - CRISP), 0.0)
    value = float(per_frame[known].mean())
    # Loss of sharpness within the clip, against its first tenth: what a drifting model does.
    start = float(np.mean(kept[known][: max(1, known.sum() // 10)]))
    return Measurement(
        value=value,
        normalised=1.0 - value,
        uncertainty=standard_error(per_frame[known]),
        coverage=float(known.mean()),
        per_frame=per_frame,
        details={"rise_since_start": float(kept[known][-1] - start)},
    )


@evaluator("dynamics", suite="quality", unit="share", better="neither")
def dynamics(clip: Clip) -> Measurement:
    """How much moves: length of the median optical flow of moving pixels, as a share of the frame's width a second.

    Neither more nor less is better; it says whether the other quality measures had anything to judge.
    """
    _need_frames(clip, 2)
    _need_size(clip)
    luma = luminance(clip.frames)
    lengths, share = np.zeros(len(clip)), np.zeros(len(clip))
    lengths[0] = share[0] = np.nan
    for t in range(1, len(clip)):
        speed = np.linalg.norm(flow(luma[t - 1], luma[t]), axis=-1)
        moving = speed > MOVING_PX
        changed = np.abs(luma[t] - luma[t - 1]).mean() >= STILL_LEVELS
        share[t] = float(moving.mean()) if changed else 0.0
        lengths[t] = float(np.median(speed[moving])) if moving.any() and changed else 0.0
    per_second = lengths * clip.fps / clip.frames.shape[2]
    return Measurement(
        value=float(np.nanmean(per_second)),
        uncertainty=standard_error(per_second[1:]),
        coverage=(len(clip) - 1) / len(clip),
        per_frame=per_second,
        details={"moving_share": float(np.nanmean(share))},
    )


@evaluator("mid_frame", suite="quality", unit="levels", better="lower", claims=("jitter", "swapped"), version=3)
def mid_frame(clip: Clip) -> Measurement:
    """Error of predicting each frame from its two neighbours by half their flow, in levels, where something moves.

    Smooth motion is predictable from both sides; jitter and frames out of order are not. As VBench's motion smoothness
    (Huang et al., CVPR 2024), with optical flow in place of a learned interpolator. Pixels whose flow is not the same
    forth and back, or does not lead to the same brightness, are left out.
    """
    _need_frames(clip, 3)
    _need_size(clip)
    luma = luminance(clip.frames)
    per_frame, still = np.full(len(clip), np.nan), np.full(len(clip), np.nan)
    for t in range(1, len(clip) - 1):
        before, now, after = luma[t - 1 : t + 2]
        changed = _changed(luma[t - 1 : t + 2])
        if not changed.any():
            continue
        forward, backward = flow(before, after), flow(after, before)
        middle = 0.5 * (warp(before, 0.5 * backward) + warp(after, 0.5 * forward))
        known = warp(explained(before, after, forward, backward).astype(np.float32), 0.5 * forward) > 0.5
        known &= warp(explained(after, before, backward, forward).astype(np.float32), 0.5 * backward) > 0.5
        chosen = changed & known & np.isfinite(middle)
        if chosen.any():
            per_frame[t] = float(np.abs(middle - now)[chosen].mean())
            still[t] = float(np.abs(0.5 * (before + after) - now)[chosen].mean())
    return _relative_error(per_frame, still)


@evaluator("warping", suite="quality", unit="levels", better="lower", claims=("grain",), version=2)
def warping(clip: Clip) -> Measurement:
    """Error of carrying each frame to the next by their optical flow, in levels, where something moves.

    After Lai et al. (Learning blind video temporal consistency, ECCV 2018); pixels whose forward and backward flow
    disagree are occluded and left out. Blind to wobble that flow explains and to blur: read it beside others.
    """
    _need_frames(clip, 2)
    _need_size(clip)
    luma = luminance(clip.frames)
    per_frame, still = np.full(len(clip), np.nan), np.full(len(clip), np.nan)
    for t in range(1, len(clip)):
        changed = _changed(luma[t - 1 : t + 1])
        if not changed.any():
            continue
        forward, backward = flow(luma[t - 1], luma[t]), flow(luma[t], luma[t - 1])
        made = np.abs(warp(luma[t - 1], backward) - luma[t])
        visible = changed & consistent(forward, backward) & np.isfinite(made)
        if visible.any():
            per_frame[t] = float(made[visible].mean())
            still[t] = float(np.abs(luma[t - 1] - luma[t])[visible].mean())
    return _relative_error(per_frame, still)


def _relative_error(per_frame: np.ndarray, still: np.ndarray) -> Measurement:
    """The mean error, beside what repeating frames would give.

    There is no scale from 0 to 1: how little is left of a true video is up to the optical flow and to how far bodies
    move, not to the video.
    """
    known = np.isfinite(per_frame) & np.isfinite(still)
    if not known.any():
        raise Unmeasurable("inapplicable", NOTHING_MOVES)
    return Measurement(
        value=float(per_frame[known].mean()),
        uncertainty=standard_error(per_frame[known]),
        coverage=float(known.mean()),
        per_frame=per_frame,
        offending=_outliers(per_frame, 1.0),
        details={"error_of_repeating_levels": float(still[known].mean())},
    )


def _changed(luma: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels that change within these frames, and their neighbours."""
    moved = np.ptp(luma, axis=0) > 4.0
    return ndimage.binary_dilation(moved, iterations=2) if moved.any() else moved


def _gradient_energy(picture: np.ndarray) -> float:
    return float(np.mean(np.diff(picture, axis=0) ** 2) + np.mean(np.diff(picture, axis=1) ** 2))


def _outliers(per_frame: np.ndarray, least: float) -> tuple[int, ...]:
    """Frames far above the clip's own level: five robust deviations, and `least` levels."""
    known = per_frame[np.isfinite(per_frame)]
    middle = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - middle)))
    return tuple(int(t) for t in np.flatnonzero(per_frame > middle + max(5.0 * spread, least)))


def _runs(chosen: np.ndarray) -> list[tuple[int, int]]:
    """Start and stop of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _catches_up(frames: np.ndarray, start: int, stop: int) -> bool:
    """Whether a picture that stands still from frame `start` to `stop` then moves further than before and after."""
    if start == 0 or stop + 1 >= len(frames):
        return False
    around = {t: _speed(frames[t : t + 2]) for t in (start - 1, stop, stop + 1) if t + 1 < len(frames)}
    usual = max(around[start - 1], around.get(stop + 1, 0.0))
    return usual > 0 and around[stop] > CATCH_UP * usual


def _speed(frames: np.ndarray) -> float:
    """Median optical flow of the pixels that move between two frames, in pixels."""
    first, second = luminance(frames)
    lengths = np.linalg.norm(flow(first, second), axis=-1)
    moving = (lengths > MOVING_PX) & _changed(np.stack([first, second]))
    return float(np.median(lengths[moving])) if moving.any() else 0.0


def _need_change(clip: Clip) -> None:
    if len(clip) < 2 or float(np.percentile(frame_change(clip.frames), 90)) < STILL_LEVELS:
        raise Unmeasurable("inapplicable", NOTHING_MOVES)


def _need_frames(clip: Clip, least: int) -> None:
    if len(clip) < least:
        raise Unmeasurable("insufficient", f"{len(clip)} frames, at least {least} are needed")


def _need_size(clip: Clip) -> None:
    if min(clip.frames.shape[1:3]) < MIN_SIDE_PX:
        raise Unmeasurable("insufficient", f"frames under {MIN_SIDE_PX} px a side; optical flow needs more")
