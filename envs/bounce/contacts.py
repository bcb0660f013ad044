"""What pymunk's solver did between bodies during a frame, gathered from its substeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import calcsize

import pymunk
from pymunk import batch

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
_ROW_BYTES = _INTS * calcsize("P")


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
        number: pymunk's id of each body -> its slot, or a negative number for those that do not move.
    """

    def __init__(self, number: Mapping[int, int]) -> None:
        self._number = number
        self._buffer = batch.Buffer()
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._buffer.clear()
        self._steps: list[int] = []
        self._ends: list[int] = []

    def look(self, space: pymunk.Space, step: int) -> bool:
        """Notes what touches after a substep, and tells whether anything does."""
        buffer, ends = self._buffer, self._ends
        # pymunk appends to a buffer that is not cleared.
        batch.get_space_arbiters(space, _FIELDS, buffer)
        end = len(buffer.int_buf())
        if end == (ends[-1] if ends else 0):
            return False
        ends.append(end)
        self._steps.append(step)
        return True

    def contacts(self, dt_s: float) -> list[Contact]:
        """One contact for each pair of bodies, in order of first touch."""
        ints, floats = self._read()
        found: dict[tuple[int, int], Contact] = {}
        row = 0
        for step, end in zip(self._steps, self._ends, strict=True):
            for k in range(row, end // _ROW_BYTES):
                one, two = ints[_INTS * k], ints[_INTS * k + 1]
                key = (one, two) if one < two else (two, one)
                contact = found.get(key)
                if contact is None:
                    a, b, x, y, nx, ny, px, py, _ = self._oriented(k, ints, floats)
                    found[key] = Contact(a, b, (px, py), (nx, ny), [x, y], step * dt_s)
                else:
                    sign = 1.0 if contact.b == self._number[one] else -1.0
                    contact.impulse_n_s[0] += sign * floats[_FLOATS * k]
                    contact.impulse_n_s[1] += sign * floats[_FLOATS * k + 1]
            row = end // _ROW_BYTES
        # pymunk lists contacts in the order of memory addresses, which differs from run to run.
        return sorted(found.values(), key=lambda c: (c.time_s, c.a, c.b))

    def overlaps(self, step: int) -> list[tuple[int, int, float, float, float]]:
        """Contacts (a, b, normal x, normal y, depth in metres) after one substep, where bodies overlap."""
        if not self._steps or self._steps[-1] != step:
            return []
        ints, floats = self._read()
        first = self._ends[-2] // _ROW_BYTES if len(self._ends) > 1 else 0
        rows = (self._oriented(k, ints, floats) for k in range(first, self._ends[-1] // _ROW_BYTES))
        return sorted((a, b, nx, ny, -distance) for a, b, _, _, nx, ny, _, _, distance in rows if distance < 0)

    def _read(self) -> tuple[Sequence[int], Sequence[float]]:
        buffer = self._buffer
        return memoryview(buffer.int_buf()).cast("P").tolist(), memoryview(buffer.float_buf()).cast("d").tolist()

    def _oriented(self, k: int, ints: Sequence[int], floats: Sequence[float]) -> tuple:
        """Row k as a, b, impulse on b, normal from a to b, point, distance; a is a slot, the smaller where both are."""
        a, b = self._number[ints[_INTS * k]], self._number[ints[_INTS * k + 1]]
        x, y, nx, ny, *place = floats[_FLOATS * k : _FLOATS * (k + 1)]
        # pymunk's impulse acts on its first body, its normal points away from it.
        if a < 0 or 0 <= b < a:
            return b, a, x, y, -nx, -ny, *place
        return a, b, -x, -y, nx, ny, *place
