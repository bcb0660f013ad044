"""The truth of a Bounce frame as arrays of fixed shape."""

from collections.abc import Sequence

import numpy as np

from envs.bounce.contacts import Contact
from envs.bounce.render import Drawing
from envs.bounce.scene import Solid
from envs.bounce.world import WorldState, moment_kg_m2

CONTACT_COLUMNS = (
    "slot_a",
    "slot_b",
    "x_m",
    "y_m",
    "normal_x",
    "normal_y",
    "impulse_x_n_s",
    "impulse_y_n_s",
    "time_s",
)
"""Columns of `truth["contacts"]`: one row for each pair of bodies that touched since the last frame. `slot_b` is -1 - k
for the k-th static body (`Scene.static_names`). The normal points from a to b and the impulse, summed over the frame,
acts on b (a received the opposite). `time_s` is that of the first touch, from the start of the frame. Unused rows hold
-1 in `slot_a` and 0 elsewhere (NaN would make Gymnasium's `check_env` find two equal infos different)."""


def contact_rows(contacts: list[Contact], capacity: int) -> np.ndarray:
    """Contacts as an array (capacity, 9), padded as `CONTACT_COLUMNS` says."""
    rows = np.zeros((capacity, len(CONTACT_COLUMNS)))
    rows[len(contacts) :, 0] = -1.0
    assert len(contacts) <= capacity
    if contacts:
        rows[: len(contacts)] = [(c.a, c.b, *c.point_m, *c.normal, *c.impulse_n_s, c.time_s) for c in contacts]
    return rows


def capacity(slots: int, scene_statics: int) -> int:
    """The largest possible number of contacts in a frame: every pair once."""
    return slots * (slots - 1) // 2 + slots * scene_statics


class Truth:
    """Builds truth dictionaries.

    Args:
        solids: In slot order.
        slots: N, at least the number of solids.
        contacts: M, rows of the contact array.
    """

    def __init__(self, solids: Sequence[Solid], slots: int, contacts: int) -> None:
        self.n, self.slots, self.contacts = len(solids), slots, contacts
        self._mass = np.zeros(slots)
        self._mass[: self.n] = [s.mass_kg for s in solids]
        self._moment = np.array([moment_kg_m2(s) for s in solids])
        self._present = np.arange(slots) < self.n

    def __call__(
        self, state: WorldState, drawing: Drawing, contacts: list[Contact], gravity_m_per_s2: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The truth of one frame; slots without a solid hold zeros."""
        n, slots, mass = self.n, self.slots, self._mass[: self.n]
        gravity = np.array(gravity_m_per_s2, dtype=float)
        h, w = drawing.segmentation.shape
        position, velocity, momentum = np.zeros((3, slots, 2))
        angle, spin = np.zeros((2, slots))
        energy, centroid = np.zeros((2, slots, 2))
        masks = drawing.full_masks
        if slots > n:
            masks = np.concatenate([masks, np.zeros((slots - n, h, w), bool)])
        position[:n], velocity[:n] = state.position_m, state.velocity_m_per_s
        angle[:n], spin[:n] = state.angle_rad, state.angular_velocity_rad_per_s
        momentum[:n] = mass[:, None] * velocity[:n]
        squared = velocity[:n, 0] ** 2 + velocity[:n, 1] ** 2
        energy[:n, 0] = 0.5 * (mass * squared + self._moment * spin[:n] ** 2)
        energy[:n, 1] = -mass * (position[:n] @ gravity)
        centroid[:n] = drawing.centroid_px
        return {
            "present": self._present.copy(),
            "segmentation": drawing.segmentation,
            "mass_kg": self._mass.copy(),
            "contacts": contact_rows(contacts, self.contacts),
            "position_m": position,
            "velocity_m_per_s": velocity,
            "angle_rad": angle,
            "angular_velocity_rad_per_s": spin,
            "centroid_px": centroid,
            "full_masks": masks,
            "energy_j": energy,
            "momentum_kg_m_per_s": momentum,
            "gravity_m_per_s2": gravity,
        }
