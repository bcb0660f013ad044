"""Physics-IQ's background model: what differs from a running average of luma, without averaging where nothing can.

The published code averages every pixel of every frame. The average is exact here too, in the same order and precision,
but only of pixels that can pass the threshold in this part of the video or later; in most videos these are few.
Which these are is told by the range of every pixel over time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from eval.physics.rectangles import Rectangle, cover

BLUR_PX = 5
MORPHOLOGY_PX = 5
SHARE = 0.3
MASK_ON = 255
# Reach of a 5×5 window.
HALF_PX = 2
# Pixels that are treated at once: enough for few calls, and they and their averages fit a shared cache.
BLOCK_PIXELS = 1 << 20
# Frames of this size are blurred one by one; smaller ones side by side, which saves calls.
LARGE_PIXELS = 1 << 16
# Frames of a part of the video that share their active pixels. Older frames together weigh less than 0.7^26 in the
# average: less than a fortieth of a level.
PART_FRAMES = 32
FORGOTTEN_LEVELS = 0.025
# Pixels are picked in runs of so many, as one 64-bit word. How far a moving pixel acts is no more: opening and closing
# reach two pixels each, twice.
UNIT = 8
# Units in a whole number of vector registers: OpenCV rounds the average through float32 there, but not in a remainder.
REGISTERS = 8


class Moved(NamedTuple):
    """What moves in a block of frames, in a part of the image; nothing moves elsewhere.

    Attributes:
        frames: The block's n frames.
        rows: h rows, a multiple of `UNIT` from the top.
        columns: w columns, a multiple of `UNIT` from the left.
        side_by_side: uint8 (h, n, UNIT + w'), 0 or 255: of each frame a gap of `UNIT` columns, then the mask, then what
            rounds w up to a multiple of `UNIT`.
    """

    frames: slice
    rows: slice
    columns: slice
    side_by_side: np.ndarray

    @property
    def masks(self) -> np.ndarray:
        """The masks, uint8 (n, h, w), 0 or 255."""
        width = self.columns.stop - self.columns.start
        return self.side_by_side[..., UNIT : UNIT + width].transpose(1, 0, 2)


def moving(luma: np.ndarray, high: np.ndarray, low: np.ndarray, threshold: int) -> Iterator[Moved]:
    """What moves in a video, block of frames by block.

    Args:
        luma: uint8 (T, H, W).
        high: Largest luma of each pixel in each `PART_FRAMES` frames, uint8 (parts, H, W).
        low: Smallest luma, likewise.
        threshold: Levels by which luma must differ from its running average.
    """
    area: _Area | None = None
    for part, units in enumerate(_units(high, low, threshold)):
        if not units.any():
            return
        area = _Area(units, luma.shape[1:], area)
        stop = min((part + 1) * PART_FRAMES, len(luma))
        for start in range(part * PART_FRAMES, stop, area.at_once):
            block = slice(start, min(start + area.at_once, stop))
            moved = area.advance(luma[block], block, threshold)
            if moved is not None:
                yield moved


def _units(high: np.ndarray, low: np.ndarray, threshold: int) -> Iterator[np.ndarray]:
    """For each part: which units of pixels can pass the threshold in it or later, bool (H, units in a row).

    A frame differs from the average, which holds 0.3 of the frame itself, by at most 0.7 of the pixel's range.
    """
    least = int(np.ceil((threshold + 0.5 - FORGOTTEN_LEVELS) / (1.0 - SHARE)))
    square = np.ones((BLUR_PX, BLUR_PX), np.uint8)
    parts, height, width = high.shape
    later = np.zeros((height, -(-width // UNIT) * UNIT), np.uint8)
    found = []
    for i in reversed(range(parts)):
        before = max(i - 1, 0)
        span = np.maximum(high[i], high[before]) - np.minimum(low[i], low[before])
        # Blurred values are convex combinations of their neighbours', so their range is no larger than the largest.
        later[:, :width] |= np.asarray(cv2.dilate((span >= least).view(np.uint8), square), np.uint8)
        found.append(later.view(np.uint64) != 0)
    return reversed(found)


class _Area:
    """The units of pixels whose average matters, brought forward block by block of frames.

    Args:
        units: Which units, bool (H, units in a row).
        size: Height and width of the frames.
        before: The area of the frames before, which contains this one; None at the video's start.
    """

    def __init__(self, units: np.ndarray, size: tuple[int, int], before: "_Area | None") -> None:
        self.size = size
        self.index = np.flatnonzero(units)
        self.index = np.pad(self.index, (0, -len(self.index) % REGISTERS), mode="edge")
        self.row, self.column = np.divmod(self.index, units.shape[1])
        small = size[0] * size[1] < LARGE_PIXELS
        parts = cover(units, split=not small)
        self.parts = [_grown(r, units.shape) for r in parts]
        # Where each unit lies in the blurred rectangles, one after the other.
        self.at, words = np.zeros(len(self.index), np.intp), 0
        for r, grown in zip(parts, self.parts, strict=True):
            inside = (self.row >= r.top) & (self.row < r.bottom) & (self.column >= r.left) & (self.column < r.right)
            place = (self.row - grown.top) * grown.width + self.column - grown.left
            self.at[inside] = words + place[inside]
            words += grown.area
        at_once = max(1, int(BLOCK_PIXELS // (size[0] * size[1] if small else words * UNIT)))
        self.at_once = min(PART_FRAMES, 1 << (at_once.bit_length() - 1))
        self.smooth = np.zeros((self.at_once, words * UNIT), np.uint8)
        # Empty at the video's start: the first frame is the first background.
        self.background = np.empty((1, 0))
        if before is not None:
            kept = before.background.reshape(-1, UNIT)[np.searchsorted(before.index, self.index)]
            self.background = kept.reshape(1, -1)

    def advance(self, luma: np.ndarray, block: slice, threshold: int) -> Moved | None:
        """Averages luma (n, H, W) of a block of frames; returns what moves in it, None if nothing does."""
        count = len(luma)
        self._blur(luma)
        smooth = np.take(self.smooth[:count].view(np.uint64), self.at, axis=1).view(np.uint8)
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
        on = np.flatnonzero(marks[0] if count == 1 else np.bitwise_or.reduce(marks, axis=0))
        return self._masks(block, marks, on) if len(on) else None

    def _masks(self, block: slice, marks: np.ndarray, on: np.ndarray) -> Moved:
        """Opens and closes the marks uint64 (n, units), which lie in the units `on`."""
        height, width = self.size
        row, column = self.row[on], self.column[on]
        # Nothing outside the box of what moves, grown by the reach of opening and closing, can change.
        top, bottom = max(int(row[0]) // UNIT - 1, 0) * UNIT, min((int(row[-1]) // UNIT + 2) * UNIT, height)
        left, right = max(int(column.min()) - 1, 0), min(int(column.max()) + 2, -(-width // UNIT))
        columns = slice(left * UNIT, min(right * UNIT, width))
        wide = np.zeros((bottom - top, len(marks), 1 + right - left), np.uint64)
        wide[row - top, :, 1 + column - left] = marks[:, on].T
        pixels = wide.view(np.uint8)
        _open_and_close(pixels, columns.stop - columns.start)
        return Moved(block, slice(top, bottom), columns, pixels)

    def _blur(self, luma: np.ndarray) -> None:
        """5×5 Gaussian blur of luma (n, H, W), in the rectangles."""
        count, height, width = luma.shape
        offset = 0
        for r in self.parts:
            part = luma[:, r.top : r.bottom, r.left * UNIT : r.right * UNIT]
            end = offset + r.area * UNIT
            out = self.smooth[:count, offset:end].reshape(count, r.height, -1)[..., : part.shape[2]]
            offset = end
            if height * width < LARGE_PIXELS:
                _blur_side_by_side(part, out)
                continue
            for frame, target in zip(part, out, strict=True):
                # Reading a copy in the cache is faster than reading the video row by row.
                target[:] = frame
                cv2.GaussianBlur(target, (BLUR_PX, BLUR_PX), 0, dst=target)


def _grown(r: Rectangle, size: tuple[int, int]) -> Rectangle:
    """With room for the blur's window, inside an image of `size` rows and columns of units."""
    return Rectangle(
        max(r.top - HALF_PX, 0), min(r.bottom + HALF_PX, size[0]), max(r.left - 1, 0), min(r.right + 1, size[1])
    )


def _blur_side_by_side(luma: np.ndarray, out: np.ndarray) -> None:
    """5×5 Gaussian blur of uint8 (n, h, w), each frame by itself, in one call."""
    height, width = luma.shape[1:]
    # Side by side, mirrored columns between them: long rows, and one call for all.
    wide = np.empty((height, len(luma), width + 2 * HALF_PX), np.uint8)
    wide[..., HALF_PX:-HALF_PX] = luma.transpose(1, 0, 2)
    mirror = np.pad(np.arange(width), HALF_PX, mode="reflect") + HALF_PX
    for x in (*range(HALF_PX), *range(width + HALF_PX, width + 2 * HALF_PX)):
        wide[..., x] = wide[..., mirror[x]]
    flat = wide.reshape(height, -1)
    cv2.GaussianBlur(flat, (BLUR_PX, BLUR_PX), 0, dst=flat)
    out[:] = wide[..., HALF_PX:-HALF_PX].transpose(1, 0, 2)


def _open_and_close(side_by_side: np.ndarray, width: int) -> None:
    """Opening, then closing with a 5×5 square, in place; what lies outside a mask never decides.

    Args:
        side_by_side: As in `Moved`.
        width: Of the masks.
    """
    square = np.ones((MORPHOLOGY_PX, MORPHOLOGY_PX), np.uint8)
    flat = side_by_side.reshape(len(side_by_side), -1)
    for step, outside in ((cv2.erode, MASK_ON), (cv2.dilate, 0), (cv2.dilate, 0), (cv2.erode, MASK_ON)):
        side_by_side[..., :UNIT] = side_by_side[..., UNIT + width :] = outside
        step(flat, square, dst=flat)
