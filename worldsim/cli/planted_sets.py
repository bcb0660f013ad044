"""Cases for the cards of distances between sets: a real set, a lawful one of other scenes, and what is made of it.

One trial is one pair of sets. Its reading is the distance of the set from the real one; the lawful set's own distance
is what no difference looks like (the ceiling of real against real). Harmless changes befall both sets, defects the
second alone. What the weight-free feature hardly sees, or not at all (violations of law), is in the mode "beyond".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from envs.violations import NUISANCES, Record, nuisance, pair
from eval import Clip
from eval.sets import SET_EVALUATORS, VideoSet
from eval.validity import Reading, Trial, degenerate
from worldsim.cli.planted import LARGER, NUISANCE_LEVEL, SEVERITIES, coded
from worldsim.cli.planted_picture import alternation, grain, softening, stutter

PLANTED = {"softening": softening, "grain": grain}
UNSEEN = {"alternation": alternation, "stutter": stutter}
# Scenes in turn, and what breaks a law in each.
LAWS = ("gravity_change", "teleport", "vanish")
PARITY = "equal to the published code on reference vectors (tests/eval/test_features.py)"
CLIPS = 24
# Seeds from one pair of sets to the next, so that no scene is in two.
GROUP_SEEDS = 1000


@dataclass(frozen=True, kw_only=True)
class Group:
    """One pair of sets.

    Attributes:
        seed: Of its first scene.
        size: Side of the frames in pixels.
        clips: In each set.
    """

    seed: int
    size: int
    clips: int = CLIPS


def groups(*, pairs: int, size: int, first_seed: int) -> list[Group]:
    """`pairs` pairs of sets with scenes of their own."""
    return [Group(seed=first_seed + GROUP_SEEDS * g, size=size) for g in range(pairs)]


def trials(group: Group) -> list[Trial]:
    """Readings of a pair of sets and of all that is made of it."""
    rng = np.random.default_rng(group.seed)
    (real, _), (lawful, broken) = (_scenes(group, half, group.size) for half in range(2))
    plain = _set(real)
    faithful = _read(plain, _set(lawful))
    made: list[tuple[str, str, float, Mapping[str, Reading]]] = []
    for name, plant in PLANTED.items():
        for severity in SEVERITIES:
            planted = VideoSet([plant(r.frames, severity, rng) for r in lawful])
            made.append(("violation", name, severity, _read(plain, planted)))
    for name, change in _harmless(rng).items():
        readings = _read(_set([change(r) for r in real]), _set([change(r) for r in lawful]))
        made.append(("nuisance", name, NUISANCE_LEVEL, readings))
    larger = [_set(_scenes(group, half, LARGER * group.size)[0]) for half in range(2)]
    made.append(("nuisance", "size", NUISANCE_LEVEL, _read(*larger)))
    worthless = [degenerate(Clip(frames=r.frames, fps=r.fps), rng) for r in lawful]
    for variants in zip(*worthless, strict=True):
        videos = VideoSet([v.clip.frames for v in variants])
        made.append(("degenerate", variants[0].name, 1.0, _read(plain, videos)))
    found = [
        t for kind, name, severity, readings in made for t in _trials(group, kind, name, severity, faithful, readings)
    ]
    found += _trials(group, "lawful", "", 0.0, faithful, {})
    beyond = {n: VideoSet([plant(r.frames, SEVERITIES[-1], rng) for r in lawful]) for n, plant in UNSEEN.items()}
    beyond["laws"] = _set(broken)
    for name, videos in beyond.items():
        unseen = _trials(group, "violation", name, SEVERITIES[-1], faithful, _read(plain, videos))
        found += [replace(t, mode="beyond") for t in unseen]
    return found


def _trials(
    group: Group,
    kind: str,
    name: str,
    severity: float,
    faithful: Mapping[str, Reading],
    changed: Mapping[str, Reading],
) -> list[Trial]:
    """A trial for each distance, in a mode of its name."""
    return [
        Trial(
            mode=e,
            kind=kind,
            name=name,
            severity=severity,
            seed=group.seed,
            lawful={e: faithful[e]},
            changed={e: changed[e]} if changed else {},
        )
        for e in SET_EVALUATORS
    ]


def _scenes(group: Group, half: int, size: int) -> tuple[list[Record], list[Record]]:
    """The lawful scenes of the first or second set, and the same with a law broken."""
    first = group.seed + half * group.clips
    found = [pair(LAWS[i % len(LAWS)], first + i, SEVERITIES[-1], size=(size, size)) for i in range(group.clips)]
    return [lawful for lawful, _ in found], [broken for _, broken in found]


def _harmless(rng: np.random.Generator) -> dict[str, Callable[[Record], Record]]:
    changes = {n: partial(_changed, name=n, rng=rng) for n in NUISANCES}
    return {**changes, "codec": coded}


def _changed(record: Record, name: str, rng: np.random.Generator) -> Record:
    return nuisance(name, record, NUISANCE_LEVEL, rng)


def _set(records: Sequence[Record]) -> VideoSet:
    return VideoSet([r.frames for r in records])


def _read(real: VideoSet, fake: VideoSet) -> dict[str, Reading]:
    values = {name: e.measure(real, fake).value for name, e in SET_EVALUATORS.items()}
    return {name: Reading("ok", value, None, None) for name, value in values.items()}
