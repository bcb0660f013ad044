"""Captions of rooms: short, medium, and dense (see `envs.room.dense`)."""

import numpy as np

from envs.captions import Detail, article, choose, listed, sentence, shuffled
from envs.room import dense
from envs.room.scene import Scene, Solid

_TASK = ("walk to the {name}", "go to the {name}", "find the {name} and walk up to it")
_SETTING = ("a room with {things}", "there are {things} in a room", "{things} in a room")
_SETTING_ONE = ("a room with {things}", "there is {things} in a room", "{things} in a room")
_EMPTY = ("an empty room", "a room with nothing in it")
_MOVING = 0.05


def caption(
    scene: Scene, *, task: bool = True, detail: Detail = "short", rng: np.random.Generator | None = None
) -> str:
    """A room in words, as it is at the start.

    Args:
        scene: What to describe.
        task: Whether to name the solid to walk to.
        detail: "short" (what there is), "medium" (also sizes, places seen from the walker, motion) or "dense" (every
            number; always with the task, which belongs to the scene).
        rng: Varies words and order; without it the plainest wording.
    """
    if detail == "dense":
        return dense.write(scene, rng)
    parts = [_setting(scene, rng)]
    if detail == "medium":
        parts += shuffled([sentence(_described(solid, scene, rng)) for solid in scene.solids], rng)
    if task and scene.target is not None:
        target = scene.solids[scene.target - 1]
        parts.append(sentence(choose(_TASK, rng).format(name=target.in_words(rng))))
    return " ".join(parts)


def _setting(scene: Scene, rng: np.random.Generator | None) -> str:
    things = listed(shuffled([article(s.in_words(rng)) for s in scene.solids], rng))
    if not things:
        return sentence(choose(_EMPTY, rng))
    return sentence(choose(_SETTING if len(scene.solids) > 1 else _SETTING_ONE, rng).format(things=things))


def _described(solid: Solid, scene: Scene, rng: np.random.Generator | None) -> str:
    radius = solid.radius_m
    size = "small" if radius < 0.4 else "large" if radius > 0.6 else "of medium size"
    away = np.array(solid.position_m[:2]) - scene.start_m
    distance = float(np.hypot(*away))
    bearing = (np.arctan2(away[1], away[0]) - scene.yaw_rad + np.pi) % (2.0 * np.pi) - np.pi
    # Quarters around the walker, the one ahead as wide as what it sees.
    side = ("ahead", "to the left", "behind", "to the right")[round(bearing / (np.pi / 2)) % 4]
    reach = choose(("near", "close"), rng) if distance < 1.5 else choose(("far", "distant"), rng)
    if distance < 3.0 and distance >= 1.5:
        reach = choose(("a few steps away", "not far"), rng)
    return f"the {solid.in_words(rng)} is {size}, {reach} {side}, {_motion(solid, rng)}"


def _motion(solid: Solid, rng: np.random.Generator | None) -> str:
    if np.linalg.norm(solid.velocity_m_per_s) > _MOVING:
        return choose(("rolling", "in motion"), rng)
    if solid.position_m[2] > solid.radius_m + _MOVING:
        return choose(("about to fall", "in the air"), rng)
    return choose(("at rest", "lying still"), rng)
