"""Captions of Bounce scenes."""

import numpy as np

from envs.bounce.scene import Scene, Solid
from envs.captions import Detail, article, choose, listed, sentence, wording


def caption(scene: Scene, *, detail: Detail = "short", rng: np.random.Generator | None = None) -> str:
    """The scene in words."""
    phrases = [article(name(s, rng)) for s in scene.solids if s.role != "agent"]
    if not scene.agent:
        return sentence(listed(phrases))
    target, hazard = scene.slot("target"), scene.slot("hazard")
    text = article(name(scene.solids[0], rng))
    if target is not None:
        text += (
            " " + choose(("should touch", "has to reach", "goes for"), rng) + " the " + name(scene.solids[target], rng)
        )
    if hazard is not None:
        text += " " + choose(("and avoid", "but keep away from"), rng) + " the " + name(scene.solids[hazard], rng)
    return sentence(text)


def name(solid: Solid, rng: np.random.Generator | None = None) -> str:
    """Colour and shape in words."""
    return f"{wording(solid.colour, rng)} {wording(solid.shape, rng)}"
