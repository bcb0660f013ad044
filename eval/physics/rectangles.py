"""Few rectangles around the cells of a grid that matter, so that work on images can leave the others out."""

from typing import NamedTuple

import numpy as np

# What one more rectangle costs, in cells of eight pixels: about the time of two calls of OpenCV.
CALL_CELLS = 1 << 11


class Rectangle(NamedTuple):
    """Rows top to bottom and columns left to right, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def area(self) -> int:
        """Cells."""
        return self.height * self.width


def cover(cells: np.ndarray, *, split: bool = True) -> list[Rectangle]:
    """Disjoint rectangles that hold all cells bool (H, W) that are on; one if not `split`; none if no cell is on.

    A rectangle is cut in two, along the line that saves most, as long as that saves more than `CALL_CELLS`.
    """
    levels = cells.view(np.uint8)
    rows, columns = np.flatnonzero(levels.max(axis=1)), np.flatnonzero(levels.max(axis=0))
    if not len(rows):
        return []
    whole = Rectangle(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    if not split:
        return [whole]
    inside = cells[whole.top : whole.bottom, whole.left : whole.right]
    (row_area, row), (column_area, column) = _best_cut(inside), _best_cut(inside.T)
    if whole.area - min(row_area, column_area) <= CALL_CELLS:
        return [whole]
    first, second = (
        (inside[:row], inside[row:]) if row_area <= column_area else (inside[:, :column], inside[:, column:])
    )
    down, right = (row, 0) if row_area <= column_area else (0, column)
    return [_moved(r, whole.top, whole.left) for r in cover(first)] + [
        _moved(r, whole.top + down, whole.left + right) for r in cover(second)
    ]


def _best_cut(cells: np.ndarray) -> tuple[int, int]:
    """Area of the boxes above and below the best row to cut at, and that row; the first and last row hold a cell."""
    height, width = cells.shape
    if height < 2:
        return height * width, 0
    any_on = cells.view(np.uint8).max(axis=1) > 0
    left = np.where(any_on, cells.argmax(axis=1), width)
    right = np.where(any_on, width - cells[:, ::-1].argmax(axis=1), 0)
    row = np.arange(height)
    end = np.maximum.accumulate(np.where(any_on, row + 1, 0))
    start = np.minimum.accumulate(np.where(any_on, row, height)[::-1])[::-1]
    above = (np.maximum.accumulate(right) - np.minimum.accumulate(left)) * end
    below = np.maximum.accumulate(right[::-1])[::-1] - np.minimum.accumulate(left[::-1])[::-1]
    area = above[:-1] + (below * (height - start))[1:]
    best = int(area.argmin())
    return int(area[best]), best + 1


def _moved(r: Rectangle, down: int, right: int) -> Rectangle:
    return Rectangle(r.top + down, r.bottom + down, r.left + right, r.right + right)
