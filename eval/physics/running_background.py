"""Physics-IQ's background model: what differs from a running average of luma, without averaging where nothing can.

The published code averages every pixel of every frame. The average is exact here too, in the same order and precision,
but only of pixels that can pass the threshold in this part of the video or later; in most videos these are few.
"""

from collections.abc import Iterator

import cv2
import numpy as np

BLUR_PX = 5
MORPHOLOGY_PX = 5
SHARE = 0.3
MASK_ON = 255
# How far a moving pixel acts: opening and closing reach two pixels each, twice. No more than a unit.
REACH_PX = 8
# Reach of a 5×5 window.
HALF_PX = 2
# Pixels that are treated at once: they and their averages fit a core's second cache.
BLOCK_PIXELS = 1 << 18
# Frames of this size are blurred one by one; smaller ones side by side, which saves calls.
LARGE_PIXELS = 1 << 15
# Older frames together weigh 0.7^26 in the average: less than a fortieth of a level.
MEMORY_FRAMES = 25
FORGOTTEN_LEVELS = 0.025
# Pixels are picked in runs of so many, as one 64-bit word.
UNIT = 8
# Units in a whole number of vector registers: OpenCV rounds the average through float32 there, but not in a remainder.
REGISTERS = 8

Found = tuple[slice, slice, slice, np.ndarray]


def moving(luma: np.ndarray, threshold: int) -> Iterator[Found]:
    """What moves in luma uint8 (T, H, W), block by block of frames.

    Yields:
        The block's frames, rows and columns, and the masks (n, h, w), 0 or 255, of these; there are none elsewhere.
    """
    count, height, width = luma.shape
    at_once = max(1, min(count, BLOCK_PIXELS // (height * width)))
    length = at_once * -(-MEMORY_FRAMES // at_once)
    area: _Area | None = None
    for number, units in enumerate(_units(luma, length, threshold)):
        if not len(units):
            return
        area = _Area(units, (height, width), at_once, area)
        stop = min((number + 1) * length, count)
        for start in range(number * length, stop, at_once):
            block = slice(start, min(start + at_once, stop))
            found = area.advance(luma[block], threshold)
            if found is not None:
                yield block, *found


def _units(luma: np.ndarray, length: int, threshold: int) -> Iterator[np.ndarray]:
    """For each `length` frames: the units of pixels that can pass the threshold in these or later, row by row.

    A frame differs from the average, which holds 0.3 of the frame itself, by at most 0.7 of the pixel's range.
    """
    parts = [luma[s : s + length] for s in range(0, len(luma), length)]
    high, low = [p.max(axis=0) for p in parts], [p.min(axis=0) for p in parts]
    least = int(np.ceil((threshold + 0.5 - FORGOTTEN_LEVELS) / (1.0 - SHARE)))
    square = np.ones((BLUR_PX, BLUR_PX), np.uint8)
    height, width = luma.shape[1:]
    later = np.zeros((height, -(-width // UNIT) * UNIT), np.uint8)
    found = []
    for i in reversed(range(len(parts))):
        before = max(i - 1, 0)
        span = np.maximum(high[i], high[before]) - np.minimum(low[i], low[before])
        # Blurred values are convex combinations of their neighbours', so their range is no larger than the largest.
        later[:, :width] |= np.asarray(cv2.dilate((span >= least).view(np.uint8), square), np.uint8)
        found.append(np.flatnonzero(later.view(np.uint64) != 0))
    return reversed(found)


class _Area:
    """The units of pixels whose average matters, brought forward block by block of frames.

    Args:
        units: Sorted indices of runs of eight pixels, row by row.
        size: Height and width of the frames.
        at_once: Frames in a block.
        before: The area of the frames before, which contains this one; None at the video's start.
    """

    def __init__(self, units: np.ndarray, size: tuple[int, int], at_once: int, before: "_Area | None") -> None:
        self.size = size
        self.units = np.pad(units, (0, -len(units) % REGISTERS), mode="edge")
        self.row, self.column = np.divmod(self.units, -(-size[1] // UNIT))
        self.rows, columns, self.columns = self._box(np.arange(len(self.units)))
        per_row = columns.stop - columns.start
        self.at = (self.row - self.rows.start) * per_row + self.column - columns.start
        shape = at_once, self.rows.stop - self.rows.start, per_row * UNIT
        self.smooth, self.marked = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        # Empty at the video's start: the first frame is the first background.
        self.background = np.empty((1, 0))
        if before is not None:
            kept = before.background.reshape(-1, UNIT)[np.searchsorted(before.units, self.units)]
            self.background = kept.reshape(1, -1)

    def advance(self, frames: np.ndarray, threshold: int) -> tuple[slice, slice, np.ndarray] | None:
        """Averages luma (n, H, W); returns rows, columns and masks (n, h, w) of what moves, None if nothing does."""
        count = len(frames)
        width = self.columns.stop - self.columns.start
        _blur(frames[:, self.rows, self.columns], self.smooth[:count, :, :width])
        smooth = np.take(self._words(self.smooth, count), self.at, axis=1).view(np.uint8)
        level = np.empty_like(smooth)
        first = 0
        if not self.background.size:
            self.background, level[0], first = smooth[:1].astype(np.float64), smooth[0], 1
        for i in range(first, count):
            cv2.accumulateWeighted(smooth[i : i + 1], self.background, SHARE)
            cv2.convertScaleAbs(self.background, dst=level[i : i + 1])
        cv2.absdiff(smooth, level, dst=level)
        cv2.threshold(level, threshold, MASK_ON, cv2.THRESH_BINARY, dst=level)
        marks = level.view(np.uint64)
        on = np.flatnonzero((marks[0] if count == 1 else np.bitwise_or.reduce(marks, axis=0)) != 0)
        if not len(on):
            return None
        self._words(self.marked, count)[:, self.at] = marks
        # Nothing outside the box of what moves, grown by the reach of opening and closing, can change.
        rows, _, columns = self._box(on)
        moved = self.marked[:count, _within(rows, self.rows), _within(columns, self.columns)]
        return rows, columns, _open_and_close(moved)

    def _box(self, chosen: np.ndarray) -> tuple[slice, slice, slice]:
        """Rows, columns of units and columns of pixels around some of the units, with room for what they can reach."""
        height, width = self.size
        row, column = self.row[chosen], self.column[chosen]
        rows = slice(max(int(row[0]) - REACH_PX, 0), min(int(row[-1]) + 1 + REACH_PX, height))
        left, right = max(int(column.min()) - 1, 0), min(int(column.max()) + 2, -(-width // UNIT))
        return rows, slice(left, right), slice(left * UNIT, min(right * UNIT, width))

    @staticmethod
    def _words(pixels: np.ndarray, count: int) -> np.ndarray:
        return pixels[:count].view(np.uint64).reshape(count, -1)


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def _blur(frames: np.ndarray, out: np.ndarray) -> None:
    """5×5 Gaussian blur of uint8 (n, h, w), each frame by itself."""
    height, width = frames.shape[1:]
    if height * width >= LARGE_PIXELS:
        for frame, target in zip(frames, out, strict=True):
            # Reading a copy in the cache is faster than reading the video row by row.
            target[:] = frame
            cv2.GaussianBlur(target, (BLUR_PX, BLUR_PX), 0, dst=target)
        return
    # Side by side, mirrored columns between them: long rows, and one call for all.
    wide = np.empty((height, len(frames), width + 2 * HALF_PX), np.uint8)
    wide[..., HALF_PX:-HALF_PX] = frames.transpose(1, 0, 2)
    mirror = np.pad(np.arange(width), HALF_PX, mode="reflect") + HALF_PX
    for x in (*range(HALF_PX), *range(width + HALF_PX, width + 2 * HALF_PX)):
        wide[..., x] = wide[..., mirror[x]]
    flat = wide.reshape(height, -1)
    cv2.GaussianBlur(flat, (BLUR_PX, BLUR_PX), 0, dst=flat)
    out[:] = wide[..., HALF_PX:-HALF_PX].transpose(1, 0, 2)


def _open_and_close(masks: np.ndarray) -> np.ndarray:
    """Opening, then closing, of masks (n, h, w), with a 5×5 square; what lies outside a mask never decides."""
    square = np.ones((MORPHOLOGY_PX, MORPHOLOGY_PX), np.uint8)
    count, height, width = masks.shape
    wide = np.empty((height, count, width + 2 * HALF_PX), np.uint8)
    wide[..., HALF_PX:-HALF_PX] = masks.transpose(1, 0, 2)
    flat = wide.reshape(height, -1)
    for step, outside in ((cv2.erode, MASK_ON), (cv2.dilate, 0), (cv2.dilate, 0), (cv2.erode, MASK_ON)):
        wide[..., :HALF_PX] = wide[..., -HALF_PX:] = outside
        step(flat, square, dst=flat)
    return wide[..., HALF_PX:-HALF_PX].transpose(1, 0, 2)
