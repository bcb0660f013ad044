"""The laws of motion as evaluators: each gives the z-score of the strongest evidence against it in a clip.

All read the same `Motion` (objects, flights, contacts), which is computed once per clip. They are free of units: only
pixels and frames enter, and no mass, scale or frame rate is needed.
"""

from eval.physics.contact_laws import energy, friction, momentum, restitution
from eval.physics.flight_laws import constant_acceleration, continuity, equal_gravity, inertia, support
from eval.physics.matter_laws import non_penetration, permanence, rigidity

LAWS = (
    continuity,
    inertia,
    constant_acceleration,
    equal_gravity,
    support,
    momentum,
    energy,
    restitution,
    friction,
    rigidity,
    permanence,
    non_penetration,
)

__all__ = [
    "LAWS",
    "constant_acceleration",
    "continuity",
    "energy",
    "equal_gravity",
    "friction",
    "inertia",
    "momentum",
    "non_penetration",
    "permanence",
    "restitution",
    "rigidity",
    "support",
]
