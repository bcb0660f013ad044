"""The parameter ranges of every Bounce scenario, in distribution and along each out-of-distribution axis.

The protocol is PhyWorld's (phyworld/phyworld): train inside one range, test inside it and outside along one axis at a
time, so that generalisation can be told from memory. Radii and speeds are PhyWorld's own where a scenario is shared.

A range is a tuple of intervals; a value is drawn uniformly from their union and rounded to `STEP`, so that captions can
state it exactly.
"""

from dataclasses import dataclass, replace

import numpy as np

from envs.bounce.scene import Shape
from envs.captions import COLOURS
from envs.errors import UnknownNameError

STEP = 0.01
Intervals = tuple[tuple[float, float], ...]

HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {
        ("red", "box"),
        ("green", "box"),
        ("blue", "disc"),
        ("yellow", "disc"),
        ("purple", "triangle"),
        ("orange", "triangle"),
        ("cyan", "capsule"),
        ("pink", "capsule"),
    }
)
"""(colour, shape) pairs that occur in no split but "ood_combination", where every solid has one of them."""


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """What a scenario draws from.

    Attributes:
        count: Numbers of objects, the agent not counted.
        shapes: Shapes of objects.
        radius_m: Of objects.
        speed_m_per_s: Initial speed, of those that start in motion.
        density_kg_per_m2: Of objects.
        gravity_m_per_s2: Strength of gravity, downwards.
        restitution: Of all solids.
        friction: Of all solids.
        angle_rad: What the scenario turns: the ramp's slope, the pendulum's release from the vertical.
        held_out: Whether solids are drawn from the held-out colour-shape pairs instead of all the others.
    """

    count: tuple[int, ...]
    shapes: tuple[Shape, ...] = ("disc",)
    radius_m: Intervals = ((0.7, 1.4),)
    speed_m_per_s: Intervals = ((1.0, 4.0),)
    density_kg_per_m2: Intervals = ((1.0, 1.0),)
    gravity_m_per_s2: Intervals = ((0.0, 0.0),)
    restitution: Intervals = ((1.0, 1.0),)
    friction: Intervals = ((0.0, 0.0),)
    angle_rad: Intervals = ((0.0, 0.0),)
    held_out: bool = False


TRAIN: dict[str, Ranges] = {
    "uniform": Ranges(count=(1,), shapes=("disc", "box", "triangle", "capsule")),
    "parabola": Ranges(count=(1,), shapes=("disc", "box", "triangle", "capsule"), gravity_m_per_s2=((2.5, 2.5),)),
    "collision": Ranges(count=(2,)),
    "pendulum": Ranges(
        count=(1,),
        radius_m=((0.7, 1.1),),
        gravity_m_per_s2=((2.5, 5.0),),
        angle_rad=((0.2, 1.0),),
        speed_m_per_s=((0.0, 0.0),),
    ),
    "ramp": Ranges(
        count=(1,),
        shapes=("box",),
        radius_m=((0.7, 1.0),),
        speed_m_per_s=((0.0, 0.0),),
        gravity_m_per_s2=((2.5, 5.0),),
        restitution=((0.0, 0.0),),
        friction=((0.0, 0.25),),
        angle_rad=((0.35, 0.6),),
    ),
    "stack": Ranges(
        count=(2, 3),
        shapes=("box",),
        radius_m=((0.7, 1.0),),
        speed_m_per_s=((0.0, 0.0),),
        gravity_m_per_s2=((2.5, 5.0),),
        restitution=((0.0, 0.0),),
        friction=((0.6, 0.9),),
    ),
    "occluder": Ranges(count=(1, 2), shapes=("disc", "box", "triangle", "capsule"), radius_m=((0.7, 1.0),)),
    "chain": Ranges(count=(3, 4), radius_m=((0.7, 0.9),), speed_m_per_s=((2.0, 4.0),)),
    "billiards": Ranges(
        count=(1, 2, 3),
        shapes=("disc", "box"),
        radius_m=((0.8, 1.2),),
        speed_m_per_s=((0.0, 3.0),),
        gravity_m_per_s2=((1.5, 1.5),),
    ),
}
"""In-distribution ranges by scenario."""

SPLITS: tuple[str, ...] = (
    "train",
    "ood_speed",
    "ood_size",
    "ood_speed_size",
    "ood_mass",
    "ood_count",
    "ood_gravity",
    "ood_combination",
)
"""In-distribution, and one split for each axis along which a model may have to generalise."""

_OOD_COUNT: dict[str, tuple[int, ...]] = {
    "uniform": (2,),
    "parabola": (2,),
    "collision": (3, 4),
    "stack": (4,),
    "occluder": (3,),
    "chain": (5,),
    "billiards": (4, 5),
}
_OOD_SPEED: dict[str, Intervals] = {
    "chain": ((1.0, 1.8), (4.5, 6.0)),
    "billiards": ((3.5, 6.0),),
}
_OOD_SIZE: dict[str, Intervals] = {
    "pendulum": ((0.4, 0.6), (1.2, 1.5)),
    "ramp": ((0.4, 0.6), (1.1, 1.3)),
    "stack": ((0.4, 0.6), (1.1, 1.2)),
    "occluder": ((0.3, 0.6), (1.1, 1.4)),
    "chain": ((0.4, 0.6),),
    "billiards": ((0.4, 0.7), (1.3, 1.6)),
}


def ranges(scenario: str, split: str = "train") -> Ranges:
    """The ranges of a scenario in a split.

    Raises:
        UnknownNameError: No such scenario or split, or the scenario has no such axis (see `splits`).
    """
    if scenario not in TRAIN:
        raise UnknownNameError(kind="scenario", name=str(scenario), known=TRAIN)
    if split not in splits(scenario):
        raise UnknownNameError(kind=f"split of {scenario!r}", name=str(split), known=splits(scenario))
    base = TRAIN[scenario]
    speed = _OOD_SPEED.get(scenario, ((0.0, 0.8), (4.5, 6.0)))
    size = _OOD_SIZE.get(scenario, ((0.3, 0.6), (1.5, 2.0)))
    gravity: Intervals = ((0.5, 1.5), (6.0, 9.8)) if scenario != "billiards" else ((0.0, 0.0), (3.0, 4.0))
    changes: dict[str, dict[str, object]] = {
        "train": {},
        "ood_speed": {"speed_m_per_s": speed},
        "ood_size": {"radius_m": size},
        "ood_speed_size": {"speed_m_per_s": speed, "radius_m": size},
        "ood_mass": {"density_kg_per_m2": ((0.1, 0.3), (3.0, 10.0))},
        "ood_count": {"count": _OOD_COUNT.get(scenario, ())},
        "ood_gravity": {"gravity_m_per_s2": gravity},
        "ood_combination": {"held_out": True},
    }
    return replace(base, **changes[split])


def splits(scenario: str) -> tuple[str, ...]:
    """The splits of a scenario: an axis that cannot change what is seen there is left out.

    Raises:
        UnknownNameError: No such scenario.
    """
    if scenario not in TRAIN:
        raise UnknownNameError(kind="scenario", name=str(scenario), known=TRAIN)
    base, gone = TRAIN[scenario], set()
    if base.speed_m_per_s == ((0.0, 0.0),):
        gone |= {"ood_speed", "ood_speed_size"}
    if base.gravity_m_per_s2 == ((0.0, 0.0),):
        gone.add("ood_gravity")
    if base.count == (1,):
        gone.add("ood_mass")
    if scenario not in _OOD_COUNT:
        gone.add("ood_count")
    return tuple(s for s in SPLITS if s not in gone)


def draw(intervals: Intervals, rng: np.random.Generator) -> float:
    """A value of a union of intervals, uniform and rounded to `STEP`."""
    lengths = np.array([high - low for low, high in intervals])
    weights = lengths / lengths.sum() if lengths.sum() > 0 else np.full(len(lengths), 1 / len(lengths))
    low, high = intervals[int(rng.choice(len(intervals), p=weights))]
    return float(np.round(rng.uniform(low, high), 2))


def contains(intervals: Intervals, value: float) -> bool:
    """Whether a value lies in a union of intervals (up to half a rounding step)."""
    return any(low - STEP / 2 <= value <= high + STEP / 2 for low, high in intervals)


def pairs(shape_names: tuple[str, ...], *, held_out: bool) -> list[tuple[str, str]]:
    """The (colour, shape) pairs that a split may use."""
    return [(c, s) for c in COLOURS for s in shape_names if ((c, s) in HELD_OUT) == held_out]
