"""Draws the solids of a scene from ranges and options."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from envs.bounce.ranges import Ranges, draw, pairs
from envs.bounce.scene import SHAPES, Fixture, Shape, Solid, Vector, gap_m
from envs.errors import SceneError, UnknownNameError

FACTORS: dict[str, str] = {
    "count": "number of objects, the agent not counted",
    "shape": "shape of the objects: one name, or one for each",
    "colour": "colour of the objects: one name, or one for each",
    "radius_m": "radius of the disc of equal area: one number, or one for each object",
    "speed_m_per_s": "initial speed of those that start in motion: one number, or one for each object",
    "density_kg_per_m2": "mass per area: one number, or one for each object",
    "restitution": "of every solid, 0 to 1",
    "friction": "of every solid",
    "gravity_m_per_s2": "strength downwards, or a vector (x, y)",
    "angle_rad": "slope of the ramp, release angle of the pendulum",
}
"""Factors of variation that `reset(options=...)` sets."""

_TRIES = 2000


class Sampler:
    """Draws what a scenario asks for; an option that is given replaces the range.

    Args:
        ranges: Of the scenario and split.
        options: Factors that the caller fixed (a subset of `FACTORS`).
        view_m: Width and height of the view.
        rng: Source of all randomness.
    """

    def __init__(self, ranges: Ranges, options: Mapping[str, Any], view_m: Vector, rng: np.random.Generator) -> None:
        for key in options:
            if key not in FACTORS:
                raise UnknownNameError(kind="factor of variation", name=str(key), known=FACTORS)
        self.ranges, self.options, self.view_m, self.rng = ranges, options, view_m, rng
        self._used = {"count"}
        self.count = self._count()
        self.looks = self._draw_looks()
        self.solids: list[Solid] = []
        self.fixtures: list[Fixture] = []

    def _count(self) -> int:
        listed = [len(v) for k, v in self.options.items() if k != "gravity_m_per_s2" and _is_list(v)]
        count = self.options.get("count", listed[0] if listed else int(self.rng.choice(self.ranges.count)))
        if (
            isinstance(count, bool)
            or not isinstance(count, int | np.integer)
            or count < 0
            or any(n != count for n in listed)
        ):
            raise SceneError(
                expected="one value for each object, and a whole number of objects",
                got=f"count {count!r} and lists of length {listed}",
                remedy="Give every list as many entries as there are objects.",
            )
        return int(count)

    def _draw_looks(self) -> list[tuple[str, Shape]]:
        """Colours and shapes, colours all different while there are enough."""
        free = pairs(self.ranges.shapes, held_out=self.ranges.held_out)
        looks: list[tuple[str, Shape]] = []
        for k in range(self.count):
            colour, shape = self._given("colour", k), self._given("shape", k)
            if shape is not None and shape not in SHAPES:
                raise UnknownNameError(kind="shape", name=str(shape), known=SHAPES)
            fitting = [p for p in free if colour in (None, p[0]) and shape in (None, p[1])]
            if not fitting:
                fitting = [(colour or c, shape or s) for c, s in free]
            unused = [p for p in fitting if p[0] not in [c for c, _ in looks]] or fitting
            c, s = unused[int(self.rng.integers(len(unused)))]
            looks.append((str(c), next(known for known in SHAPES if known == s)))
        return looks

    def _given(self, factor: str, k: int) -> object:
        self._used.add(factor)
        value = self.options.get(factor)
        return value[k] if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else value

    def value(self, factor: str, k: int = 0) -> float:
        """A factor of the k-th object: the option where given, else a draw from the range."""
        given = self._given(factor, k)
        if given is None:
            return draw(getattr(self.ranges, factor), self.rng)
        if isinstance(given, bool) or not isinstance(given, int | float | np.number) or not math.isfinite(given):
            raise SceneError(expected=f"a finite number for {factor}", got=repr(given), remedy=f"{FACTORS[factor]}.")
        return float(given)

    def uniform(self, low: float, high: float) -> float:
        """A number rounded to 0.01."""
        return float(np.round(self.rng.uniform(low, high), 2))

    def gravity(self) -> Vector:
        """Acceleration (x, y)."""
        given = self.options.get("gravity_m_per_s2")
        self._used.add("gravity_m_per_s2")
        if _is_list(given):
            vector = np.asarray(given, dtype=float)
            if vector.shape != (2,):
                raise SceneError(expected="gravity as a number or two", got=given, remedy="Give (x, y) in m/s².")
            return float(vector[0]), float(vector[1])
        strength = self.value("gravity_m_per_s2")
        return 0.0, -strength if strength else 0.0

    def heading(self, speed: float, angle: float | None = None) -> Vector:
        """A velocity of this speed, rounded to 0.001, in a random direction or the given one."""
        turn = self.rng.uniform(0.0, 2.0 * math.pi) if angle is None else angle
        return round(speed * math.cos(turn), 3) + 0.0, round(speed * math.sin(turn), 3) + 0.0

    def material(self) -> dict[str, Any]:
        """Friction and restitution, the same for all solids of a scene."""
        return {"restitution": self.value("restitution"), "friction": self.value("friction")}

    def check_used(self, objects: int) -> None:
        """Checks that the scene that was drawn follows every option.

        Args:
            objects: How many objects the scene has, the agent not counted.

        Raises:
            SceneError: An option made no difference, as no such scene asks for it.
        """
        # Without objects there is nothing that factors of objects could apply to.
        idle = sorted(self.options.keys() - self._used) if self.count else []
        if idle or objects != self.count:
            raise SceneError(
                expected=f"factors that this scenario uses: {', '.join(sorted(self._used))}",
                got=", ".join(idle) or f"count {self.count} for a scene of {objects}",
                remedy="Leave it out, or choose another scenario.",
            )

    def body(self, k: int, position_m: Vector = (0.0, 0.0), **extra: object) -> Solid:
        """The k-th object with its look, size and density; everything else from `extra`."""
        colour, shape = self.looks[k]
        traits: dict[str, Any] = {
            "colour": colour,
            "shape": shape,
            "radius_m": self.value("radius_m", k),
            "density_kg_per_m2": self.value("density_kg_per_m2", k),
            "position_m": position_m,
            "aspect": 2.0 if shape == "capsule" else 1.0,
        }
        return Solid(**{**traits, **extra})

    def place(self, make: Callable[[Vector], Solid], *, gap: float = 0.2) -> Solid:
        """Puts a solid at a free place inside the walls and keeps it.

        Raises:
            SceneError: No free place was found.
        """
        reach = make((0.0, 0.0)).outline.reach_m + gap
        (w, h), others = self.view_m, self.solids
        if 2 * reach < min(w, h):
            for _ in range(_TRIES):
                solid = make((self.uniform(reach, w - reach), self.uniform(reach, h - reach)))
                if all(distance_m(solid, other) >= gap for other in others):
                    others.append(solid)
                    return solid
        raise SceneError(
            expected=f"objects that fit into {w:g} by {h:g} m with {gap:g} m between them",
            got=f"{len(others)} placed and no room for one of reach {reach:.2f} m",
            remedy="Ask for fewer or smaller objects.",
        )


def distance_m(a: Solid, b: Solid) -> float:
    """Gap between two solids as they start; a lower bound of it where they are far apart."""
    far = math.dist(a.position_m, b.position_m) - a.outline.reach_m - b.outline.reach_m
    if far > 0.5:
        return far
    pa, pb = (s.outline.placed(s.position_m, s.angle_rad) for s in (a, b))
    return gap_m(pa, a.outline.radius_m, pb, b.outline.radius_m)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
