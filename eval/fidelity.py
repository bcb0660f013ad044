"""Fidelity: how close a video is to the true video of the same scene and actions, frame by frame."""

from typing import NamedTuple

import cv2
import numpy as np

from eval.clip import Clip
from eval.errors import MeasureError
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error

PEAK = 255.0
SSIM_SIGMA_PX, SSIM_WINDOW_PX = 1.5, 11
SSIM_K1, SSIM_K2 = 0.01, 0.03
# A forecast is called useful while its anomaly correlation exceeds 0.6 (Hollingsworth et al., Mon. Wea. Rev. 108, 1980)
USEFUL_AGREEMENT = 0.6


class Horizon(NamedTuple):
    """When a video left the truth.

    Attributes:
        frame: Index of the first frame of divergence, or the number of frames if it never diverged.
        censored: Whether the video ended before it diverged, so that `frame` is only a lower bound.
    """

    frame: int
    censored: bool


def mse(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Mean squared error of every frame, in squared grey levels.

    Args:
        frames: uint8 (T, H, W, 3).
        reference: uint8 (T, H, W, 3).

    Returns:
        (T,) float64.

    Raises:
        MeasureError: If the videos differ in shape or are not uint8 (T, H, W, 3).
    """
    check_pair(frames, reference)
    difference = (frames[t].astype(np.float64) - reference[t] for t in range(len(frames)))
    return np.array([np.mean(d * d) for d in difference])


def psnr(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of every frame, 10 log10(255² / MSE), in dB; +inf where a frame is identical.

    Args and errors as in `mse`; the mean runs over pixels and channels.

    Returns:
        (T,) float64.
    """
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(PEAK**2 / mse(frames, reference))


def ssim(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Structural similarity of every frame (Wang, Bovik, Sheikh & Simoncelli, IEEE TIP 13, 2004).

    Gaussian window of 11 pixels, σ = 1.5, K1 = 0.01, K2 = 0.03, L = 255, population covariances, computed on each of
    the three channels and averaged over channels and over the window positions that lie wholly inside the frame. The
    same constants as scikit-image's `structural_similarity(..., gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, channel_axis=-1, data_range=255)`.

    Args:
        frames: uint8 (T, H, W, 3), height and width at least 11.
        reference: uint8 (T, H, W, 3).

    Returns:
        (T,) float64 in [-1, 1].

    Raises:
        MeasureError: As `mse`; also if a frame is smaller than the window.
    """
    check_pair(frames, reference)
    if min(frames.shape[1:3]) < SSIM_WINDOW_PX:
        raise MeasureError(
            expected=f"frames of at least {SSIM_WINDOW_PX}×{SSIM_WINDOW_PX} pixels",
            got=f"{frames.shape[1]}×{frames.shape[2]}",
            remedy="SSIM needs room for its window; use PSNR for smaller frames.",
        )
    kernel = cv2.getGaussianKernel(SSIM_WINDOW_PX, SSIM_SIGMA_PX, cv2.CV_64F)
    return np.array([_ssim_frame(a, b, kernel) for a, b in zip(frames, reference, strict=True)])


def _ssim_frame(a: np.ndarray, b: np.ndarray, kernel: np.ndarray) -> float:
    edge = SSIM_WINDOW_PX // 2
    a, b = a.astype(np.float64), b.astype(np.float64)

    def local_mean(image: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel)[edge:-edge, edge:-edge]

    mean_a, mean_b = local_mean(a), local_mean(b)
    c1, c2 = (SSIM_K1 * PEAK) ** 2, (SSIM_K2 * PEAK) ** 2
    covariance = local_mean(a * b) - mean_a * mean_b
    variances = local_mean(a * a) - mean_a**2 + local_mean(b * b) - mean_b**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float(np.mean(luminance * (2 * covariance + c2) / (variances + c2)))


def anomaly_concordance(frames: np.ndarray, reference: np.ndarray, *, min_motion_levels: float = 1.0) -> np.ndarray:
    """Agreement of every frame with the truth, after the truth's mean frame was taken from both.

    With anomalies d (video) and t (truth) it is 2⟨d, t⟩ / (|d|² + |t|²) = 1 - |d - t|² / (|d|² + |t|²): the anomaly
    correlation of forecast verification (uncentred; Murphy & Epstein, Mon. Wea. Rev. 117, 1989) with the reference's
    mean over time as climatology, in the form of Lin's concordance coefficient (Biometrics 45, 1989), because a
    plain correlation does not notice that a body fades. What never moves earns nothing: a frame that shows only the
    background scores 0; a body that is half where it should be scores about 0.5.

    Args:
        frames: uint8 (T, H, W, 3).
        reference: uint8 (T, H, W, 3).
        min_motion_levels: Root mean square, in grey levels, that the reference's anomaly must reach; below it there
            is nothing to agree with.

    Returns:
        (T,) float64 in [-1, 1], NaN where the reference hardly differs from its mean frame.

    Raises:
        MeasureError: As `mse`.
    """
    check_pair(frames, reference)
    climate = reference.mean(axis=0, dtype=np.float64)
    concordance = np.full(len(frames), np.nan)
    for t, (frame, truth) in enumerate(zip(frames, reference, strict=True)):
        true_anomaly, anomaly = truth - climate, frame - climate
        true_power = np.mean(true_anomaly**2)
        if true_power >= min_motion_levels**2:
            concordance[t] = 2 * np.mean(true_anomaly * anomaly) / (true_power + np.mean(anomaly**2))
    return concordance


def divergence_horizon(
    concordance: np.ndarray, *, threshold: float = USEFUL_AGREEMENT, hold: int = 2, context: int = 1
) -> Horizon:
    """The first frame at which a video leaves the truth.

    A video has left when its anomaly concordance is below `threshold` at `hold` frames that follow each other
    (frames without evidence are passed over), or at all that remain at the end.

    Args:
        concordance: (T,) from `anomaly_concordance`.
        threshold: 0.6 is the convention for the end of a useful forecast.
        hold: Number of successive frames below the threshold that count as having left.
        context: Number of leading frames that were given, not predicted; they are not judged.

    Raises:
        MeasureError: If `hold` is not positive or no predicted frame carries evidence.
    """
    judged = np.flatnonzero(~np.isnan(concordance[context:])) + context
    if hold < 1 or not len(judged):
        raise MeasureError(
            expected="hold >= 1 and at least one predicted frame with evidence",
            got=f"hold={hold}, {len(judged)} frames",
            remedy="Give a longer clip, or one in which something moves.",
        )
    below = concordance[judged] < threshold
    for i in np.flatnonzero(below):
        if below[i : i + hold].all():
            return Horizon(int(judged[i]), censored=False)
    return Horizon(len(concordance), censored=True)


def check_pair(frames: np.ndarray, reference: np.ndarray) -> None:
    """Raises MeasureError unless both are uint8 (T, H, W, 3) of one shape with at least one frame."""
    for name, video in (("frames", frames), ("reference", reference)):
        if getattr(video, "dtype", None) != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or 0 in video.shape:
            got = f"{video.dtype} {video.shape}" if isinstance(video, np.ndarray) else type(video).__name__
            raise MeasureError(
                expected=f"{name} as uint8 (T, H, W, 3)", got=got, remedy="Convert it with eval.clip.as_frames."
            )
    if frames.shape != reference.shape:
        raise MeasureError(
            expected=f"both videos of one shape; the reference is {reference.shape}",
            got=str(frames.shape),
            remedy="Cut both to the same frames and resize neither silently.",
        )


def paired(clip: Clip, context: int) -> tuple[np.ndarray, np.ndarray]:
    """The frames of a clip and of its reference (`Clip` has checked that their shapes agree).

    Args:
        clip: A clip with a reference.
        context: Number of leading frames that were given, not predicted.

    Raises:
        Unmeasurable: If the frame rates differ, or no frame was predicted.
    """
    if clip.reference is None:
        raise Unmeasurable("missing", "needs reference")
    if not np.isclose(clip.fps, clip.reference.fps, rtol=1e-3):
        raise Unmeasurable("failed", f"clip has {clip.fps} frames/s, its reference {clip.reference.fps}")
    if context < 0 or context >= len(clip):
        raise Unmeasurable("insufficient", f"{len(clip)} frames, of which {context} were given: nothing was predicted")
    return clip.frames, clip.reference.frames


def evidence(per_frame: np.ndarray, context: int) -> np.ndarray:
    """A copy of (T,) per-frame values with NaN for the `context` frames that were given."""
    shown = np.asarray(per_frame, float).copy()
    shown[:context] = np.nan
    return shown


@evaluator(
    "psnr",
    suite="fidelity",
    unit="dB",
    better="higher",
    needs=("reference",),
    claims=("late", "softening", "grain", "fading"),
)
def psnr_score(clip: Clip, *, context: int = 1, ceiling_db: float = 100.0) -> Measurement:
    """Peak signal-to-noise ratio to the true video, mean over predicted frames.

    Identical frames have no finite PSNR: every frame counts at most `ceiling_db`, and `details["identical_frames"]`
    says how many there were.
    """
    frames, reference = paired(clip, context)
    per_frame = evidence(psnr(frames, reference), context)
    capped = np.minimum(per_frame, ceiling_db)
    identical = int(np.isposinf(per_frame).sum())
    return Measurement(
        value=float(np.nanmean(capped)),
        uncertainty=standard_error(capped),
        coverage=1 - context / len(clip),
        per_frame=capped,
        details={"identical_frames": identical},
    )


@evaluator(
    "ssim", suite="fidelity", unit="1", better="higher", needs=("reference",), claims=("late", "softening", "grain")
)
def ssim_score(clip: Clip, *, context: int = 1) -> Measurement:
    """Structural similarity to the true video, mean over predicted frames."""
    frames, reference = paired(clip, context)
    try:
        per_frame = evidence(ssim(frames, reference), context)
    except MeasureError as error:
        raise Unmeasurable("insufficient", str(error)) from error
    value = float(np.nanmean(per_frame))
    return Measurement(
        value=value,
        normalised=max(0.0, value),
        uncertainty=standard_error(per_frame),
        coverage=1 - context / len(clip),
        per_frame=per_frame,
    )


@evaluator(
    "divergence_horizon",
    suite="fidelity",
    unit="s",
    better="higher",
    needs=("reference",),
    claims=("impulse",),
)
def divergence_horizon_score(
    clip: Clip,
    *,
    context: int = 1,
    threshold: float = USEFUL_AGREEMENT,
    hold: int = 2,
    min_motion_levels: float = 1.0,
) -> Measurement:
    """Seconds of prediction before the video leaves the truth (anomaly concordance below 0.6 for two frames).

    `details["censored"]` is true if the video ended before it diverged; the value is then a lower bound.
    """
    frames, reference = paired(clip, context)
    per_frame = evidence(anomaly_concordance(frames, reference, min_motion_levels=min_motion_levels), context)
    try:
        horizon = divergence_horizon(per_frame, threshold=threshold, hold=hold, context=context)
    except MeasureError as error:
        raise Unmeasurable("inapplicable", f"the true video does not move: {error}") from error
    stayed, predicted = horizon.frame - context, len(clip) - context
    return Measurement(
        value=stayed * clip.dt_s,
        normalised=stayed / predicted,
        # A horizon that fell between two frames is known to one frame: the spread of a uniform variable.
        uncertainty=None if horizon.censored else clip.dt_s / np.sqrt(12),
        coverage=float(np.mean(~np.isnan(per_frame))),
        per_frame=per_frame,
        offending=() if horizon.censored else (horizon.frame,),
        details={"frame": horizon.frame, "censored": horizon.censored},
    )
