"""Physics-IQ's motion masks and its downscaling: where something moves, frame by frame."""

import cv2
import numpy as np

from eval.errors import MeasureError

BLUR_PX = 5
MORPHOLOGY_PX = 5
BACKGROUND_SHARE = 0.3
THRESHOLD_LEVELS = 10
SHRINK = 4


def motion_masks(frames: np.ndarray, *, threshold: int = THRESHOLD_LEVELS) -> np.ndarray:
    """Where something moves, by the background model of Physics-IQ.

    Motamed et al., "Do generative video models understand physical principles?", 2025
    (google-deepmind/physics-IQ-benchmark). Luma; 5×5 Gaussian blur; running average 0.7·old + 0.3·new that already
    contains the frame it is compared with; absolute difference above `threshold`; opening, then closing with a 5×5
    square. The first mask is empty by definition.

    Args:
        frames: uint8 (T, H, W, 3), RGB.
        threshold: Grey levels that the difference must exceed.

    Returns:
        bool (T, H, W).

    Raises:
        MeasureError: If `frames` is not uint8 (T, H, W, 3) with at least one frame.
    """
    check_video(frames)
    count, height, width, _ = frames.shape
    # Luma is pointwise: one call converts all frames, stacked on top of each other.
    luma = cv2.cvtColor(np.ascontiguousarray(frames).reshape(count * height, width, 3), cv2.COLOR_RGB2GRAY)
    luma = luma.reshape(count, height, width)
    square = np.ones((MORPHOLOGY_PX, MORPHOLOGY_PX), np.uint8)
    masks = np.zeros((count, height, width), np.uint8)
    background = cv2.GaussianBlur(luma[0], (BLUR_PX, BLUR_PX), 0).astype(np.float64)
    for t in range(1, count):
        smooth = cv2.GaussianBlur(luma[t], (BLUR_PX, BLUR_PX), 0)
        cv2.accumulateWeighted(smooth, background, BACKGROUND_SHARE)
        difference = cv2.absdiff(smooth, cv2.convertScaleAbs(background))
        moved = cv2.threshold(difference, threshold, 1, cv2.THRESH_BINARY)[1]
        if moved.any():
            opened = cv2.morphologyEx(moved, cv2.MORPH_OPEN, square)
            cv2.morphologyEx(opened, cv2.MORPH_CLOSE, square, dst=masks[t])
    return masks.view(bool)


def shrink(video: np.ndarray, *, factor: int = SHRINK, antialias: bool = False) -> np.ndarray:
    """Frames or masks at `1/factor` of their size, as Physics-IQ compares them.

    Args:
        video: uint8 (T, H, W, 3) or bool (T, H, W).
        factor: Size divisor; 1 returns the video itself.
        antialias: False samples bilinearly, as published: of each 4×4 block only the central 2×2 pixels count. True
            averages the whole block. A mask pixel is on where at least half of what was sampled is on.

    Returns:
        The same type, (T, H // factor, W // factor, ...).

    Raises:
        MeasureError: If nothing would be left.
    """
    height, width = video.shape[1] // factor, video.shape[2] // factor
    if factor < 1 or height < 1 or width < 1:
        raise MeasureError(
            expected=f"frames of at least {factor}×{factor} pixels",
            got=f"{video.shape[1]}×{video.shape[2]}",
            remedy="Use a smaller factor.",
        )
    if factor == 1:
        return video
    how = cv2.INTER_AREA if antialias else cv2.INTER_LINEAR
    is_mask = video.dtype == bool
    levels = video.view(np.uint8) * np.uint8(255) if is_mask else video
    small = np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in levels])
    return small > 127 if is_mask else small


def resample(frames: np.ndarray, *, fps: float, to_fps: float) -> np.ndarray:
    """The video at another frame rate, by the nearest frame in time.

    The published conversion blends neighbouring frames, so that a moving body shows twice; no frame is made up here.

    Args:
        frames: (T, ...).
        fps: Its frame rate.
        to_fps: The wanted frame rate.

    Raises:
        MeasureError: If a frame rate is not positive.
    """
    if not (fps > 0 and to_fps > 0):
        raise MeasureError(expected="positive frame rates", got=(fps, to_fps), remedy="Pass the video's frame rate.")
    wanted = int(np.floor((len(frames) - 1) / fps * to_fps + 1e-9)) + 1
    return frames[np.rint(np.arange(wanted) * fps / to_fps).astype(int)]


def check_video(frames: np.ndarray) -> None:
    """Raises MeasureError unless `frames` is uint8 (T, H, W, 3) with at least one pixel."""
    if getattr(frames, "dtype", None) != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        got = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise MeasureError(expected="uint8 (T, H, W, 3)", got=got, remedy="Convert it with eval.clip.as_frames.")
