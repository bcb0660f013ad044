"""Violations of law in Bounce: matched pairs of recordings, see `envs.violations`.

The scenes are two elastic objects under gravity between walls, but for `pass_through` (two discs that meet in free
space) and `time_reversal` (one object that bounces and loses energy). Everything random is drawn before the severity
acts, so one seed is one scene at every severity. Objects that are shown where they are not (copies, frozen or vanished
ones) touch nothing else while it matters, so the rest of the scene stays lawful. The onset is the first frame that can
look different.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from envs.bounce.contacts import Contact
from envs.bounce.film import Track, run, shoot
from envs.bounce.render import view_m
from envs.bounce.scenarios import make_scene
from envs.bounce.scene import FRAME_S, SHAPES, Scene
from envs.bounce.world import World, WorldState
from envs.errors import SceneError
from envs.violations import Record

FRAMES = 32
TELEPORT_M = 3.0
COPY_M = 2.5
IMPULSE_M_PER_S = 4.0
REVERSAL_LOSS = 0.6
# Nothing else comes nearer than this to what is pushed or slowed in mid-air, so that nothing can have done it.
ALONE_M = 0.5
_TRIES = 400
Size = tuple[int, int]
Pair = tuple[Record, Record]


def _arena(rng: np.random.Generator, size: Size, gravity: float = 2.5, count: int = 2) -> Scene:
    """Billiards without the agent and its task."""
    options = {"count": count, "gravity_m_per_s2": gravity}
    scene = make_scene("billiards", rng=rng, options=options, view_m=view_m(size))
    return replace(scene, solids=tuple(replace(s, role="object") for s in scene.solids[1:]))


def _find(
    make: Callable[[], Scene],
    accept: Callable[[Track], bool],
    violation: str,
) -> Track:
    """The lawful run of the first scene that suits a violation."""
    for _ in range(_TRIES):
        track = run(make(), FRAMES)
        if accept(track):
            return track
    raise SceneError(
        expected=f"a scene that shows {violation}", got=f"none in {_TRIES} draws", remedy="Use another seed or size."
    )


def _onset(rng: np.random.Generator, low: int = 10, high: int = 20) -> int:
    return int(rng.integers(low, high))


def _free(track: Track, slot: int, first: int, last: int) -> bool:
    """Whether a solid touches nothing from frame `first` to frame `last`."""
    return not any(first < t <= last for t, _ in track.touched(slot))


def _alone(track: Track, slot: int, first: int, last: int) -> bool:
    """Whether a solid touches no other solid from frame `first` to frame `last` (walls do not count)."""
    return not any(first < t <= last and other >= 0 for t, other in track.touched(slot))


def _apart(track: Track, slot: int, first: int, last: int) -> bool:
    """Whether a solid keeps `ALONE_M` from all others and from the walls from frame `first` to frame `last`."""
    reach = np.array([s.outline.reach_m for s in track.scene.solids])
    path = np.array([s.position_m for s in track.states[first : last + 1]])
    away = np.linalg.norm(path - path[:, slot : slot + 1], axis=2) - reach[slot] - reach
    own = path[:, slot]
    walls = np.minimum(own, np.array(track.scene.view_m) - own) - reach[slot]
    return bool((np.delete(away, slot, axis=1) > ALONE_M).all() and (walls > ALONE_M).all())


def _lawful(track: Track, size: Size, slots: int | None = None) -> Record:
    return shoot(track, size, slots=slots)


def _changed(track: Track, onset: int, edit: Callable[[World], None]) -> Track:
    """The same scene with an edit of the world when frame `onset` has been reached."""
    return run(track.scene, FRAMES, change=lambda t, world: edit(world) if t == onset else None)


def _moved(world: World, slot: int, **change: np.ndarray) -> None:
    """Sets vectors of one solid's state."""
    state = world.state.copy()
    for name, value in change.items():
        getattr(state, name)[slot] = value
    world.state = state


# ---------------------------------------------------------------------- what is where


def teleport(rng: np.random.Generator, severity: float, size: Size) -> Pair:
    """An object in flight jumps by severity x 3 m and flies on."""
    onset, turn = _onset(rng), rng.uniform(0.0, 2.0 * np.pi)
    jump = TELEPORT_M * np.array([np.cos(turn), np.sin(turn)])

    def accept(track: Track) -> bool:
        return _free(track, 0, onset - 2, onset + 2) and _clear(track, onset, jump)

    track = _find(lambda: _arena(rng, size), accept, "a teleport")
    at = track.states[onset].position_m[0] + severity * jump
    violated = _changed(track, onset, lambda world: _moved(world, 0, position_m=at))
    return _lawful(track, size), shoot(violated, size, onset=onset)


def _clear(track: Track, t: int, jump: np.ndarray) -> bool:
    """Whether the first solid, moved by any share of `jump` at frame t, stays inside and off the others."""
    scene, state = track.scene, track.states[t]
    reach = [s.outline.reach_m for s in scene.solids]
    path = state.position_m[0] + np.linspace(0.0, 1.0, 13)[:, None] * jump
    inside = (path > reach[0]).all() and (path < np.array(scene.view_m) - reach[0]).all()
    others = state.position_m[1:]
    gaps = np.linalg.norm(path[:, None] - others[None], axis=2) - reach[0] - np.array(reach[1:])
    return bool(inside and (gaps > 0.1).all())


def vanish(rng: np.random.Generator, severity: float, size: Size) -> Pair:
    """An object fades to an opacity of 1 - severity, at once, and stays so."""
    onset = _onset(rng)
    track = _find(lambda: _arena(rng, size), lambda t: _alone(t, 0, onset - 1, FRAMES), "a vanishing object")
    violated = run(track.scene, FRAMES)
    violated.opacity[onset:, 0] = 1.0 - severity
    return _lawful(track, size), shoot(violated, size, onset=onset)


def appear(rng: np.random.Generator, severity: float, size: Size) -> Pair:
    """An object has an opacity of 1 - severity until it comes into being."""
    onset = _onset(rng)
    track = _find(lambda: _arena(rng, size), lambda t: _alone(t, 0, 0, onset), "an object from nothing")
    violated = run(track.scene, FRAMES)
    violated.opacity[:onset, 0] = 1.0 - severity
    return _lawful(track, size), shoot(violated, size, onset=onset)


def duplicate(rng: np.random.Generator, severity: float, size: Size) -> Pair:
    """A copy splits off an object, severity x 2.5 m away, and flies in parallel.

    Up to a severity of 0.1 it also fades in, since two copies in one place would sharpen the edges of the object.
    """
    onset, turn = _onset(rng, 16, 22), rng.uniform(0.0, 2.0 * np.pi)
    away = COPY_M * np.array([np.cos(turn), np.sin(turn)])

    def accept(track: Track) -> bool:
        later = range(onset, FRAMES)
        return _free(track, 0, onset - 1, FRAMES) and all(_clear(track, t, away) for t in later)

    track = _find(lambda: _arena(rng, size), accept, "a duplicate")
    violated = run(track.scene, FRAMES)
    violated.dress((*track.scene.solids, track.scene.solids[0]))
    violated.states = [_with_copy(s, severity * away if t >= onset else 0.0) for t, s in enumerate(track.states)]
    violated.opacity[:onset, -1] = 0.0
    violated.opacity[onset:, -1] = min(1.0, 10.0 * severity)
    slots = len(violated.solids)
    return _lawful(track, size, slots), shoot(violated, size, onset=onset, slots=slots)


def _with_copy(state: WorldState, away: np.ndarray | float) -> WorldState:
    arrays = {k: np.concatenate([v, v[:1]]) for k, v in vars(state).items() if isinstance(v, np.ndarray)}
    arrays["position_m"][-1] += away
    return replace(state, **arrays)


# ---------------------------------------------------------------------- what it is


def colour_swap(rng: np.random.Generator, severity: float, size: Size) -> Pair:
    """Two objects exchange their colours, up to a share of severity."""
    onset = _onset(rng)
    track = _find(lambda: _arena(rng, size), lambda t: _distinct(t.scene), "a change of colour")
    violated = run(track.scene, FRAMES)
    own = violated.colour[onset:].copy()
    violated.colour[onset:] = (1.0 - severity) * own + severity * own[:, ::-1]
    return _lawful(track, size), shoot(violated, size, onset=onset)


def _distinct(scene: Scene) -> bool:
    return len({s.colour for s in scene.solids}) == len(scene.solids)


def shape_swap(rng: np.random.Generator, severity: float, size: Size) -> Pair:
    """An object turns into another shape of equal area, up to a share of severity (one fades into the other)."""
    onset = _onset(rng)
    track = _find(lambda: _arena(rng, size), lambda t: _alone(t, 0, onset - 1, FRAMES), "a change of shape")
    solids = track.scene.solids
    shapes = [s for s in SHAPES if s not in (solids[0].shape, "capsule")]
    other = replace(solids[0], shape=shapes[int(rng.integers(len(shapes)))])
    violated = run(track.scene, FRAMES)
    violated.morph_into = (other, *solids[1:])
    violated.morph[onset:, 0] = severity
    return _lawful(track, size), shoot(violated, size, onset=onset)


# ---------------------------------------------------------------------- how it moves


def pass_through(rng: np.random.Generator, severity: float, size: Size) -> Pair:
    """Two discs on a course to collide sink into one another: they collide as if smaller by a share of severity."""

    def accept(track: Track) -> bool:
        a, b = track.scene.solids
        x, v = np.subtract(b.position_m, a.position_m), np.subtract(b.velocity_m_per_s, a.velocity_m_per_s)
        # A hit that is not quite central, in the middle of the clip: at severity 1 the two points miss one another.
        miss = abs(x[0] * v[1] - x[1] * v[0]) / max(float(np.hypot(*v)), 1e-9)
        times = [t for t, _ in track.touched(0)]
        return bool(times) and 6 <= times[0] <= 20 and miss > 0.1

    options = {"count": 2, "shape": "disc"}
    track = _find(
        lambda: make_scene("collision", rng=rng, options=options, view_m=view_m(size)), accept, "a pass-through"
    )
    shrink = max(1.0 - severity, 1e-2)
    small = tuple(
        replace(s, radius_m=s.radius_m * shrink, density_kg_per_m2=s.density_kg_per_m2 / shrink**2)
        for s in track.scene.solids
    )
    violated = run(track.scene, FRAMES, world=World(replace(track.scene, solids=small)))
    return _lawful(track, size), shoot(violated, size, onset=track.touched(0)[0][0])


def gravity_change(rng: np.random.Generator, severity: float, size: Size) -> Pair:
    """Gravity changes in flight by a factor of 1 - 2 severity, so it is turned round at 1."""
    onset = _onset(rng)

    def accept(track: Track) -> bool:
        return all(_free(track, k, onset - 2, onset + 4) for k in range(2))

    track = _find(lambda: _arena(rng, size), accept, "a change of gravity")
    gravity = (1.0 - 2.0 * severity) * track.gravity_m_per_s2[0]
    violated = _changed(track, onset, lambda world: _set_gravity(world, gravity))
    return _lawful(track, size), shoot(violated, size, onset=onset + 1)


def _set_gravity(world: World, gravity: np.ndarray) -> None:
    world.gravity_m_per_s2 = gravity


def energy_gain(rng: np.random.Generator, severity: float, size: Size) -> Pair:
    """An object leaves a contact 1 + severity times as fast as the law allows."""

    def hits(track: Track) -> list[int]:
        return [t for t, _ in track.touched(0) if 8 <= t <= 20]

    def accept(track: Track) -> bool:
        return bool(hits(track)) and float(np.hypot(*track.states[hits(track)[0]].velocity_m_per_s[0])) > 1.5

    track = _find(lambda: _arena(rng, size), accept, "a gain of energy")
    onset = hits(track)[0]
    fast = (1.0 + severity) * track.states[onset].velocity_m_per_s[0]
    violated = _changed(track, onset, lambda world: _moved(world, 0, velocity_m_per_s=fast))
    return _lawful(track, size), shoot(violated, size, onset=onset + 1)


def impulse(rng: np.random.Generator, severity: float, size: Size) -> Pair:
    """An object in flight, near no other, receives a change of velocity of severity x 4 m/s from nowhere."""
    onset, turn = _onset(rng), rng.uniform(0.0, 2.0 * np.pi)
    kick = IMPULSE_M_PER_S * np.array([np.cos(turn), np.sin(turn)])

    def accept(track: Track) -> bool:
        return _free(track, 0, onset - 3, onset + 3) and _apart(track, 0, onset - 1, onset + 1)

    track = _find(lambda: _arena(rng, size), accept, "an impulse")
    kicked = track.states[onset].velocity_m_per_s[0] + severity * kick
    violated = _changed(track, onset, lambda world: _moved(world, 0, velocity_m_per_s=kicked))
    return _lawful(track, size), shoot(violated, size, onset=onset + 1)


def frozen(rng: np.random.Generator, severity: float, size: Size) -> Pair:
    """Time runs slower for one object in flight, near no other, by a factor of 1 - severity: at 1 it hangs still."""
    onset = _onset(rng, 16, 22)
    track = _find(lambda: _arena(rng, size), lambda t: _slows(t, onset), "a frozen object")
    violated = run(track.scene, FRAMES)
    rate = 1.0 - severity
    start = track.states[onset - 1]
    for t in range(onset, FRAMES):
        late = rate * (t - onset + 1) * (track.states[1].time_s - track.states[0].time_s)
        state, g = violated.states[t], track.gravity_m_per_s2[0]
        state.position_m[0] = start.position_m[0] + start.velocity_m_per_s[0] * late + 0.5 * g * late**2
        state.velocity_m_per_s[0] = rate * (start.velocity_m_per_s[0] + g * late)
        state.angle_rad[0] = start.angle_rad[0] + start.angular_velocity_rad_per_s[0] * late
        state.angular_velocity_rad_per_s[0] *= rate
    return _lawful(track, size), shoot(violated, size, onset=onset)


def _slows(track: Track, onset: int) -> bool:
    """Whether the first solid flies freely to the end, fast enough that stopping it shows, and nobody runs into it."""
    alone = _free(track, 0, onset - 4, FRAMES) and _apart(track, 0, onset - 2, onset)
    if not alone or np.hypot(*track.states[onset].velocity_m_per_s[0]) < 1.0:
        return False
    a, b = (s.outline.reach_m for s in track.scene.solids)
    here = np.array([s.position_m[0] for s in track.states[onset - 1 :]])
    there = np.array([s.position_m[1] for s in track.states[onset - 1 :]])
    return bool((np.linalg.norm(here[:, None] - there[None], axis=2) > a + b).all())


def time_reversal(rng: np.random.Generator, severity: float, size: Size) -> Pair:
    """A bouncing object that loses energy, shown backwards: it gains energy at every bounce.

    Restitution is 1 - 0.6 severity. The lawful recording starts from the same frame and obeys the same restitution;
    both agree at severity 0, where motion can be reversed.
    """

    def accept(track: Track) -> bool:
        # Bounces well inside the clip, and few of them, so that it does not come to rest.
        times = [t for t, _ in track.touched(0)]
        return 2 <= len(times) <= 4 and times[0] >= 4 and times[-1] <= 26

    track = _find(lambda: _arena(rng, size, count=1), accept, "a reversal of time")
    lossy = tuple(replace(s, restitution=1.0 - REVERSAL_LOSS * severity) for s in track.scene.solids)
    scene = replace(track.scene, solids=lossy)
    backwards = run(scene, FRAMES)
    backwards.states = [_turned(s) for s in backwards.states[::-1]]
    none: list[Contact] = []
    backwards.contacts = [none, *([_late(c) for c in found] for found in backwards.contacts[:0:-1])]
    lawful = run(scene, FRAMES, start=backwards.states[0])
    apart = [
        float(np.abs(a.position_m - b.position_m).max()) for a, b in zip(lawful.states, backwards.states, strict=True)
    ]
    onset = next((t for t, gap in enumerate(apart) if gap > 1e-6), FRAMES - 1)
    return _lawful(lawful, size), shoot(backwards, size, onset=onset)


def _late(contact: Contact) -> Contact:
    """The contact as it is in a frame that runs backwards: the impulse between two bodies stays what it was."""
    return replace(contact, time_s=FRAME_S - contact.time_s)


def _turned(state: WorldState) -> WorldState:
    """The state with time reversed: velocities change sign."""
    return replace(
        state,
        velocity_m_per_s=-state.velocity_m_per_s,
        angular_velocity_rad_per_s=-state.angular_velocity_rad_per_s,
        lead_m_per_s=np.zeros_like(state.lead_m_per_s),
        pushed=np.zeros_like(state.pushed),
    )


VIOLATIONS: Mapping[str, Callable[[np.random.Generator, float, Size], Pair]] = {
    "teleport": teleport,
    "vanish": vanish,
    "appear": appear,
    "duplicate": duplicate,
    "colour_swap": colour_swap,
    "shape_swap": shape_swap,
    "pass_through": pass_through,
    "gravity_change": gravity_change,
    "energy_gain": energy_gain,
    "impulse": impulse,
    "time_reversal": time_reversal,
    "frozen": frozen,
}
"""Name -> function `(rng, severity, size) -> (lawful, violated)`."""
