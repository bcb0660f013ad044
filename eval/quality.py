"""Picture quality without weights or reference: flicker, freeze, blur, mid-frame and warping error, and dynamics.

None of these is a law of physics, and a still video would win most of them; therefore `dynamics` stands beside, and
`freeze`, `mid_frame` and `warping` refuse a video that does not move. Each measure is also a plain function on frames.
"""

import cv2
import numpy as np
from scipy import ndimage

from eval.clip import Clip
from eval.errors import MeasureError
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error

# Mean absolute change in levels below which a pair of frames shows no motion.
STILL_LEVELS = 0.05
MIN_SIDE_PX = 16
# A pixel moves if its optical flow is longer.
MOVING_PX = 0.25
FLOW_SIDE_PX = 128
MAX_FLOW_SIDE_PX = 512


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

    A quarter of the second difference of the mean luminance: the amplitude of an alternation between successive frames.
    A steady change of exposure has none, and what moving objects change of the mean is smooth.
    """
    mean = luminance(frames).mean(axis=(1, 2)).astype(float)
    amplitude = np.full(len(mean), np.nan)
    if len(mean) >= 3:
        amplitude[1:-1] = np.abs(mean[2:] - 2.0 * mean[1:-1] + mean[:-2]) / 4.0
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


def flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dense optical flow (H, W, 2) in pixels from luminance a to b (H, W), by DIS.

    Kroeger et al., Fast optical flow using dense inverse search, ECCV 2016, as in OpenCV. Small frames are enlarged
    first: the method works on patches of 8 pixels.
    """
    height, width = a.shape
    scale = max(1.0, FLOW_SIDE_PX / min(height, width))
    scale = min(scale, MAX_FLOW_SIDE_PX / max(height, width))
    size = max(MIN_SIDE_PX, round(width * scale)), max(MIN_SIDE_PX, round(height * scale))
    first, second = (_levels(cv2.resize(p, size, interpolation=cv2.INTER_LINEAR)) for p in (a, b))
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    found = dis.calc(first, second, np.zeros((size[1], size[0], 2), np.float32))
    back = cv2.resize(np.asarray(found), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(back * np.array([width / size[0], height / size[1]], np.float32))


def warp(picture: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """The picture (H, W) read at x + displacement (H, W, 2), bilinear; NaN outside."""
    height, width = picture.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        picture,
        x + displacement[..., 0],
        y + displacement[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=float("nan"),
    )


@evaluator("flicker", suite="quality", unit="levels", better="lower")
def flicker(clip: Clip) -> Measurement:
    """Mean amplitude of alternating brightness from frame to frame, slow changes removed; levels of 255."""
    _need_frames(clip, 3)
    per_frame = flicker_levels(clip.frames)
    values = per_frame[1:-1]
    return Measurement(
        value=float(values.mean()),
        # One level is the rounding of the picture, ten are seen by anyone.
        normalised=float(1.0 / (1.0 + (values.mean() / 2.0) ** 2)),
        uncertainty=standard_error(values),
        coverage=len(values) / len(clip),
        per_frame=per_frame,
        offending=_outliers(per_frame, 2.0),
    )


@evaluator("freeze", suite="quality", unit="share", better="lower")
def freeze(clip: Clip) -> Measurement:
    """Share of frame pairs in which the picture stands still, in a video that moves otherwise."""
    _need_frames(clip, 3)
    change = frame_change(clip.frames)
    usual = float(np.percentile(change, 90))
    if usual < STILL_LEVELS:
        raise Unmeasurable("inapplicable", "nothing moves in the whole clip; see `dynamics`")
    # Less than a twentieth of the clip's usual change, however small that is.
    frozen = change < 0.05 * usual
    share = float(frozen.mean())
    per_frame = np.concatenate([[np.nan], change])
    return Measurement(
        value=share,
        normalised=1.0 - share,
        uncertainty=float(np.sqrt(share * (1 - share) / len(change))),
        coverage=len(change) / len(clip),
        per_frame=per_frame,
        offending=tuple(int(t) + 1 for t in np.flatnonzero(frozen)),
    )


@evaluator("blur", suite="quality", unit="share", better="lower")
def blur(clip: Clip) -> Measurement:
    """One minus the share of gradient energy that re-blurring removes: 0 crisp, near 1 washed out."""
    if min(clip.frames.shape[1:3]) < MIN_SIDE_PX:
        raise Unmeasurable("insufficient", f"frames under {MIN_SIDE_PX} px a side")
    per_frame = 1.0 - sharpness(clip.frames)
    known = np.isfinite(per_frame)
    if not known.any():
        raise Unmeasurable("inapplicable", "flat frames: there is no edge to be sharp")
    value = float(per_frame[known].mean())
    # Loss of sharpness within the clip, against its first tenth: what a drifting model does.
    start = float(np.mean(per_frame[known][: max(1, known.sum() // 10)]))
    return Measurement(
        value=value,
        normalised=float(np.clip(1.0 - value, 0.0, 1.0)),
        uncertainty=standard_error(per_frame[known]),
        coverage=float(known.mean()),
        per_frame=per_frame,
        details={"rise_since_start": float(per_frame[known][-1] - start)},
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


@evaluator("mid_frame", suite="quality", unit="levels", better="lower")
def mid_frame(clip: Clip) -> Measurement:
    """Error of predicting each frame from its two neighbours by half their flow, in levels, where something moves.

    Smooth motion is predictable from both sides; popping, jitter and teleporting texture are not. As VBench's motion
    smoothness (Huang et al., CVPR 2024), with optical flow in place of a learned interpolator.
    """
    _need_frames(clip, 3)
    _need_size(clip)
    luma = luminance(clip.frames)
    per_frame, still = np.full(len(clip), np.nan), np.full(len(clip), np.nan)
    for t in range(1, len(clip) - 1):
        forward, backward = flow(luma[t - 1], luma[t + 1]), flow(luma[t + 1], luma[t - 1])
        changed = _changed(luma[t - 1 : t + 2])
        if not changed.any():
            continue
        middle = 0.5 * (warp(luma[t - 1], 0.5 * backward) + warp(luma[t + 1], 0.5 * forward))
        per_frame[t] = float(np.nanmean(np.abs(middle - luma[t])[changed]))
        still[t] = float(np.abs(0.5 * (luma[t - 1] + luma[t + 1]) - luma[t])[changed].mean())
    return _relative_error(per_frame, still)


@evaluator("warping", suite="quality", unit="levels", better="lower")
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
        forward, backward = flow(luma[t - 1], luma[t]), flow(luma[t], luma[t - 1])
        visible = _changed(luma[t - 1 : t + 1]) & _consistent(forward, backward)
        if not visible.any():
            continue
        per_frame[t] = float(np.nanmean(np.abs(warp(luma[t - 1], backward) - luma[t])[visible]))
        still[t] = float(np.abs(luma[t - 1] - luma[t])[visible].mean())
    return _relative_error(per_frame, still)


def _relative_error(per_frame: np.ndarray, still: np.ndarray) -> Measurement:
    """The mean error; normalised by what repeating frames would give, so that it does not reward low contrast."""
    known = np.isfinite(per_frame) & np.isfinite(still)
    if not known.any():
        raise Unmeasurable("inapplicable", "nothing moves, so there is no motion to predict")
    value, baseline = float(per_frame[known].mean()), float(still[known].mean())
    return Measurement(
        value=value,
        normalised=float(np.clip(1.0 - value / baseline, 0.0, 1.0)) if baseline > 0 else None,
        uncertainty=standard_error(per_frame[known]),
        coverage=float(known.mean()),
        per_frame=per_frame,
        offending=_outliers(per_frame, 1.0),
        details={"error_of_repeating_levels": baseline},
    )


def _changed(luma: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels that change within these frames, and their neighbours."""
    moved = np.ptp(luma, axis=0) > 4.0
    return ndimage.binary_dilation(moved, iterations=2) if moved.any() else moved


def _consistent(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Sundaram et al. (ECCV 2010): forward and backward flow cancel up to 1 % of their squared lengths plus 0.5."""
    there = np.stack([warp(np.ascontiguousarray(forward[..., c]), backward) for c in (0, 1)], axis=-1)
    apart = np.sum((there + backward) ** 2, axis=-1)
    return apart < 0.01 * (np.sum(there**2, axis=-1) + np.sum(backward**2, axis=-1)) + 0.5


def _levels(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def _gradient_energy(picture: np.ndarray) -> float:
    return float(np.mean(np.diff(picture, axis=0) ** 2) + np.mean(np.diff(picture, axis=1) ** 2))


def _outliers(per_frame: np.ndarray, least: float) -> tuple[int, ...]:
    """Frames far above the clip's own level: five robust deviations, and `least` levels."""
    known = per_frame[np.isfinite(per_frame)]
    middle = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - middle)))
    return tuple(int(t) for t in np.flatnonzero(per_frame > middle + max(5.0 * spread, least)))


def _need_frames(clip: Clip, least: int) -> None:
    if len(clip) < least:
        raise Unmeasurable("insufficient", f"{len(clip)} frames, at least {least} are needed")


def _need_size(clip: Clip) -> None:
    if min(clip.frames.shape[1:3]) < MIN_SIDE_PX:
        raise Unmeasurable("insufficient", f"frames under {MIN_SIDE_PX} px a side; optical flow needs more")
