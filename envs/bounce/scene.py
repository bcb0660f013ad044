"""A Bounce scene as plain data: solids, fixtures, rods, gravity. Checked on construction, equal by value, picklable."""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np

from envs.captions import COLOURS
from envs.errors import SceneError, UnknownNameError

Shape = Literal["disc", "box", "triangle", "capsule"]
Role = Literal["agent", "target", "hazard", "object"]
SHAPES: tuple[Shape, ...] = ("disc", "box", "triangle", "capsule")
ROLES: tuple[Role, ...] = ("agent", "target", "hazard", "object")
PALETTE: dict[str, tuple[int, int, int]] = {**COLOURS, "black": (25, 25, 25), "grey": (150, 150, 150)}
FRAME_S = 0.1
VIEW_M = 10.0
OVERLAP_M = 1e-6
WALLS = ("left wall", "right wall", "floor wall", "ceiling wall")
Vector = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Solid:
    """One rigid body at the start of an episode.

    Attributes:
        shape: "disc", "box", "triangle" (equilateral) or "capsule".
        colour: A name of `PALETTE`.
        radius_m: Radius of the disc of equal area, so that equal radius and density mean equal mass in every shape.
        position_m: Centre of mass.
        velocity_m_per_s: Of the centre of mass.
        angle_rad: Counter-clockwise.
        angular_velocity_rad_per_s: Counter-clockwise.
        density_kg_per_m2: Mass per area.
        friction: Coulomb coefficient; that of a contact is the product of both sides' (floors, ramps and pins have 1,
            the walls 0).
        restitution: 0 to 1; that of a contact is the product of both sides' (everything fixed has 1).
        role: "agent" obeys actions, "target" is to be touched, "hazard" avoided.
        aspect: Width over height of a box, length over width of a capsule (at least 1).
    """

    shape: Shape
    colour: str
    radius_m: float
    position_m: Vector
    velocity_m_per_s: Vector = (0.0, 0.0)
    angle_rad: float = 0.0
    angular_velocity_rad_per_s: float = 0.0
    density_kg_per_m2: float = 1.0
    friction: float = 0.0
    restitution: float = 1.0
    role: Role = "object"
    aspect: float = 1.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise UnknownNameError(kind="shape", name=str(self.shape), known=SHAPES)
        if self.role not in ROLES:
            raise UnknownNameError(kind="role", name=str(self.role), known=ROLES)
        if self.colour not in PALETTE:
            raise UnknownNameError(kind="colour", name=str(self.colour), known=PALETTE)
        ranges = {
            "radius_m": (self.radius_m, 1e-3, 1e3),
            "density_kg_per_m2": (self.density_kg_per_m2, 1e-6, 1e6),
            "friction": (self.friction, 0.0, 10.0),
            "restitution": (self.restitution, 0.0, 1.0),
            "aspect": (self.aspect, 1.0 if self.shape == "capsule" else 0.1, 10.0),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise SceneError(
                    expected=f"{name} of a {self.shape} in [{low:g}, {high:g}]", got=value, remedy="Choose one inside."
                )
        motion = (
            *self.position_m,
            *self.velocity_m_per_s,
            self.angle_rad,
            self.angular_velocity_rad_per_s,
        )
        if len(motion) != 6 or not all(math.isfinite(v) for v in motion):
            raise SceneError(
                expected="finite position and velocity of two components each, finite angle and angular velocity",
                got=motion,
                remedy="Give numbers in metres, seconds and radians.",
            )

    @property
    def area_m2(self) -> float:
        """Area, the same for every shape of this radius."""
        return math.pi * self.radius_m**2

    @property
    def mass_kg(self) -> float:
        """Area times density."""
        return self.density_kg_per_m2 * self.area_m2

    @cached_property
    def outline(self) -> "Outline":
        """The convex outline about the centre of mass."""
        return outline(self)


@dataclass(frozen=True)
class Outline:
    """A convex outline: the polygon `vertices_m` (K, 2), counter-clockwise, widened by `radius_m`.

    A disc is one vertex and a capsule two, both with a radius; boxes and triangles have radius 0.
    """

    vertices_m: np.ndarray
    radius_m: float

    @property
    def reach_m(self) -> float:
        """Distance from the centre of mass to the farthest point."""
        return float(np.linalg.norm(self.vertices_m, axis=1).max()) + self.radius_m

    def placed(self, position_m: Vector, angle_rad: float) -> np.ndarray:
        """Vertices (K, 2) in the world."""
        c, s = math.cos(angle_rad), math.sin(angle_rad)
        return self.vertices_m @ np.array([[c, s], [-s, c]]) + np.asarray(position_m)


def outline(solid: Solid) -> Outline:
    """Outline of a solid about its centre of mass, with the area of a disc of its radius."""
    if solid.shape == "disc":
        return Outline(np.zeros((1, 2)), solid.radius_m)
    if solid.shape == "box":
        half_h = 0.5 * math.sqrt(solid.area_m2 / solid.aspect)
        half_w = half_h * solid.aspect
        return Outline(np.array([[-half_w, -half_h], [half_w, -half_h], [half_w, half_h], [-half_w, half_h]]), 0.0)
    if solid.shape == "triangle":
        reach = math.sqrt(4.0 * solid.area_m2 / (3.0 * math.sqrt(3.0)))
        turns = np.deg2rad([90.0, 210.0, 330.0])
        return Outline(reach * np.stack([np.cos(turns), np.sin(turns)], axis=1), 0.0)
    # Area of a capsule of half-width q and aspect a: q² (π + 4 (a − 1)).
    q = math.sqrt(solid.area_m2 / (math.pi + 4.0 * (solid.aspect - 1.0)))
    half = q * (solid.aspect - 1.0)
    return Outline(np.array([[-half, 0.0], [half, 0.0]]), q)


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """A thing that never moves: a convex polygon, or a disc (one vertex and a radius).

    Attributes:
        kind: "floor", "ramp", "pin" collide; an "occluder" only hides what is behind it.
        vertices_m: Corners in the world, counter-clockwise.
        radius_m: Widens the polygon.
        colour: A name of `PALETTE`.
    """

    kind: Literal["floor", "ramp", "pin", "occluder"]
    vertices_m: tuple[Vector, ...]
    radius_m: float = 0.0
    colour: str = "grey"

    def __post_init__(self) -> None:
        if self.colour not in PALETTE:
            raise UnknownNameError(kind="colour", name=str(self.colour), known=PALETTE)
        if not np.isfinite(np.asarray(self.vertices_m, float)).all() or not self.vertices_m:
            raise SceneError(
                expected="finite corners of a fixture", got=self.vertices_m, remedy="Give (x, y) pairs in metres."
            )


@dataclass(frozen=True, kw_only=True)
class Rod:
    """A massless rod from a fixed pivot to the centre of a solid, free to turn at both ends."""

    solid: int
    pivot_m: Vector


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that decides how an episode starts and which laws hold in it.

    Attributes:
        solids: The moving bodies, in slot order; an agent, where there is one, comes first.
        fixtures: Bodies that never move. Occluders are drawn over the solids.
        rods: Pendulum rods.
        gravity_m_per_s2: Acceleration (x, y).
        walls: Whether frictionless elastic walls stand at the four borders of the view.
        view_m: Width and height of the region that the frame shows, from (0, 0).

    Raises:
        SceneError: Solids overlap one another, a fixture or a wall, or references are broken.
    """

    solids: tuple[Solid, ...]
    fixtures: tuple[Fixture, ...] = ()
    rods: tuple[Rod, ...] = ()
    gravity_m_per_s2: Vector = (0.0, 0.0)
    walls: bool = True
    view_m: Vector = (VIEW_M, VIEW_M)

    def __post_init__(self) -> None:
        if not all(math.isfinite(g) for g in self.gravity_m_per_s2):
            raise SceneError(expected="finite gravity", got=self.gravity_m_per_s2, remedy="Give m/s² along x and y.")
        for k, solid in enumerate(self.solids):
            if solid.role == "agent" and k != 0:
                raise SceneError(expected="the agent in slot 0", got=f"slot {k}", remedy="Put the agent first.")
        self._check_names()
        for rod in self.rods:
            if not 0 <= rod.solid < len(self.solids):
                raise SceneError(expected="a rod to an existing solid", got=rod.solid, remedy="Use its slot number.")
        self._check_fit()

    def _check_names(self) -> None:
        """The task's caption must name one object only."""
        looks = [(solid.colour, solid.shape) for solid in self.solids]
        for k, solid in enumerate(self.solids):
            if self.agent and solid.role in ("target", "hazard") and looks.count(looks[k]) > 1:
                raise SceneError(
                    expected=f"a {solid.role} that its colour and shape tell from all others",
                    got=f"{looks.count(looks[k])} times {solid.colour} {solid.shape}",
                    remedy="Give the objects different colours or shapes.",
                )

    def _check_fit(self) -> None:
        placed = [s.outline.placed(s.position_m, s.angle_rad) for s in self.solids]
        remedy = "Use fewer or smaller objects, or place them apart."
        if self.walls:
            for k, (solid, corners) in enumerate(zip(self.solids, placed, strict=True)):
                low, high = corners - solid.outline.radius_m, corners + solid.outline.radius_m
                if (low < -OVERLAP_M).any() or (high > np.asarray(self.view_m) + OVERLAP_M).any():
                    raise SceneError(
                        expected=f"solids inside the walls of {self.view_m[0]:g} by {self.view_m[1]:g} m",
                        got=f"the {solid.colour} {solid.shape} (slot {k}) at {solid.position_m}",
                        remedy=remedy,
                    )
        for i, j in combinations(range(len(self.solids)), 2):
            a, b = self.solids[i], self.solids[j]
            if gap_m(placed[i], a.outline.radius_m, placed[j], b.outline.radius_m) < -OVERLAP_M:
                raise SceneError(
                    expected="solids that do not overlap",
                    got=f"the {a.colour} {a.shape} (slot {i}) over the {b.colour} {b.shape} (slot {j})",
                    remedy=remedy,
                )
        for fixture in self.fixtures:
            for k, (solid, corners) in enumerate(zip(self.solids, placed, strict=True)):
                around = np.asarray(fixture.vertices_m, float)
                gap = gap_m(corners, solid.outline.radius_m, around, fixture.radius_m)
                if fixture.kind != "occluder" and gap < -OVERLAP_M:
                    raise SceneError(
                        expected=f"solids outside the {fixture.kind}",
                        got=f"the {solid.colour} {solid.shape} (slot {k}) overlapping it by {-gap:.3g} m",
                        remedy=remedy,
                    )

    @property
    def static_names(self) -> tuple[str, ...]:
        """What does not move and can be touched, in the order of contact numbers -1, -2, ..."""
        return (*(f.kind for f in self.fixtures if f.kind != "occluder"), *(WALLS if self.walls else ()))

    @property
    def agent(self) -> bool:
        """Whether slot 0 obeys actions."""
        return bool(self.solids) and self.solids[0].role == "agent"

    def slot(self, role: Role) -> int | None:
        """The first slot with this role."""
        return next((k for k, solid in enumerate(self.solids) if solid.role == role), None)


def gap_m(a: np.ndarray, a_radius: float, b: np.ndarray, b_radius: float) -> float:
    """Distance between two widened convex polygons (K, 2), negative where they overlap.

    Separating axes: edge normals and, for the rounded corners, the direction between the nearest vertices. The value is
    exact where a vertex meets an edge or a vertex; an overlap is never missed, and never reported for a real gap.
    """
    axes = [_normals(a), _normals(b)]
    between = (b[None] - a[:, None]).reshape(-1, 2)
    length = np.linalg.norm(between, axis=1)
    axes.append(between[length > 0] / length[length > 0, None])
    directions = np.concatenate(axes)
    if not len(directions):
        return -(a_radius + b_radius)
    directions = np.concatenate([directions, -directions])
    separation = (b @ directions.T).min(axis=0) - (a @ directions.T).max(axis=0)
    return float(separation.max()) - a_radius - b_radius


def _normals(vertices: np.ndarray) -> np.ndarray:
    """Unit normals (E, 2) of the edges of a polygon; both ways along a segment."""
    if len(vertices) < 2:
        return np.zeros((0, 2))
    edges = np.roll(vertices, -1, axis=0) - vertices
    length = np.linalg.norm(edges, axis=1)
    edges = edges[length > 0] / length[length > 0, None]
    return np.stack([edges[:, 1], -edges[:, 0]], axis=1)
