"""What is in a room, as values: solids, lights, the walker's start. Checked on construction, equal by value."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from envs.captions import COLOURS, choose, wording
from envs.errors import SceneError, UnknownNameError

SHAPES = ("sphere", "box", "cylinder", "capsule", "ellipsoid")

FRAME_S = 0.1
WALKER_RADIUS_M = 0.30
WALKER_HEIGHT_M = 1.50
EYE_HEIGHT_M = 1.20

_VECTORS = {
    "size_m": 3,
    "position_m": 3,
    "quaternion": 4,
    "velocity_m_per_s": 3,
    "angular_velocity_rad_per_s": 3,
}


def _check_vector(name: str, value: object, length: int) -> None:
    array = np.asarray(value)
    if array.shape != (length,) or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise SceneError(expected=f"{name} as {length} finite numbers", got=value, remedy="Give metres and seconds.")


@dataclass(frozen=True, kw_only=True)
class Solid:
    """One coloured solid.

    Attributes:
        shape: One of `SHAPES`.
        colour: One of `COLOURS`.
        size_m: Three numbers. Sphere: radius, twice unused. Box, ellipsoid: half axes. Cylinder, capsule: radius and
            half length of the (straight) axis, then unused.
        position_m: (3,) centre of mass.
        quaternion: (4,) orientation w, x, y, z.
        velocity_m_per_s: (3,) linear velocity at the start.
        angular_velocity_rad_per_s: (3,) angular velocity at the start, world frame.
        density_kg_per_m3: Density; the shape gives the mass.
    """

    shape: str
    colour: str
    size_m: tuple[float, float, float]
    position_m: tuple[float, float, float]
    quaternion: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    velocity_m_per_s: tuple[float, float, float] = (0.0, 0.0, 0.0)
    angular_velocity_rad_per_s: tuple[float, float, float] = (0.0, 0.0, 0.0)
    density_kg_per_m3: float = 60.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise UnknownNameError(kind="shape", name=str(self.shape), known=SHAPES)
        if self.colour not in COLOURS:
            raise UnknownNameError(kind="colour", name=str(self.colour), known=COLOURS)
        for name, length in _VECTORS.items():
            _check_vector(name, getattr(self, name), length)
        if not (min(self.size_m) >= 0.02 and max(self.size_m) <= 5.0):
            raise SceneError(expected="size_m in [0.02, 5]", got=self.size_m, remedy="Give half sizes in metres.")
        if abs(np.linalg.norm(self.quaternion) - 1.0) > 1e-6:
            raise SceneError(expected="a unit quaternion", got=self.quaternion, remedy="Divide it by its norm.")
        if not 1.0 <= self.density_kg_per_m3 <= 1e5:
            raise SceneError(
                expected="density_kg_per_m3 in [1, 1e5]", got=self.density_kg_per_m3, remedy="Wood has about 600."
            )

    @property
    def name(self) -> str:
        """Colour and shape, "red sphere"."""
        return f"{self.colour} {self.shape}"

    def in_words(self, rng: np.random.Generator | None = None) -> str:
        """Colour and shape in varied words; without a generator the plainest."""
        # In space a box is no square, which the vocabulary of the plane also offers.
        noun = choose(("box", "block"), rng) if self.shape == "box" else wording(self.shape, rng)
        return f"{wording(self.colour, rng)} {noun}"

    @property
    def radius_m(self) -> float:
        """Radius of the bounding sphere."""
        a, b, c = self.size_m
        if self.shape == "sphere":
            return a
        if self.shape == "capsule":
            return a + b
        if self.shape == "cylinder":
            return float(np.hypot(a, b))
        return float(np.linalg.norm(self.size_m)) if self.shape == "box" else max(a, b, c)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A whole room.

    Attributes:
        room_m: Length (x), width (y) and height (z) of the room, centred on the origin in x and y.
        solids: The solids, slot 1 first (slot 0 is the walker).
        lights_m: Positions of the point lights.
        light_power: Scale of their light.
        texture_seed: Seed of all textures.
        start_m: (x, y) of the walker.
        yaw_rad, pitch_rad: Its gaze at the start.
        target: Slot of the solid to walk to, or None.
        gravity_m_per_s2: (3,) gravity.
    """

    room_m: tuple[float, float, float]
    solids: tuple[Solid, ...]
    lights_m: tuple[tuple[float, float, float], ...]
    light_power: float = 1.05
    texture_seed: int = 0
    start_m: tuple[float, float] = (0.0, 0.0)
    yaw_rad: float = 0.0
    pitch_rad: float = 0.0
    target: int | None = None
    gravity_m_per_s2: tuple[float, float, float] = (0.0, 0.0, -9.81)

    def __post_init__(self) -> None:
        _check_vector("room_m", self.room_m, 3)
        _check_vector("start_m", self.start_m, 2)
        _check_vector("gravity_m_per_s2", self.gravity_m_per_s2, 3)
        length, width, height = self.room_m
        if min(length, width) < 2.0 or height < WALKER_HEIGHT_M:
            raise SceneError(
                expected=f"a room of at least 2 m x 2 m x {WALKER_HEIGHT_M} m", got=self.room_m, remedy="Enlarge it."
            )
        half = np.array([length, width]) / 2
        if (np.abs(self.start_m) > half - WALKER_RADIUS_M).any():
            raise SceneError(
                expected=f"start_m at least {WALKER_RADIUS_M} m from the walls", got=self.start_m, remedy="Move it in."
            )
        for solid in self.solids:
            self._check_inside(solid, half)
        for light in self.lights_m:
            if (np.abs(light[:2]) >= half).any() or not 0.0 < light[2] < height:
                raise SceneError(expected="lights inside the room", got=light, remedy="Move the light in.")
        if not self.lights_m:
            raise SceneError(expected="at least one light", got="none", remedy="Give lights_m one position.")
        if self.target is not None and not 1 <= self.target <= len(self.solids):
            raise SceneError(
                expected=f"target as a slot in 1..{len(self.solids)} or None", got=self.target, remedy="Name a solid."
            )

    def _check_inside(self, solid: Solid, half: np.ndarray) -> None:
        reach = extent_m(solid)
        position = np.asarray(solid.position_m)
        slack = 1e-6
        if (np.abs(position[:2]) + reach[:2] > half + slack).any() or not (
            reach[2] - slack <= position[2] <= self.room_m[2] - reach[2] + slack
        ):
            raise SceneError(
                expected=f"the {solid.name} inside the room {self.room_m}",
                got=f"centre {solid.position_m} and half extent {tuple(np.round(reach, 3))}",
                remedy="Move it in, shrink it, or enlarge the room.",
            )

    def with_solid(self, slot: int, **changes: Any) -> "Scene":  # noqa: ANN401 - the fields of Solid
        """The scene with fields of the solid in `slot` replaced: the handle for counterfactuals."""
        solids = list(self.solids)
        solids[slot - 1] = replace(solids[slot - 1], **changes)
        return replace(self, solids=tuple(solids))


def rotation_matrix(quaternion: tuple[float, float, float, float]) -> np.ndarray:
    """(3, 3) rotation of a unit quaternion (w, x, y, z)."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def extent_m(solid: Solid) -> np.ndarray:
    """(3,) half extent of a solid along the world axes: its support function along x, y and z."""
    rotation = rotation_matrix(solid.quaternion)
    a, b, _ = solid.size_m
    axis = np.abs(rotation[:, 2])
    if solid.shape == "sphere":
        return np.full(3, a)
    if solid.shape == "capsule":
        return a + b * axis
    if solid.shape == "cylinder":
        return a * np.sqrt(np.maximum(1.0 - axis**2, 0.0)) + b * axis
    scaled = rotation * np.asarray(solid.size_m)
    return np.abs(scaled).sum(axis=1) if solid.shape == "box" else np.linalg.norm(scaled, axis=1)
