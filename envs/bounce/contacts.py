"""What pymunk's solver did between bodies during a frame, gathered from its substeps."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pymunk
from pymunk import batch

from envs.bounce.engine import Reader

_FIELDS = (
    batch.ArbiterFields.BODY_A_ID
    | batch.ArbiterFields.BODY_B_ID
    | batch.ArbiterFields.TOTAL_IMPULSE
    | batch.ArbiterFields.NORMAL
    | batch.ArbiterFields.CONTACT_COUNT
    | batch.ArbiterFields.POINT_A_1
    | batch.ArbiterFields.DISTANCE_1
)
_INTS, _FLOATS = 3, 7


@dataclass(slots=True)
class Contact:
    """What two bodies did to one another during one frame.

    Attributes:
        a: Slot of the first body.
        b: Slot of the second, or -1 - k for the k-th of `Scene.static_names`.
        point_m: Where they first touched in this frame.
        normal: Unit vector from a to b at that moment.
        impulse_n_s: On b, summed over the frame (x, y); a received the opposite.
        time_s: Of the first touch, from the start of the frame.
    """

    a: int
    b: int
    point_m: tuple[float, float]
    normal: tuple[float, float]
    impulse_n_s: list[float]
    time_s: float


class ContactLog:
    """Collects the contacts of one frame, substep by substep.

    Args:
        space: Where they occur.
        number: pymunk's id of each body -> its slot, or a negative number for those that do not move.
    """

    def __init__(self, space: pymunk.Space, number: Mapping[int, int]) -> None:
        self._reader = Reader(space, _FIELDS)
        self._ids = np.array(sorted(number), np.uintp)
        self._number = [number[i] for i in self._ids.tolist()]
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._reader.clear()
        self._steps: list[int] = []
        self._ends: list[int] = [0]

    def look(self, step: int) -> bool:
        """Notes what touches after a substep, and tells whether anything does."""
        end = self._reader.read() // _INTS
        if end == self._ends[-1]:
            return False
        self._ends.append(end)
        self._steps.append(step)
        return True

    def contacts(self, dt_s: float) -> list[Contact]:
        """One contact for each pair of bodies, in order of first touch."""
        if not self._steps:
            return []
        count = len(self._ids)
        bodies, floats = self._rows(0)
        low, high = np.minimum(*bodies.T), np.maximum(*bodies.T)
        pair = low * count + high
        # Written back to front, so that the first row of each pair is what stays.
        first = np.full(count**2, -1)
        first[pair[::-1]] = np.arange(len(pair) - 1, -1, -1)
        # pymunk's impulse acts on its first body; summed here is that on the body of the lower id.
        sign = np.where(bodies[:, 0] == low, 1.0, -1.0)
        total = [np.bincount(pair, sign * floats[:, axis]) for axis in (0, 1)]
        found = []
        for key in np.flatnonzero(first >= 0).tolist():
            row = int(first[key])
            a, b, turn, nx, ny, px, py, _ = self._oriented(bodies[row], floats[row])
            turn *= float(sign[row])
            impulse = [turn * float(total[0][key]), turn * float(total[1][key])]
            step = self._steps[bisect_right(self._ends, row) - 1]
            found.append(Contact(a, b, (px, py), (nx, ny), impulse, step * dt_s))
        # pymunk lists contacts in the order of memory addresses, which differs from run to run.
        return sorted(found, key=lambda c: (c.time_s, c.a, c.b))

    def touches(self, step: int) -> bool:
        """Whether anything touched after a substep."""
        return bool(self._steps) and self._steps[-1] == step

    def overlaps(self, step: int) -> list[tuple[int, int, float, float, float]]:
        """Contacts (a, b, normal x, normal y, depth in metres) after one substep, where bodies overlap."""
        if not self.touches(step):
            return []
        bodies, floats = self._rows(self._ends[-2])
        deep = np.flatnonzero(floats[:, -1] < 0.0)
        rows = (self._oriented(bodies[k], floats[k]) for k in deep)
        return sorted((a, b, nx, ny, -distance) for a, b, _, nx, ny, _, _, distance in rows)

    def _rows(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Bodies (R, 2) as indices of `_ids`, and floating-point fields (R, 7), of the rows from `start` on."""
        ids = self._reader.ints().reshape(-1, _INTS)[start:, :2]
        return np.searchsorted(self._ids, ids), self._reader.floats().reshape(-1, _FLOATS)[start:]

    def _oriented(self, bodies: np.ndarray, row: np.ndarray) -> tuple:
        """A row as a, b, sign of the impulse on b, normal from a to b, point, distance.

        a is a slot, the smaller where both are.
        """
        a, b = (self._number[k] for k in bodies.tolist())
        _, _, nx, ny, *place = row.tolist()
        # pymunk's normal points away from its first body.
        if a < 0 or 0 <= b < a:
            return b, a, 1.0, -nx, -ny, *place
        return a, b, -1.0, nx, ny, *place
