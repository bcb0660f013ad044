"""What happens in an episode, in words with frame spans: "the red sphere hits the blue box" from frame 12 to 13."""

from dataclasses import dataclass

import numpy as np

from envs.captions import choose, sentence
from envs.room.scene import FRAME_S, Scene
from envs.room.touches import FLOOR

_HIT = ("hits", "strikes", "bumps into")
_LAND = ("lands on", "drops onto")
_PUSH = ("pushes", "shoves")
_REST = ("touches", "leans against")
_WALL_HIT = ("hits", "bumps into")
_HARD_M_PER_S = 0.05
"""A contact that changes its lighter body's speed by this much within a frame is a blow rather than a touch."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A contact in words.

    Attributes:
        text: A sentence.
        first: The last frame before it: the bodies meet between `first` and `first + 1`.
        last: The last frame whose contacts contain it: the bodies touch between `last - 1` and `last`.
        slot_a: Slot of the subject; 0 is the walker.
        slot_b: Slot of the other body, -1 for the floor, -2 for walls and ceiling.
    """

    text: str
    first: int
    last: int
    slot_a: int
    slot_b: int


def events(
    scene: Scene,
    contacts: np.ndarray,
    velocity_m_per_s: np.ndarray,
    mass_kg: np.ndarray,
    rng: np.random.Generator | None = None,
) -> list[Event]:
    """Events of a clip in order of their beginning.

    Solids that have stood on the floor from the start, and go on standing there, make no event.

    Args:
        scene: What is in it.
        contacts: (T+1, M, 9) `truth["contacts"]` stacked over time.
        velocity_m_per_s: (T+1, N, 3) likewise.
        mass_kg: (N,) masses.
        rng: Varies the wording.
    """
    spans: dict[tuple[int, int], list[list[int]]] = {}
    impulse: dict[tuple[int, int, int], float] = {}
    for t, rows in enumerate(contacts):
        for row in rows[rows[:, 0] >= 0]:
            pair = int(row[0]), int(row[1])
            impulse[(*pair, t)] = float(row[8])
            runs = spans.setdefault(pair, [])
            # A rolling or rocking body may leave the ground for a frame without anything happening.
            if runs and t - runs[-1][1] <= 2:
                runs[-1][1] = t
            else:
                runs.append([t, t])
    found = []
    for (a, b), runs in spans.items():
        for start, last in runs:
            if b == FLOOR and start <= 1:
                continue
            blow = max(impulse.get((a, b, t), 0.0) for t in range(start, min(start + 2, last) + 1))
            others = mass_kg[a] if b < 0 else min(mass_kg[a], mass_kg[b])
            # Resting weight alone gives g dt in a frame.
            hard = blow / others > (9.81 * FRAME_S if b == FLOOR else 0.0) + _HARD_M_PER_S
            found.append(_event(scene, (a, b), (max(start - 1, 0), last), hard, velocity_m_per_s, rng))
    return sorted(found, key=lambda e: (e.first, e.slot_a, e.slot_b))


def _event(
    scene: Scene,
    pair: tuple[int, int],
    span: tuple[int, int],
    hard: bool,  # noqa: FBT001 - internal
    velocity: np.ndarray,
    rng: np.random.Generator | None,
) -> Event:
    (a, b), (first, last) = pair, span
    speed = np.linalg.norm(velocity[first], axis=1)
    # The faster body is the subject; against the walker it is whoever moved.
    if b >= 0 and (speed[b] > speed[a] or (b == 0 and speed[0] > 0.0)):
        a, b = b, a
    if b == FLOOR:
        verb = choose(_LAND, rng)
    elif b < 0:
        verb = choose(_WALL_HIT if hard or a == 0 else _REST, rng)
    elif a == 0:
        verb = choose(_PUSH, rng)
    else:
        verb = choose(_HIT if hard else _REST, rng)
    return Event(
        text=sentence(f"{_name(scene, a, rng)} {verb} {_name(scene, b, rng)}"),
        first=first,
        last=last,
        slot_a=a,
        slot_b=b,
    )


def _name(scene: Scene, slot: int, rng: np.random.Generator | None) -> str:
    if slot < 0:
        return "the floor" if slot == FLOOR else "a wall"
    if slot == 0:
        return "the walker"
    solid = scene.solids[slot - 1]
    return f"the {solid.in_words(rng)}"
