"""What happens in an episode, in words with frame spans: "the red disc hits the blue box" from frame 12 to 13."""

from dataclasses import dataclass

import numpy as np

from envs.bounce.scene import Scene
from envs.bounce.truth import CONTACT_COLUMNS
from envs.captions import choose, name_of, sentence

_HIT = ("hits", "strikes", "bumps into")
_REST = ("rests on", "lies on")
_LEAN = ("leans against", "presses against")
_SLIDE = ("slides along", "moves along")
_PLACES = {
    "left wall": "the left wall",
    "right wall": "the right wall",
    "floor wall": "the lower wall",
    "ceiling wall": "the upper wall",
    "floor": "the floor",
    "ramp": "the ramp",
    "pin": "the pin",
}
# Relative speed along the contact above which a lasting contact is a slide.
_SLIDE_M_PER_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Event:
    """A contact in words.

    Attributes:
        text: A sentence.
        first: The last frame before it: the bodies meet between `first` and `first + 1`.
        last: The last frame whose contacts contain it: the bodies touch between `last - 1` and `last`.
        slot_a: Slot of the subject.
        slot_b: Slot of the other body, or -1 - k for the k-th of `Scene.static_names`.
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
    rng: np.random.Generator | None = None,
) -> list[Event]:
    """Events of a clip in order of their beginning.

    Args:
        scene: What is in it.
        contacts: (T+1, M, 9) `truth["contacts"]` stacked over time.
        velocity_m_per_s: (T+1, N, 2) likewise.
        rng: Varies the wording.

    A contact over one frame interval or two is a hit by the faster body; a longer one is a slide where the bodies move
    past one another, else a rest of the upper body on the lower or, sideways, a lean.
    """
    spans: dict[tuple[int, int], list[_Span]] = {}
    for t, rows in enumerate(contacts):
        for row in rows[rows[:, CONTACT_COLUMNS.index("slot_a")] >= 0]:
            pair = int(row[0]), int(row[1])
            runs = spans.setdefault(pair, [])
            if runs and runs[-1].last == t - 1:
                runs[-1].last = t
            else:
                runs.append(_Span(max(t - 1, 0), t, row))
    ordered = sorted(
        ((span, pair) for pair, runs in spans.items() for span in runs),
        key=lambda item: (item[0].first, item[0].row[CONTACT_COLUMNS.index("time_s")], item[1]),
    )
    return [_event(scene, pair, span, velocity_m_per_s, rng) for span, pair in ordered]


@dataclass
class _Span:
    """A run of frames in contact, and the contact row of its first."""

    first: int
    last: int
    row: np.ndarray


def _event(
    scene: Scene, pair: tuple[int, int], span: _Span, velocity: np.ndarray, rng: np.random.Generator | None
) -> Event:
    (a, b), first, last = pair, span.first, span.last
    normal = span.row[CONTACT_COLUMNS.index("normal_x") :][:2]
    of_a, of_b = velocity[:, a], velocity[:, b] if b >= 0 else np.zeros_like(velocity[:, a])
    relative = of_a[first + 1 : last + 1] - of_b[first + 1 : last + 1]
    slides = float(np.median(np.hypot(relative[:, 0], relative[:, 1]))) > _SLIDE_M_PER_S
    if last - first <= 2:
        verb, swap = choose(_HIT, rng), np.hypot(*of_b[first]) > np.hypot(*of_a[first])
    elif slides:
        verb, swap = choose(_SLIDE, rng), np.hypot(*of_b[last]) > np.hypot(*of_a[last])
    else:
        verb, swap = choose(_REST if abs(normal[1]) > abs(normal[0]) else _LEAN, rng), normal[1] > 0
    if b >= 0 and swap:
        a, b = b, a
    solid = scene.solids[a]
    subject = f"the {name_of(solid.colour, solid.shape, rng)}"
    if b >= 0:
        other = scene.solids[b]
        place = f"the {name_of(other.colour, other.shape, rng)}"
    else:
        place = _PLACES[scene.static_names[-1 - b]]
    return Event(text=sentence(f"{subject} {verb} {place}"), first=first, last=last, slot_a=a, slot_b=b)
