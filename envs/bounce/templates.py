"""Combinatorial generalisation: every kind of body is known, some combinations of kinds are not.

After the third experiment of PhyWorld (Kang et al., 2024), where scenes are made from templates, sets of objects of
different types, some of which are held out. Here a template is a set of three of eight kinds: four shapes, small or
large. Of the 56 templates eight are held out. Each kind is in exactly three of these, so none is rarer than another in
the training templates.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import gymnasium as gym
import numpy as np

from envs.bounce.env import BounceEnv
from envs.bounce.ranges import draw
from envs.errors import SceneError, UnknownNameError, checked_options

SMALL_M, LARGE_M = (0.6, 0.75), (1.05, 1.2)
KINDS: dict[str, tuple[str, tuple[float, float]]] = {
    f"{size} {shape}": (shape, radius)
    for shape in ("disc", "box", "triangle", "capsule")
    for size, radius in (("small", SMALL_M), ("large", LARGE_M))
}
"""Kind of body to its shape and its range of radii (of the disc of equal area)."""

Template = frozenset[str]
_NAMES = tuple(KINDS)
HELD_OUT: tuple[Template, ...] = tuple(
    frozenset((_NAMES[i], _NAMES[(i + 1) % 8], _NAMES[(i + 3) % 8])) for i in range(8)
)
"""The templates that only "ood_template" shows."""

TEMPLATES: dict[str, tuple[Template, ...]] = {
    "train": tuple(t for t in map(frozenset, combinations(_NAMES, 3)) if t not in HELD_OUT),
    "ood_template": HELD_OUT,
}
"""Templates by split."""


class TemplateEnv(BounceEnv):
    """`envs:BounceTemplates-v0`: billiards among three bodies whose kinds a template names.

    All else is as in `BounceEnv`: the agent, its actions, the task, the truth. `template` is that of the episode.

    Args:
        size: Height and width of the frame in pixels.
        split: "train" or "ood_template".
        options: Further arguments of `BounceEnv`, but for the scenario.

    Raises:
        UnknownNameError: Unknown split.
    """

    def __init__(self, size: tuple[int, int] = (64, 64), *, split: str = "train", **options: Any) -> None:  # noqa: ANN401
        if split not in TEMPLATES:
            raise UnknownNameError(kind="split of templates", name=str(split), known=TEMPLATES)
        super().__init__("billiards", size, **options)
        self.templates = TEMPLATES[split]
        self.template: Template = self.templates[0]

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode of a template of the split, each as likely.

        Args:
            seed: Of the environment's generator.
            options: As in `BounceEnv.reset`, but for what the template decides: count, shape, radius_m.

        Raises:
            SceneError: If the options are no mapping or fix what the template decides.
        """
        gym.Env.reset(self, seed=seed)
        given = checked_options(options)
        if given.keys() & {"scene", "caption"}:
            return super().reset(options=given)
        if given.keys() & {"count", "shape", "radius_m"}:
            raise SceneError(
                expected="options other than count, shape and radius_m: the template decides these",
                got=sorted(given),
                remedy="Use envs:Bounce-v0.",
            )
        self.template = self.templates[int(self.np_random.integers(len(self.templates)))]
        bodies = [KINDS[name] for name in self.np_random.permutation(sorted(self.template))]
        given |= {
            "shape": [shape for shape, _ in bodies],
            "radius_m": [draw((radius,), self.np_random) for _, radius in bodies],
        }
        return super().reset(options=given)
