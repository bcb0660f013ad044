"""The scenarios of Bounce: each a function from a sampler to a scene."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from envs.bounce.ranges import ranges
from envs.bounce.sampling import Sampler
from envs.bounce.scene import VIEW_M, Role, Scene, Solid, Vector
from envs.errors import UnknownNameError

AGENT_RADIUS_M = 0.8
AGENT_COLOUR = "black"


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
        s.place(lambda at, body=body: replace(body, position_m=at))
    return Scene(solids=tuple(s.solids), gravity_m_per_s2=s.gravity(), view_m=s.view_m)


SCENARIOS: dict[str, Callable[[Sampler], Scene]] = {
    "billiards": _billiards,
}


def make_scene(
    scenario: str,
    *,
    rng: np.random.Generator,
    split: str = "train",
    options: Mapping[str, Any] | None = None,
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
        SceneError: The scene cannot exist.
    """
    if scenario not in SCENARIOS:
        raise UnknownNameError(kind="scenario", name=str(scenario), known=SCENARIOS)
    scene = SCENARIOS[scenario](Sampler(ranges(scenario, split), options or {}, view_m, rng))
    return replace(scene, scenario=scenario)
