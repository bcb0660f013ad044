"""The scenarios of Bounce: each a function from a sampler to a scene.

Positions and velocities are rounded, so that captions state them exactly and short.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np

from envs.bounce.ranges import ranges
from envs.bounce.sampling import Sampler, distance_m
from envs.bounce.scene import VIEW_M, Fixture, Rod, Role, Scene, Solid, Vector
from envs.errors import SceneError, UnknownNameError

AGENT_RADIUS_M = 0.8
AGENT_COLOUR = "black"
FLOOR_M = 0.5
_TRIES = 500


def _uniform(s: Sampler) -> Scene:
    """Straight motion at constant speed; several objects never meet while in view."""
    return _apart(s, lambda k: _launch(s, k, s.rng.uniform(0.0, 2.0 * math.pi)), seconds=4.0)


def _parabola(s: Sampler) -> Scene:
    """Free flight under gravity, thrown towards the middle."""

    def throw(k: int) -> Solid:
        up = s.rng.uniform(-0.2, 1.0)
        return _launch(s, k, up if s.rng.random() < 0.5 else math.pi - up, height=(0.4, 0.8))

    return _apart(s, throw, seconds=4.0)


def _launch(s: Sampler, k: int, angle: float, height: Vector = (0.2, 0.8)) -> Solid:
    """An object that passes the middle third of the view in about a second and a half."""
    w, h = s.view_m
    velocity = s.heading(s.value("speed_m_per_s", k), angle)
    x = w * s.uniform(0.35, 0.65) - 1.5 * velocity[0]
    y = h * s.uniform(*height) - (1.5 * velocity[1] if s.gravity()[1] == 0 else 0.0)
    body = s.body(k, velocity_m_per_s=velocity)
    reach = min(body.outline.reach_m, 0.5 * w, 0.5 * h)
    at = round(float(np.clip(x, reach, w - reach)), 2), round(float(np.clip(y, reach, h - reach)), 2)
    if body.shape == "disc":
        return replace(body, position_m=at)
    return replace(body, position_m=at, angle_rad=s.uniform(0.0, 3.0), angular_velocity_rad_per_s=s.uniform(-1.0, 1.0))


def _apart(s: Sampler, make: Callable[[int], Solid], *, seconds: float) -> Scene:
    """A scene without walls whose solids, all falling alike, stay clear of one another for a time."""
    for _ in range(_TRIES):
        solids = [make(k) for k in range(s.count)]
        if all(_miss(a, b, seconds) for a, b in combinations(solids, 2)):
            return Scene(solids=tuple(solids), gravity_m_per_s2=s.gravity(), walls=False, view_m=s.view_m)
    raise _does_not_fit(s, "objects whose paths stay apart")


def _miss(a: Solid, b: Solid, seconds: float) -> bool:
    """Whether two solids in free flight keep the sum of their reaches between their centres."""
    x = np.subtract(b.position_m, a.position_m)
    v = np.subtract(b.velocity_m_per_s, a.velocity_m_per_s)
    speed2 = float(v @ v)
    time = float(np.clip(-(x @ v) / speed2, 0.0, seconds)) if speed2 > 0 else 0.0
    return float(np.hypot(*(x + time * v))) > a.outline.reach_m + b.outline.reach_m + 0.05


def _collision(s: Sampler) -> Scene:
    """Two elastic objects meet near the middle; further ones stand by and may be hit later."""
    if s.count < 2:
        raise SceneError(expected="at least two objects to collide", got=s.count, remedy="Set count to 2 or more.")
    (w, h), material = s.view_m, s.material()
    for _ in range(_TRIES):
        heading = s.rng.uniform(0.0, 2.0 * math.pi)
        a = s.body(0, velocity_m_per_s=s.heading(s.value("speed_m_per_s", 0), heading), **material)
        turned = heading + math.pi + s.rng.uniform(-0.6, 0.6)
        b = s.body(1, velocity_m_per_s=s.heading(s.value("speed_m_per_s", 1), turned), **material)
        closing = np.subtract(a.velocity_m_per_s, b.velocity_m_per_s)
        speed = float(np.hypot(*closing))
        time = min(s.rng.uniform(2.0, 4.0) / max(speed, 1e-3), 3.0)
        along = math.atan2(closing[1], closing[0]) + s.rng.uniform(-0.7, 0.7)
        middle = np.array([w, h]) * s.rng.uniform(0.4, 0.6, 2)
        total = a.outline.reach_m + b.outline.reach_m
        half = 0.5 * total * np.array([math.cos(along), math.sin(along)])
        a = _moved(a, middle - half - time * np.array(a.velocity_m_per_s))
        b = _moved(b, middle + half - time * np.array(b.velocity_m_per_s))
        if distance_m(a, b) > 0.05 and _inside(a, s.view_m) and _inside(b, s.view_m):
            s.solids[:] = [a, b]
            break
    else:
        raise _does_not_fit(s, "two objects on a course to meet")
    for k in range(2, s.count):
        body = s.body(k, **material)
        s.place(partial(_at, body), gap=0.1)
    return Scene(solids=tuple(s.solids), gravity_m_per_s2=s.gravity(), walls=False, view_m=s.view_m)


def _pendulum(s: Sampler) -> Scene:
    """A bob on a massless rod, released at rest."""
    (w, h), swing = s.view_m, s.value("angle_rad")
    length = s.uniform(4.0, 5.0)
    pivot = (round(w / 2, 2), round(h - 1.5, 2))
    side = 1.0 if s.rng.random() < 0.5 else -1.0
    at = pivot[0] + side * length * math.sin(swing), pivot[1] - length * math.cos(swing)
    bob = s.body(0, (round(at[0], 3), round(at[1], 3)), **s.material())
    return Scene(
        solids=(bob,),
        fixtures=(Fixture(kind="pin", vertices_m=(pivot,), radius_m=0.2),),
        rods=(Rod(solid=0, pivot_m=pivot),),
        gravity_m_per_s2=s.gravity(),
        walls=False,
        view_m=s.view_m,
    )


def _ramp(s: Sampler) -> Scene:
    """A body released on a slope with Coulomb friction, above a floor."""
    (w, _), slope = s.view_m, s.value("angle_rad")
    base = 7.0
    height = round(base * math.tan(slope), 3)
    top, foot = (0.0, round(FLOOR_M + height, 3)), (base, FLOOR_M)
    down, up = np.array([base, -height]), np.array([height, base])
    down, up = down / np.hypot(*down), up / np.hypot(*up)
    lean = round(-math.atan2(height, base), 6)
    body = s.body(0, angle_rad=lean, **s.material())
    corners = body.outline.placed((0.0, 0.0), lean)
    # A hair above the slope: positions are rounded and solids must not start inside it.
    rise = 0.002 - float((corners @ up).min()) + body.outline.radius_m
    start = float(-(corners @ np.array([1.0, 0.0])).min()) + body.outline.radius_m + s.uniform(0.1, 0.6)
    at = np.array(top) + down * (start / down[0]) + up * rise
    ramp = Fixture(kind="ramp", vertices_m=((0.0, FLOOR_M), foot, top))
    scene = Scene(
        solids=(_moved(body, at, digits=3),),
        fixtures=(_floor(w), ramp),
        gravity_m_per_s2=s.gravity(),
        view_m=s.view_m,
    )
    return _mirrored(scene) if s.rng.random() < 0.5 else scene


def _stack(s: Sampler) -> Scene:
    """Bodies on top of one another, each off the centre of the one below: some stacks stand, others fall."""
    (w, _), material = s.view_m, s.material()
    x, y = s.uniform(0.4 * w, 0.6 * w), FLOOR_M
    for k in range(s.count):
        body = s.body(k, **material)
        corners = body.outline.vertices_m
        low, high = corners.min(axis=0) - body.outline.radius_m, corners.max(axis=0) + body.outline.radius_m
        at = (round(x, 2), math.ceil((y - low[1]) * 1000) / 1000)
        s.solids.append(replace(body, position_m=at))
        y = at[1] + float(high[1])
        x += s.rng.uniform(-0.4, 0.4) * float(high[0] - low[0])
    return Scene(solids=tuple(s.solids), fixtures=(_floor(w),), gravity_m_per_s2=s.gravity(), view_m=s.view_m)


def _occluder(s: Sampler) -> Scene:
    """Objects pass behind a screen, each in a lane of its own."""
    w, h = s.view_m
    lane = h / max(s.count, 1)
    widest = 0.0
    for k in range(s.count):
        speed, side = s.value("speed_m_per_s", k), 1.0 if s.rng.random() < 0.5 else -1.0
        body = s.body(k, velocity_m_per_s=(side * speed, 0.0))
        reach = body.outline.reach_m
        if 2 * reach > lane:
            raise _does_not_fit(s, "lanes as wide as the objects")
        room = 0.5 * lane - reach
        y = (k + 0.5) * lane + s.rng.uniform(-room, room)
        x = reach + s.uniform(0.0, 0.5)
        s.solids.append(_moved(body, np.array([x if side > 0 else w - x, y])))
        widest = max(widest, reach)
    half = 0.5 * min(2.0 * widest + s.uniform(0.4, 1.6), 0.45 * w)
    middle = 0.5 * w
    corners = [(middle - half, 0.0), (middle + half, 0.0), (middle + half, h), (middle - half, h)]
    screen = Fixture(kind="occluder", vertices_m=tuple((round(cx, 2), round(cy, 2)) for cx, cy in corners))
    return Scene(solids=tuple(s.solids), fixtures=(screen,), gravity_m_per_s2=s.gravity(), walls=False, view_m=s.view_m)


def _chain(s: Sampler) -> Scene:
    """A row of elastic objects; the first strikes the second, and so on, and walls send them back."""
    (w, h), material = s.view_m, s.material()
    for _ in range(_TRIES):
        bodies = [s.body(k, **material) for k in range(s.count)]
        gaps = [s.uniform(0.1, 0.4) for _ in bodies]
        total = sum(2 * b.outline.reach_m for b in bodies) + sum(gaps)
        if total < w - 0.2:
            break
    else:
        raise _does_not_fit(s, "a row no wider than the view")
    x, y, solids = s.uniform(0.1, max(w - total, 0.11)), s.uniform(0.3 * h, 0.7 * h), []
    for body, gap in zip(bodies, gaps, strict=True):
        reach = body.outline.reach_m
        solids.append(_moved(body, np.array([x + reach, y])))
        x += 2 * reach + gap
    if solids:
        solids[0] = replace(solids[0], velocity_m_per_s=(s.value("speed_m_per_s"), 0.0))
    scene = Scene(solids=tuple(solids), gravity_m_per_s2=s.gravity(), view_m=s.view_m)
    return _mirrored(scene) if s.rng.random() < 0.5 else scene


def _billiards(s: Sampler) -> Scene:
    """An agent among elastic objects between elastic walls: touch the target, avoid the hazard."""
    material = s.material()
    s.place(
        lambda at: Solid(
            shape="disc", colour=AGENT_COLOUR, radius_m=AGENT_RADIUS_M, position_m=at, role="agent", **material
        )
    )
    roles: tuple[Role, ...] = ("target", "hazard")
    for k in range(s.count):
        role = roles[k] if k < len(roles) else "object"
        velocity = s.heading(s.value("speed_m_per_s", k))
        angle = 0.0 if s.looks[k][1] == "disc" else s.uniform(0.0, 3.0)
        body = s.body(k, velocity_m_per_s=velocity, role=role, angle_rad=angle, **material)
        s.place(partial(_at, body))
    return Scene(solids=tuple(s.solids), gravity_m_per_s2=s.gravity(), view_m=s.view_m)


def _floor(width: float) -> Fixture:
    return Fixture(kind="floor", vertices_m=((0.0, 0.0), (width, 0.0), (width, FLOOR_M), (0.0, FLOOR_M)))


def _at(solid: Solid, position_m: Vector) -> Solid:
    return replace(solid, position_m=position_m)


def _moved(solid: Solid, at: np.ndarray, digits: int = 2) -> Solid:
    return replace(solid, position_m=(round(float(at[0]), digits), round(float(at[1]), digits)))


def _mirrored(scene: Scene) -> Scene:
    """The scene as seen in a mirror: left and right exchanged."""
    w = scene.view_m[0]

    def across(point: Vector) -> Vector:
        return round(w - point[0], 6), point[1]

    solids = tuple(
        replace(
            b,
            position_m=across(b.position_m),
            velocity_m_per_s=(-b.velocity_m_per_s[0] + 0.0, b.velocity_m_per_s[1]),
            angle_rad=-b.angle_rad + 0.0,
            angular_velocity_rad_per_s=-b.angular_velocity_rad_per_s + 0.0,
        )
        for b in scene.solids
    )
    fixtures = tuple(replace(f, vertices_m=tuple(across(v) for v in reversed(f.vertices_m))) for f in scene.fixtures)
    return replace(scene, solids=solids, fixtures=fixtures)


def _inside(solid: Solid, view_m: Vector) -> bool:
    reach = solid.outline.reach_m
    return all(reach <= x <= side - reach for x, side in zip(solid.position_m, view_m, strict=True))


def _does_not_fit(s: Sampler, wanted: str) -> SceneError:
    return SceneError(
        expected=f"{wanted} in a view of {s.view_m[0]:g} by {s.view_m[1]:g} m",
        got=f"no such scene in {_TRIES} draws with {s.count} objects and options {dict(s.options)}",
        remedy="Ask for fewer, smaller or slower objects.",
    )


SCENARIOS: dict[str, Callable[[Sampler], Scene]] = {
    "uniform": _uniform,
    "parabola": _parabola,
    "collision": _collision,
    "pendulum": _pendulum,
    "ramp": _ramp,
    "stack": _stack,
    "occluder": _occluder,
    "chain": _chain,
    "billiards": _billiards,
}
"""Scenario name -> what draws its scenes."""

EPISODE_FRAMES: dict[str, int] = {
    "uniform": 32,
    "parabola": 32,
    "collision": 40,
    "pendulum": 100,
    "ramp": 50,
    "stack": 50,
    "occluder": 60,
    "chain": 80,
    "billiards": 200,
}
"""Default length of an episode in frames (a tenth of a second each)."""


def make_scene(
    scenario: str,
    *,
    rng: np.random.Generator,
    split: str = "train",
    options: Mapping[str, object] | None = None,
    view_m: Vector = (VIEW_M, VIEW_M),
) -> Scene:
    """Draws a scene.

    Args:
        scenario: A name of `SCENARIOS`.
        rng: Source of all randomness.
        split: "train" or an out-of-distribution axis, see `envs.bounce.ranges.splits`.
        options: Factors of variation to fix, see `envs.bounce.sampling.FACTORS`.
        view_m: Width and height of the view.

    Raises:
        UnknownNameError: Unknown scenario, split or factor.
        SceneError: The scene cannot exist, or the scenario does not use one of the factors.
    """
    if scenario not in SCENARIOS:
        raise UnknownNameError(kind="scenario", name=str(scenario), known=SCENARIOS)
    sampler = Sampler(ranges(scenario, split), options or {}, view_m, rng)
    scene = SCENARIOS[scenario](sampler)
    sampler.check_used(len(scene.solids) - scene.agent)
    return scene
