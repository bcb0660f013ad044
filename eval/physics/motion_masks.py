"""Physics-IQ's motion masks and its downscaling: where something moves, frame by frame."""

import cv2
import numpy as np

from eval.errors import MeasureError
from eval.physics.running_background import MASK_ON, moving

THRESHOLD_LEVELS = 10
SHRINK = 4
# Pixels whose colours fit a core's second cache.
READ_PIXELS = 1 << 16


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
    masks = np.zeros(frames.shape[:3], bool)
    for block, rows, columns, found in moving(_read(frames), threshold):
        masks[block, rows, columns] = found > 0
    return masks


def condense(frames: np.ndarray, *, factor: int = SHRINK, antialias: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """`shrink(frames)` and `shrink(motion_masks(frames))`, without the full-size masks of all frames in between.

    Args and errors as there.

    Returns:
        uint8 (T, h, w, 3) and bool (T, h, w).
    """
    check_video(frames)
    height, width = frames.shape[1:3]
    _check_factor(height, width, factor)
    small = np.empty((len(frames), height // factor, width // factor, 3), np.uint8)
    luma = _read(frames, small, factor, antialias=antialias)
    masks = np.zeros(small.shape[:3], bool)
    aligned = height % factor == 0 and width % factor == 0
    for block, rows, columns, found in moving(luma, THRESHOLD_LEVELS):
        # A part of whole blocks shrinks by itself as it does inside the image; blocks that do not tile the image never.
        top, left = (rows.start // factor * factor, columns.start // factor * factor) if aligned else (0, 0)
        bottom, right = (-(-rows.stop // factor) * factor, -(-columns.stop // factor) * factor)
        part = np.zeros((len(found), (bottom if aligned else height) - top, (right if aligned else width) - left), bool)
        part[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = found > 0
        shrunk = shrink(part, factor=factor, antialias=antialias)
        y, x = top // factor, left // factor
        masks[block, y : y + shrunk.shape[1], x : x + shrunk.shape[2]] = shrunk
    return small, masks


def _read(
    frames: np.ndarray, small: np.ndarray | None = None, factor: int = 1, *, antialias: bool = False
) -> np.ndarray:
    """Luma (T, H, W) of frames (T, H, W, 3); fills `small` with the shrunk frames while the same pixels are at hand."""
    count, height, width, _ = frames.shape
    luma = np.empty((count, height, width), np.uint8)
    # Luma is pointwise, and blocks that tile the image do not straddle frames: all frames are one tall picture.
    tall, tall_luma = np.ascontiguousarray(frames).reshape(-1, width, 3), luma.reshape(-1, width)
    tiled = small is not None and factor > 1 and height % factor == 0 and width % factor == 0
    step = max(1, READ_PIXELS // width // factor) * factor
    for start in range(0, len(tall), step):
        part = tall[start : start + step]
        cv2.cvtColor(part, cv2.COLOR_RGB2GRAY, dst=tall_luma[start : start + step])
        if small is not None and tiled:
            target = small.reshape(-1, *small.shape[2:])[start // factor : (start + len(part)) // factor]
            cv2.resize(part, target.shape[1::-1], dst=target, interpolation=_interpolation(antialias))
    if small is not None and not tiled:
        small[:] = shrink(frames, factor=factor, antialias=antialias)
    return luma


def _interpolation(antialias: bool) -> int:  # noqa: FBT001 - private, one argument
    return cv2.INTER_AREA if antialias else cv2.INTER_LINEAR


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
    height, width = video.shape[1:3]
    _check_factor(height, width, factor)
    if factor == 1:
        return video
    how = _interpolation(antialias)
    is_mask = video.dtype == bool
    levels = video.view(np.uint8) * np.uint8(MASK_ON) if is_mask else video
    size = (width // factor, height // factor)
    if height % factor == 0 and width % factor == 0:
        # Blocks do not straddle frames: one call shrinks all frames, one below the other.
        stacked = np.ascontiguousarray(levels).reshape(-1, *levels.shape[2:])
        small = cv2.resize(stacked, (size[0], len(stacked) // factor), interpolation=how)
        small = small.reshape(len(video), size[1], *small.shape[1:])
    else:
        small = np.stack([cv2.resize(frame, size, interpolation=how) for frame in levels])
    return small > MASK_ON // 2 if is_mask else small


def _check_factor(height: int, width: int, factor: int) -> None:
    if factor < 1 or min(height, width) < factor:
        raise MeasureError(
            expected=f"frames of at least {factor}×{factor} pixels",
            got=f"{height}×{width}",
            remedy="Use a smaller factor, at least 1.",
        )


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
