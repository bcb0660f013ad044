"""Physics-IQ's motion masks and its downscaling: where something moves, frame by frame."""

import cv2
import numpy as np

from eval.errors import MeasureError
from eval.physics.running_background import MASK_ON, PART_FRAMES, UNIT, moving

THRESHOLD_LEVELS = 10
SHRINK = 4
# Pixels that are read at once: their colours fit a shared cache.
READ_PIXELS = 1 << 19


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
    for moved in moving(*_scan(np.ascontiguousarray(frames)), threshold):
        masks[moved.frames, moved.rows, moved.columns] = moved.masks > 0
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
    frames = np.ascontiguousarray(frames)
    small = np.empty((len(frames), height // factor, width // factor, 3), np.uint8)
    luma, high, low = _scan(frames, small, factor, antialias=antialias)
    masks = np.zeros(small.shape[:3], bool)
    # A part of whole blocks shrinks by itself as it does inside the image; blocks that do not tile the image never.
    tiled = height % factor == 0 and width % factor == 0 and UNIT % factor == 0
    for moved in moving(luma, high, low, THRESHOLD_LEVELS):
        if not tiled:
            whole = np.zeros((moved.frames.stop - moved.frames.start, height, width), bool)
            whole[:, moved.rows, moved.columns] = moved.masks > 0
            masks[moved.frames] = shrink(whole, factor=factor, antialias=antialias)
            continue
        rows, columns = (slice(s.start // factor, s.stop // factor) for s in (moved.rows, moved.columns))
        gap, row_count = UNIT // factor, rows.stop - rows.start
        flat = moved.side_by_side.reshape(len(moved.side_by_side), -1)
        if factor > 1:
            flat = cv2.resize(flat, (flat.shape[1] // factor, row_count), interpolation=_interpolation(antialias))
        levels = flat.reshape(row_count, moved.side_by_side.shape[1], -1)[..., gap : gap + columns.stop - columns.start]
        masks[moved.frames, rows, columns] = levels.transpose(1, 0, 2) > MASK_ON // 2
    return small, masks


def _scan(
    frames: np.ndarray, small: np.ndarray | None = None, factor: int = 1, *, antialias: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Luma uint8 (T, H, W); its largest and smallest value of each pixel in each part of the video, (parts, H, W).

    Fills `small` with the shrunk frames while the same pixels are at hand.
    """
    count, height, width, _ = frames.shape
    luma = np.empty(frames.shape[:3], np.uint8)
    high, low = (np.empty((-(-count // PART_FRAMES), height, width), np.uint8) for _ in range(2))
    tiled = small is not None and height % factor == 0 and width % factor == 0
    # Several small frames at once, or some rows of a large one: what is at hand stays in the cache.
    at_once = min(PART_FRAMES, 1 << (max(1, READ_PIXELS // (height * width)).bit_length() - 1))
    step = height if at_once > 1 else min(height, max(1, READ_PIXELS // width // factor) * factor)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        for start in range(0, count, at_once):
            part, first = start // PART_FRAMES, start % PART_FRAMES == 0
            given = frames[start : start + at_once, rows]
            # Luma is pointwise, and blocks that tile the image do not straddle frames: one tall picture.
            tall = given.reshape(-1, width, 3)
            grey = luma[start : start + at_once, rows]
            cv2.cvtColor(tall, cv2.COLOR_RGB2GRAY, dst=grey.reshape(-1, width))
            _widen(high[part, rows], low[part, rows], grey, first=first)
            if small is not None and tiled:
                target = small[start : start + at_once, top // factor : rows.stop // factor].reshape(
                    -1, *small.shape[2:]
                )
                if factor == 1:
                    target[:] = tall
                else:
                    cv2.resize(tall, target.shape[1::-1], dst=target, interpolation=_interpolation(antialias))
    if small is not None and not tiled:
        small[:] = shrink(frames, factor=factor, antialias=antialias)
    return luma, high, low


def _widen(high: np.ndarray, low: np.ndarray, luma: np.ndarray, *, first: bool) -> None:
    """Takes luma (n, h, w) into the ranges (h, w), in place; begins them with it if it is the `first`."""
    most, least = (luma[0], luma[0]) if len(luma) == 1 else (luma.max(axis=0), luma.min(axis=0))
    if first:
        high[:], low[:] = most, least
    else:
        cv2.max(high, most, dst=high)
        cv2.min(low, least, dst=low)


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
