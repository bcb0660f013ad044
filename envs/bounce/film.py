"""Bounce without Gymnasium: a scene run for a number of frames, changed on the way or not, and made into arrays."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from envs.bounce.captions import caption
from envs.bounce.contacts import Contact
from envs.bounce.render import Look, Renderer
from envs.bounce.scene import FRAME_S, PALETTE, Scene, Solid
from envs.bounce.truth import Truth, capacity
from envs.bounce.world import World, WorldState
from envs.violations import Record


@dataclass
class Track:
    """States of a scene over T+1 frames, and how they are shown; what is shown may be edited.

    Attributes:
        scene: The scene.
        states: T+1 of them.
        contacts: For each frame, those since the frame before.
        gravity_m_per_s2: (T+1, 2).
        opacity: (T+1, N), see `envs.bounce.render.Look`.
        colour: (T+1, N, 3).
        morph: (T+1, N).
        solids: What is drawn: the solids of the scene, and copies of them.
        morph_into: Second set of shapes, as many as `solids`.
    """

    scene: Scene
    states: list[WorldState]
    contacts: list[list[Contact]]
    gravity_m_per_s2: np.ndarray
    opacity: np.ndarray = field(init=False)
    colour: np.ndarray = field(init=False)
    morph: np.ndarray = field(init=False)
    solids: tuple[Solid, ...] = ()
    morph_into: tuple[Solid, ...] | None = None

    def __post_init__(self) -> None:
        self.dress(self.solids or self.scene.solids)

    def dress(self, solids: tuple[Solid, ...]) -> None:
        """Shows these solids, opaque and in their own colours."""
        self.solids = solids
        t, n = len(self.states), len(solids)
        self.opacity, self.morph = np.ones((t, n)), np.zeros((t, n))
        self.colour = np.tile(np.array([PALETTE[s.colour] for s in solids], float).reshape(1, n, 3), (t, 1, 1))

    def touched(self, slot: int) -> list[tuple[int, int]]:
        """(frame, other body) of every contact of a solid, `frame` being the first one after the touch began."""
        return [(t, c.a + c.b - slot) for t, found in enumerate(self.contacts) for c in found if slot in (c.a, c.b)]


def run(
    scene: Scene,
    frames: int,
    *,
    change: Callable[[int, World], None] | None = None,
    start: WorldState | None = None,
    world: World | None = None,
) -> Track:
    """Runs a scene.

    Args:
        scene: What to run.
        frames: Number of states to keep, the first included.
        change: Called as `change(t, world)` once frame t has been reached and before it is kept.
        start: State to start from instead of the scene's own.
        world: World to use instead of the scene's own.
    """
    world = world or World(scene)
    if start is not None:
        world.state = start
    states, contacts, gravity = [], [], []
    found: list[Contact] = []
    for t in range(frames):
        if t:
            found = world.step()
        if change is not None:
            change(t, world)
        states.append(world.state.copy())
        contacts.append(found)
        gravity.append(world.gravity_m_per_s2)
    return Track(scene, states, contacts, np.array(gravity))


def shoot(track: Track, size: tuple[int, int], *, onset: int | None = None, slots: int | None = None) -> Record:
    """Draws a track and gathers its truth.

    Args:
        track: What to show.
        size: Height and width of the frames.
        onset: First frame that breaks a law.
        slots: N of the truth, at least the number of solids shown.
    """
    solids, scene = track.solids, track.scene
    n = len(solids)
    slots = n if slots is None else slots
    renderer = Renderer(solids, size, fixtures=scene.fixtures, rods=scene.rods, morph_into=track.morph_into)
    truth = Truth(solids, slots, capacity(slots, len(scene.static_names)))
    frames, rows = [], []
    for t, state in enumerate(track.states):
        look = Look(track.opacity[t], track.colour[t], track.morph[t])
        drawing = renderer.draw(state.position_m, state.angle_rad, look)
        row = truth(state, drawing, track.contacts[t], track.gravity_m_per_s2[t])
        row["present"][:n] &= track.opacity[t] >= 0.5
        frames.append(drawing.frame)
        rows.append(row)
    return Record(
        frames=np.array(frames),
        actions=np.zeros(len(frames) - 1, np.int64),
        truth={key: np.array([row[key] for row in rows]) for key in rows[0]},
        fps=1.0 / FRAME_S,
        text=caption(scene),
        onset=onset,
    )
