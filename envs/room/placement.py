"""Geometry of placing solids: orientations and discs that must not overlap."""

from dataclasses import dataclass, field

import numpy as np

from envs.errors import SceneError

_TRIES = 100


def quaternion_about_z(angle_rad: float) -> tuple[float, float, float, float]:
    """Quaternion (w, x, y, z) of a turn about the vertical."""
    return float(np.cos(angle_rad / 2)), 0.0, 0.0, float(np.sin(angle_rad / 2))


def quaternion_lying(axis_angle_rad: float) -> tuple[float, float, float, float]:
    """Quaternion that lays the z axis of a solid on the floor, pointing along heading `axis_angle_rad`."""
    # A turn by 90 degrees about the horizontal axis at right angles to the heading.
    half = np.sqrt(0.5)
    return float(half), float(-half * np.sin(axis_angle_rad)), float(half * np.cos(axis_angle_rad)), 0.0


def random_quaternion(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Quaternion of a rotation drawn uniformly (Shoemake, 1992)."""
    q = rng.normal(size=4)
    q /= np.linalg.norm(q)
    return float(q[0]), float(q[1]), float(q[2]), float(q[3])


@dataclass
class Placement:
    """Discs on the floor of a room that keep clear of one another.

    Attributes:
        length_m, width_m: Floor, centred on the origin.
        gap_m: Least distance between discs and to the walls.
        discs: (x, y, radius) placed so far.
    """

    length_m: float
    width_m: float
    gap_m: float = 0.08
    discs: list[tuple[float, float, float]] = field(default_factory=list)

    def fits(self, x: float, y: float, radius_m: float) -> bool:
        """Whether a disc is inside the room and clear of the others."""
        inside = max(abs(x) - self.length_m / 2, abs(y) - self.width_m / 2) + radius_m + self.gap_m <= 0.0
        return inside and all(np.hypot(x - a, y - b) >= radius_m + r + self.gap_m for a, b, r in self.discs)

    def place(self, rng: np.random.Generator, radius_m: float) -> tuple[float, float]:
        """Draws a free spot uniformly and takes it.

        Raises:
            SceneError: If no spot is found: the disc does not fit.
        """
        span = np.array([self.length_m, self.width_m]) / 2 - radius_m - self.gap_m
        if (span >= 0.0).all():
            for x, y in rng.uniform(-span, span, size=(_TRIES, 2)):
                if self.fits(x, y, radius_m):
                    self.discs.append((float(x), float(y), radius_m))
                    return float(x), float(y)
        raise SceneError(
            expected=f"room for a disc of radius {radius_m:.2f} m beside {len(self.discs)} others",
            got=f"a floor of {self.length_m:.2f} m x {self.width_m:.2f} m with no free spot found",
            remedy="Use fewer or smaller objects, or a larger room.",
        )
