"""Physics-IQ's motion masks and its downscaling: where something moves, frame by frame."""

from collections.abc import Iterator

import cv2
import numpy as np

from eval.errors import MeasureError

BLUR_PX = 5
MORPHOLOGY_PX = 5
BACKGROUND_SHARE = 0.3
THRESHOLD_LEVELS = 10
SHRINK = 4
MASK_ON = 255
# How far a moving pixel acts: opening and closing reach two pixels each, twice.
REACH_PX = 8
# Reach of a 5×5 window.
HALF_PX = 2
# Pixels that are masked at once: what fits a core's cache.
BLOCK_PIXELS = 1 << 17


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
    for block, rows, columns, moving in _moving(_luma(frames), threshold):
        masks[block, rows, columns] = moving > 0
    return masks


def condense(frames: np.ndarray, *, factor: int = SHRINK, antialias: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """`shrink(frames)` and `shrink(motion_masks(frames))`, without the full-size masks of all frames in between.

    Args and errors as there.

    Returns:
        uint8 (T, h, w, 3) and bool (T, h, w).
    """
    check_video(frames)
    small = shrink(frames, factor=factor, antialias=antialias)
    masks = np.zeros(small.shape[:3], bool)
    height, width = frames.shape[1:3]
    aligned = height % factor == 0 and width % factor == 0
    for block, rows, columns, moving in _moving(_luma(frames), THRESHOLD_LEVELS):
        # A part of whole blocks shrinks by itself as it does inside the image; blocks that do not tile the image never.
        top, left = (rows.start // factor * factor, columns.start // factor * factor) if aligned else (0, 0)
        bottom, right = (-(-rows.stop // factor) * factor, -(-columns.stop // factor) * factor)
        part = np.zeros(
            (len(moving), (bottom if aligned else height) - top, (right if aligned else width) - left), bool
        )
        part[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = moving > 0
        found = shrink(part, factor=factor, antialias=antialias)
        y, x = top // factor, left // factor
        masks[block, y : y + found.shape[1], x : x + found.shape[2]] = found
    return small, masks


def _luma(frames: np.ndarray) -> np.ndarray:
    count, height, width, _ = frames.shape
    # Luma is pointwise: one call converts all frames, one below the other.
    stacked = np.ascontiguousarray(frames).reshape(count * height, width, 3)
    return cv2.cvtColor(stacked, cv2.COLOR_RGB2GRAY).reshape(count, height, width)


def _moving(luma: np.ndarray, threshold: int) -> Iterator[tuple[slice, slice, slice, np.ndarray]]:
    """What moves in luma (T, H, W), block by block of frames.

    Yields:
        The block's frames, rows and columns, and the masks (n, h, w), 0 or 255, of these; there are none elsewhere.
    """
    # Blur and average are convex combinations, so no mask can arise where luma never spans more than the threshold.
    spans = (luma.max(axis=0) - luma.min(axis=0) > threshold).view(np.uint8)
    arena = _grown_box(spans, BLUR_PX + REACH_PX)
    if arena is None:
        return
    height, width = spans[arena].shape
    at_once = max(1, min(len(luma), BLOCK_PIXELS // (height * width)))
    # Frames lie side by side, mirrored columns between them: long rows, and one call for all.
    mirror = np.pad(np.arange(width), HALF_PX, mode="reflect")
    inside = slice(HALF_PX, HALF_PX + width)
    wide, smooth, level = (np.zeros((height, at_once, width + 2 * HALF_PX), np.uint8) for _ in range(3))
    flat, flat_smooth, flat_level = (a.reshape(height, -1) for a in (wide, smooth, level))
    rounding = np.empty((height, width), np.float32)
    background: np.ndarray | None = None
    for start in range(0, len(luma), at_once):
        block = slice(start, min(start + at_once, len(luma)))
        count = block.stop - block.start
        frames = luma[(block, *arena)].transpose(1, 0, 2)
        wide[:, :count, inside] = frames
        wide[:, :count, :HALF_PX], wide[:, :count, -HALF_PX:] = (
            frames[..., mirror[:HALF_PX]],
            frames[..., mirror[-HALF_PX:]],
        )
        cv2.GaussianBlur(flat, (BLUR_PX, BLUR_PX), 0, dst=flat_smooth)
        for i in range(count):
            if background is None:
                background = smooth[:, 0, inside].astype(np.float64)
                level[:, 0] = smooth[:, 0]
                continue
            cv2.accumulateWeighted(smooth[:, i, inside], background, BACKGROUND_SHARE)
            # Averages of integers often end in .5: the float32 in between decides which way these round.
            rounding[:] = background
            cv2.convertScaleAbs(rounding, dst=level[:, i, inside])
        cv2.absdiff(flat_smooth, flat_level, dst=flat_level)
        cv2.threshold(flat_level, threshold, MASK_ON, cv2.THRESH_BINARY, dst=flat_level)
        moved = level[:, :count, inside]
        # Nothing outside the box of what moves, grown by the reach of opening and closing, can change.
        box = _grown_box(moved.max(axis=1), REACH_PX)
        if box is not None:
            rows, columns = box
            masks = _open_and_close(moved[rows, :, columns])
            yield block, _shifted(rows, arena[0]), _shifted(columns, arena[1]), masks.transpose(1, 0, 2)


def _open_and_close(masks: np.ndarray) -> np.ndarray:
    """Opening, then closing, of masks (h, n, w), with a 5×5 square; what lies outside a mask never decides."""
    square = np.ones((MORPHOLOGY_PX, MORPHOLOGY_PX), np.uint8)
    wide = np.pad(masks, ((0, 0), (0, 0), (HALF_PX, HALF_PX)))
    flat = wide.reshape(len(wide), -1)
    for step, outside in ((cv2.erode, MASK_ON), (cv2.dilate, 0), (cv2.dilate, 0), (cv2.erode, MASK_ON)):
        wide[..., :HALF_PX] = wide[..., -HALF_PX:] = outside
        step(flat, square, dst=flat)
    return wide[..., HALF_PX:-HALF_PX]


def _grown_box(mask: np.ndarray, margin: int) -> tuple[slice, slice] | None:
    """The bounding box of what is on, grown by a margin inside the image; None if nothing is."""
    x, y, w, h = cv2.boundingRect(mask)
    if not w:
        return None
    rows = slice(max(y - margin, 0), min(y + h + margin, mask.shape[0]))
    return rows, slice(max(x - margin, 0), min(x + w + margin, mask.shape[1]))


def _shifted(part: slice, origin: slice) -> slice:
    return slice(part.start + origin.start, part.stop + origin.start)


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
    if factor < 1 or min(height, width) < factor:
        raise MeasureError(
            expected=f"frames of at least {factor}×{factor} pixels",
            got=f"{height}×{width}",
            remedy="Use a smaller factor, at least 1.",
        )
    if factor == 1:
        return video
    how = cv2.INTER_AREA if antialias else cv2.INTER_LINEAR
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
