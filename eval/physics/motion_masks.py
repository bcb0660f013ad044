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
# Mirrored at the frame's edges, and blind to what lies beyond a crop of the frame.
BORDER = cv2.BORDER_REFLECT_101 | cv2.BORDER_ISOLATED


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
    luma = np.empty(frames.shape[:3], np.uint8)
    for t, frame in enumerate(frames):
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY, dst=luma[t])
    for t, box, mask in _moving(luma, threshold):
        masks[t][box] = mask > 0
    return masks


def condense(frames: np.ndarray, *, factor: int = SHRINK, antialias: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """`shrink(frames)` and `shrink(motion_masks(frames))` in one pass, without the full-size masks in between.

    Args and errors as there.

    Returns:
        uint8 (T, h, w, 3) and bool (T, h, w).
    """
    check_video(frames)
    height, width = _small_size(frames, factor)
    small = np.empty((len(frames), height, width, 3), np.uint8)
    masks = np.zeros((len(frames), height, width), np.uint8)
    luma = np.empty(frames.shape[:3], np.uint8)
    # One pass while the frame is in the cache.
    for t, frame in enumerate(frames):
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY, dst=luma[t])
        small[t] = _shrink_image(frame, factor, antialias=antialias)
    full = np.zeros(frames.shape[1:3], np.uint8)
    for t, box, mask in _moving(luma, THRESHOLD_LEVELS):
        full[box] = mask
        part, small_part = _whole_blocks(box, full.shape, factor)
        masks[t][small_part] = _shrink_image(full[part], factor, antialias=antialias)
        full[box] = 0
    return small, masks > MASK_ON // 2


def _whole_blocks(
    box: tuple[slice, slice], size: tuple[int, ...], factor: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The smallest part that covers a box and shrinks by itself as it does inside the image, before and after."""
    if size[0] % factor or size[1] % factor:
        # Blocks of a size that does not divide the image are not aligned: only the whole shrinks as the whole.
        return (slice(None), slice(None)), (slice(None), slice(None))
    rows, columns = (slice(b.start // factor, -(-b.stop // factor)) for b in box)
    before = slice(rows.start * factor, rows.stop * factor), slice(columns.start * factor, columns.stop * factor)
    return before, (rows, columns)


def _moving(luma: np.ndarray, threshold: int) -> Iterator[tuple[int, tuple[slice, slice], np.ndarray]]:
    """Index, box and mask inside the box (0 or 255) of every frame of luma (T, H, W) in which something moves."""
    lowest, highest = luma[0].copy(), luma[0].copy()
    for image in luma[1:]:
        cv2.min(lowest, image, dst=lowest)
        cv2.max(highest, image, dst=highest)
    # Blur and average are convex combinations, so no mask can arise where luma never spans more than the threshold.
    spans = cv2.threshold(highest - lowest, threshold, MASK_ON, cv2.THRESH_BINARY)[1]
    arena = _grown_box(spans, BLUR_PX + REACH_PX)
    if arena is None:
        return
    square = np.ones((MORPHOLOGY_PX, MORPHOLOGY_PX), np.uint8)
    height, width = spans[arena].shape
    smooth, level = np.empty((height, width), np.uint8), np.empty((height, width), np.uint8)
    background = np.empty((height, width))
    for t, image in enumerate(luma):
        cv2.GaussianBlur(image[arena], (BLUR_PX, BLUR_PX), 0, dst=smooth, borderType=BORDER)
        if t == 0:
            background[:] = smooth
            continue
        cv2.accumulateWeighted(smooth, background, BACKGROUND_SHARE)
        cv2.convertScaleAbs(background, dst=level)
        cv2.absdiff(smooth, level, dst=level)
        cv2.threshold(level, threshold, MASK_ON, cv2.THRESH_BINARY, dst=level)
        # Nothing outside the moving box, grown by the reach of opening and closing, can change.
        box = _grown_box(level, REACH_PX)
        if box is None:
            continue
        opened = cv2.morphologyEx(level[box], cv2.MORPH_OPEN, square)
        if opened.any():
            yield t, _offset(box, arena), cv2.morphologyEx(opened, cv2.MORPH_CLOSE, square)


def _grown_box(mask: np.ndarray, margin: int) -> tuple[slice, slice] | None:
    """The bounding box of what is on, grown by a margin inside the image; None if nothing is."""
    x, y, w, h = cv2.boundingRect(mask)
    if not w:
        return None
    rows = slice(max(y - margin, 0), min(y + h + margin, mask.shape[0]))
    return rows, slice(max(x - margin, 0), min(x + w + margin, mask.shape[1]))


def _offset(box: tuple[slice, slice], origin: tuple[slice, slice]) -> tuple[slice, slice]:
    rows, columns = (slice(b.start + o.start, b.stop + o.start) for b, o in zip(box, origin, strict=True))
    return rows, columns


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
    _small_size(video, factor)
    if factor == 1:
        return video
    is_mask = video.dtype == bool
    levels = video.view(np.uint8) * np.uint8(MASK_ON) if is_mask else video
    small = np.stack([_shrink_image(frame, factor, antialias=antialias) for frame in levels])
    return small > MASK_ON // 2 if is_mask else small


def _shrink_image(image: np.ndarray, factor: int, *, antialias: bool) -> np.ndarray:
    if factor == 1:
        return image
    how = cv2.INTER_AREA if antialias else cv2.INTER_LINEAR
    return cv2.resize(image, (image.shape[1] // factor, image.shape[0] // factor), interpolation=how)


def _small_size(video: np.ndarray, factor: int) -> tuple[int, int]:
    if factor < 1 or min(video.shape[1:3]) < factor:
        raise MeasureError(
            expected=f"frames of at least {factor}×{factor} pixels",
            got=f"{video.shape[1]}×{video.shape[2]}",
            remedy="Use a smaller factor, at least 1.",
        )
    return video.shape[1] // factor, video.shape[2] // factor


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
