"""What MuJoCo's solver did between bodies during a frame, gathered from its substeps."""

from typing import Any

import numpy as np

CONTACT_COLUMNS = ("slot_a", "slot_b", "x_m", "y_m", "z_m", "normal_x", "normal_y", "normal_z", "impulse_n_s")
FLOOR, WALL = -1, -2
"""What `slot_b` holds where a body touches the room. Unused rows hold -1 in `slot_a` and 0 elsewhere (NaN would make
Gymnasium's `check_env` find two equal infos different)."""


class Touches:
    """Collects the contacts of one frame, substep by substep.

    Args:
        slot_of_geom: (ngeom,) slot of each geom, `FLOOR` or `WALL`.
        num_slots: Slots of the truth arrays (walker and solids).
    """

    def __init__(self, slot_of_geom: np.ndarray, num_slots: int) -> None:
        self._slot_of_geom, self._num_slots = slot_of_geom, num_slots
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._rows: list[tuple[np.ndarray, ...]] = []
        self._ends: list[int] = [0]

    def look(self, data: Any) -> None:  # noqa: ANN401 - MuJoCo ships no types
        """Notes the contacts of the substep that was just taken."""
        count = 0
        if data.nefc and data.ncon:
            contact = data.contact
            address = contact.efc_address.copy()
            count = len(address)
            # The arrays are views of MuJoCo's memory and change with the next step.
            self._rows.append(
                (contact.geom.copy(), contact.pos.copy(), contact.frame.copy(), address, data.efc_force[address])
            )
        self._ends.append(self._ends[-1] + count)

    def gather(self) -> None:
        """Ends the frame: what `free` and `table` tell is that of the substeps until now."""
        if self._rows:
            geoms, self._points, self._frames, address, force = (
                np.concatenate(parts) for parts in zip(*self._rows, strict=True)
            )
            self._slots = self._slot_of_geom[geoms]
            # A contact without an address is near but not active.
            self._forces = np.where(address >= 0, force, 0.0)

    def free(self) -> np.ndarray:
        """(N,) number of substeps in which nothing acted on each slot."""
        touched = np.zeros((len(self._ends) - 1, self._num_slots - WALL), bool)
        if self._rows:
            active = np.flatnonzero(self._forces > 0.0)
            substep = np.searchsorted(self._ends, active, side="right") - 1
            # The room's numbers are negative and fall behind the slots.
            touched[substep[:, None], self._slots[active]] = True
        return len(touched) - touched[:, : self._num_slots].sum(axis=0)

    def table(self, dt_s: float) -> np.ndarray:
        """Contacts of the frame, one row a touching pair: impulse-weighted mean point and normal, summed impulse."""
        # Every pair of slots, and every slot with the floor and with the walls: nothing is ever cut off.
        num = self._num_slots
        table = np.zeros((num * (num - 1) // 2 + 2 * num, len(CONTACT_COLUMNS)))
        table[:, 0] = -1.0
        if not self._rows:
            return table
        impulse, (first, second) = self._forces * dt_s, self._slots.T
        # The room, if it takes part, is slot_b; the normal points from slot_a into slot_b.
        sign = np.where(first >= second, impulse, -impulse)
        base = num - WALL
        keys = np.maximum(first, second) * base + np.minimum(first, second) - WALL
        total = np.bincount(keys, impulse)
        found = np.flatnonzero(total > 0.0)
        rows = table[: len(found)]
        rows[:, 0], rows[:, 1], rows[:, 8] = found // base, found % base + WALL, total[found]
        for axis in range(3):
            rows[:, 2 + axis] = np.bincount(keys, impulse * self._points[:, axis])[found]
            rows[:, 5 + axis] = np.bincount(keys, sign * self._frames[:, axis])[found]
        rows[:, 2:8] /= rows[:, 8:]
        return table
