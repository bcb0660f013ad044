"""Scenes drawn from a seed, with factors of variation that can be set one by one."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from envs.captions import COLOURS
from envs.errors import SceneError, UnknownNameError
from envs.room.camera import yaw_pitch_towards
from envs.room.paths import Script
from envs.room.placement import Placement, quaternion_about_z, quaternion_lying, random_quaternion
from envs.room.scene import SHAPES, WALKER_RADIUS_M, Scene, Solid, extent_m

MOTIONS = ("rest", "fall", "roll", "mixed")
_ROLLING = ("sphere", "cylinder", "capsule")
_RANGES = ("num_objects", "size_m", "density_kg_per_m3", "room_m", "room_height_m")
_START_CLEARANCE_M = 0.9
_LAYOUTS = 24


@dataclass(frozen=True, kw_only=True)
class Factors:
    """Factors of variation of a sampled scene; each can be set by name through `reset(options=...)`.

    Attributes:
        num_objects: Least and greatest number of solids.
        shapes, colours: What they are drawn from.
        size_m: Least and greatest half size.
        density_kg_per_m3: Least and greatest density.
        motion: "rest", "fall", "roll", or "mixed" (each solid does one of the three).
        room_m: Least and greatest length and width; the height is drawn from `room_height_m`.
        room_height_m: Least and greatest height.
        num_lights: Number of point lights.
        texture_seed: Seed of the textures, a whole number of at least 0; None draws one.
    """

    num_objects: tuple[int, int] = (3, 6)
    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = tuple(COLOURS)
    size_m: tuple[float, float] = (0.24, 0.44)
    density_kg_per_m3: tuple[float, float] = (30.0, 90.0)
    motion: str = "mixed"
    room_m: tuple[float, float] = (4.6, 6.2)
    room_height_m: tuple[float, float] = (2.5, 3.0)
    num_lights: int = 1
    texture_seed: int | None = None

    def updated(self, options: Mapping[str, Any]) -> "Factors":
        """These factors with the named ones replaced; one number for a range fixes it.

        Raises:
            UnknownNameError: If a name is not a factor.
            SceneError: If a value is out of range.
        """
        known = {f.name for f in fields(self)}
        for name in options:
            if name not in known:
                raise UnknownNameError(kind="factor", name=name, known=known)
        fixed = {k: (v, v) for k, v in options.items() if k in _RANGES and isinstance(v, int | float | np.number)}
        changed = replace(self, **{**options, **fixed})
        changed.check()
        return changed

    def check(self) -> None:
        """Raises SceneError if a factor is out of range, UnknownNameError for an unknown shape, colour or motion."""
        for kind, names, known in (
            ("shape", self.shapes, SHAPES),
            ("colour", self.colours, COLOURS),
            ("motion", (self.motion,), MOTIONS),
        ):
            if not isinstance(names, Collection):
                raise SceneError(expected=f"a list of {kind}s", got=repr(names), remedy=f"Choose among {list(known)}.")
            for name in names:
                if name not in known:
                    raise UnknownNameError(kind=kind, name=str(name), known=known)
        for name in _RANGES:
            try:
                pair = np.asarray(getattr(self, name), float)
            except (TypeError, ValueError):
                pair = np.full(2, np.nan)
            counted = name == "num_objects"
            floor, kind = (0.0, "whole numbers") if counted else (1e-3, "numbers")
            whole = not counted or np.asarray(getattr(self, name)).dtype.kind in "iu"
            if pair.shape != (2,) or not np.isfinite(pair).all() or not floor <= pair[0] <= pair[1] or not whole:
                raise SceneError(
                    expected=f"{name} as (least, greatest), {kind} of at least {floor:g}",
                    got=getattr(self, name),
                    remedy="Give two ascending numbers.",
                )
        if not self.shapes or not self.colours or self.num_objects[1] > len(self.shapes) * len(self.colours):
            raise SceneError(
                expected="at least as many combinations of colour and shape as objects",
                got=f"{len(self.colours)} colours, {len(self.shapes)} shapes, {self.num_objects[1]} objects",
                remedy="Every solid has a name of its own: allow more colours or shapes, or fewer objects.",
            )
        if self.num_lights not in {1, 2, 3}:
            raise SceneError(expected="num_lights of 1, 2 or 3", got=self.num_lights, remedy="Set it to 1.")
        seed = self.texture_seed
        if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
            raise SceneError(
                expected="texture_seed as a whole number of at least 0", got=repr(seed), remedy="Set it to 0."
            )


def sample_room(rng: np.random.Generator, factors: Factors) -> tuple[float, float, float]:
    """Draws length, width and height of a room."""
    factors.check()
    length, width = (float(v) for v in rng.uniform(*factors.room_m, size=2))
    return length, width, float(rng.uniform(*factors.room_height_m))


def sample_scene(
    rng: np.random.Generator, factors: Factors, room_m: tuple[float, float, float], script: Script | None = None
) -> Scene:
    """Draws a scene whose solids do not touch one another, the walls or the walker.

    Args:
        rng: Draws everything that `factors` leaves open.
        factors: Factors of variation.
        room_m: Length, width and height of the room.
        script: A camera path; the walker starts on it and no solid stands in its way.

    Raises:
        SceneError: If the solids do not fit on the floor.
    """
    length, width, _ = room_m
    if script is not None:
        start, yaw, pitch = script.start_m, script.yaw_rad, script.pitch_rad
        track = np.unique(np.round(script.poses()[:, :2, 3], 1), axis=0)
        taken = [(float(x), float(y), WALKER_RADIUS_M) for x, y in track]
    else:
        # Against one end of the room and looking in, so that the first frame shows most of it.
        start = (float(rng.choice([-1.0, 1.0])) * (length / 2 - 0.5), float(rng.uniform(-0.3, 0.3) * width))
        yaw = yaw_pitch_towards(np.array([*start, 0.0]), np.zeros(3))[0] + float(rng.uniform(-0.3, 0.3))
        pitch = float(rng.uniform(-0.25, -0.1))
        taken = [(*start, _START_CLEARANCE_M)]
    count = int(rng.integers(factors.num_objects[0], factors.num_objects[1] + 1))
    names = [(shape, colour) for shape in factors.shapes for colour in factors.colours]
    chosen = [names[i] for i in rng.permutation(len(names))[:count]]
    solids = _furnish(rng, factors, chosen, room_m, taken)
    seed = int(rng.integers(2**31)) if factors.texture_seed is None else factors.texture_seed
    return Scene(
        room_m=room_m,
        solids=solids,
        lights_m=tuple(_sample_light(rng, room_m) for _ in range(factors.num_lights)),
        texture_seed=seed,
        start_m=start,
        yaw_rad=yaw,
        pitch_rad=pitch,
        target=int(rng.integers(1, len(solids) + 1)) if solids else None,
    )


def _furnish(
    rng: np.random.Generator,
    factors: Factors,
    names: list[tuple[str, str]],
    room_m: tuple[float, float, float],
    taken: list[tuple[float, float, float]],
) -> tuple[Solid, ...]:
    """Solids of the given shapes and colours, placed clear of one another.

    A layout that does not work out is drawn anew, with ever fewer solids as far as the factors allow.
    """
    for attempt in range(_LAYOUTS):
        floor = Placement(room_m[0], room_m[1], discs=list(taken))
        try:
            kept = names[: max(factors.num_objects[0], len(names) - attempt // 2)]
            return tuple(_sample_solid(rng, factors, shape, colour, floor, room_m[2]) for shape, colour in kept)
        except SceneError:
            if attempt == _LAYOUTS - 1:
                raise
    raise AssertionError


def _sample_light(rng: np.random.Generator, room_m: tuple[float, float, float]) -> tuple[float, float, float]:
    length, width, height = room_m
    return (
        float(rng.uniform(-0.25, 0.25) * length),
        float(rng.uniform(-0.25, 0.25) * width),
        height - 0.2,
    )


def _sample_solid(
    rng: np.random.Generator, factors: Factors, shape: str, colour: str, floor: Placement, height_m: float
) -> Solid:
    motion = str(rng.choice(("rest", "rest", "rest", "fall", "roll"))) if factors.motion == "mixed" else factors.motion
    size = tuple(float(v) for v in rng.uniform(*factors.size_m, size=3))
    if shape == "sphere":
        size = (size[0], size[0], size[0])
    if shape == "capsule":
        size = (0.75 * size[0], 0.75 * size[0] * float(rng.uniform(0.5, 1.0)), size[2])
    if shape == "ellipsoid":
        # Resting on its shortest axis it is stable, and no other ellipsoid is.
        size = (*sorted(size, reverse=True)[:2], min(size) * 0.85)
    heading = float(rng.uniform(-np.pi, np.pi))
    rolls = motion == "roll" and shape in _ROLLING
    lies = shape == "capsule" or (shape == "cylinder" and rolls)
    solid = Solid(
        shape=shape,
        colour=colour,
        size_m=(size[0], size[1], size[2]),
        position_m=(0.0, 0.0, 0.0),
        quaternion=quaternion_lying(heading) if lies else quaternion_about_z(heading),
        density_kg_per_m3=float(rng.uniform(*factors.density_kg_per_m3)),
    )
    if motion == "fall":
        solid = replace(solid, quaternion=random_quaternion(rng))
    x, y = floor.place(rng, float(np.hypot(*extent_m(solid)[:2])) if shape == "box" else solid.radius_m)
    reach = float(extent_m(solid)[2])
    lift = float(rng.uniform(0.3, 1.0)) * max(height_m - 2 * reach - 0.1, 0.0) if motion == "fall" else 0.0
    solid = replace(solid, position_m=(x, y, reach + min(lift, 1.4)))
    if not rolls:
        return solid
    speed, side = float(rng.uniform(0.4, 1.3)), heading + np.pi / 2
    velocity = (speed * float(np.cos(side)), speed * float(np.sin(side)), 0.0)
    # Rolling without slipping: v = omega x (up * radius).
    spin = (-velocity[1] / size[0], velocity[0] / size[0], 0.0)
    return replace(solid, velocity_m_per_s=velocity, angular_velocity_rad_per_s=spin)
