"""Captions of Bounce scenes: short, medium, and dense (see `envs.bounce.dense`)."""

import re
from collections import Counter

import numpy as np

from envs.bounce import dense
from envs.bounce.scene import PALETTE, SHAPES, Role, Scene, Solid
from envs.captions import Detail, article, canonical, choose, counted, listed, name_of, sentence, shuffled
from envs.errors import CaptionError

_TOUCH = ("should touch", "has to reach", "must touch")
_AVOID = ("and avoid", "but keep away from")


def caption(scene: Scene, *, detail: Detail = "short", rng: np.random.Generator | None = None) -> str:
    """A scene in words.

    Args:
        scene: What to describe.
        detail: "short" (who, where and the task), "medium" (also sizes, places, motion) or "dense" (every number).
        rng: Varies words and order; without it the plainest wording.
    """
    if detail == "dense":
        return dense.write(scene, rng)
    text = _setting(scene, rng)
    if scene.agent:
        text += " " + _task(scene, rng)
    if detail == "medium":
        described = [sentence(f"the {_name(s, rng)} is {_coarse(s, scene, rng)}") for s in scene.solids]
        text = " ".join([text, *shuffled(described, rng)])
        if any(scene.gravity_m_per_s2):
            text += " " + sentence(choose(("gravity acts", "things fall"), rng))
    return text


def _task(scene: Scene, rng: np.random.Generator | None) -> str:
    target, hazard = scene.slot("target"), scene.slot("hazard")
    text = f"the {_name(scene.solids[0], rng)}"
    if target is None:
        return sentence(f"{text} is steered")
    text += f" {choose(_TOUCH, rng)} the {_name(scene.solids[target], rng)}"
    if hazard is not None:
        text += f" {choose(_AVOID, rng)} the {_name(scene.solids[hazard], rng)}"
    return sentence(text)


def task(text: str) -> dict[Role, tuple[str, str]]:
    """Reads the task from a caption of any detail.

    Returns:
        Colour and shape, by their canonical names, of the "target" and, where there is one, of the "hazard".

    Raises:
        CaptionError: No task is stated.
    """
    told: dict[Role, tuple[str, str]] = {}
    phrases: tuple[tuple[Role, tuple[str, ...]], ...] = (("target", _TOUCH), ("hazard", _AVOID))
    for role, verbs in phrases:
        match = re.search(rf"(?:{'|'.join(verbs)}) the (\w+) (\w+)", text)
        if match:
            told[role] = canonical(match[1], tuple(PALETTE)), canonical(match[2], SHAPES)
    if told:
        return told
    told = {s.role: (s.colour, s.shape) for s in dense.parse(text).solids if s.role in ("target", "hazard")}
    if "target" not in told:
        raise CaptionError(expected="a caption that states a task", got=repr(text), remedy="Name an object to touch.")
    return told


def _setting(scene: Scene, rng: np.random.Generator | None) -> str:
    """Objects grouped by look, and what they do."""
    groups = Counter((s.colour, s.shape) for s in scene.solids)
    phrases = []
    for (colour, shape), n in groups.items():
        noun = name_of(colour, shape, rng)
        phrases.append(article(noun) if n == 1 else counted(n, noun))
    kinds = {f.kind for f in scene.fixtures}
    one, many = "moves freely", "move freely"
    if scene.rods:
        one, many = choose((("swings on a rod", "swing on rods"), ("hangs from a pivot", "hang from pivots")), rng)
    elif "ramp" in kinds:
        one, many = choose((("starts on a ramp", "start on a ramp"), ("is on a slope", "are on a slope")), rng)
    elif "occluder" in kinds:
        one, many = choose(
            (("passes behind a screen", "pass behind a screen"), ("meets a screen", "meet a screen")), rng
        )
    elif "floor" in kinds:
        one, many = choose(
            (("stands on the floor", "stand on the floor"), ("is on the ground", "are on the ground")), rng
        )
    elif scene.walls:
        one, many = choose((("moves between walls", "move between walls"), ("is walled in", "are walled in")), rng)
    elif any(scene.gravity_m_per_s2):
        one, many = choose((("flies under gravity", "fly under gravity"), ("is thrown", "are thrown")), rng)
    if not phrases:
        return "Nothing is in view."
    return sentence(f"{listed(shuffled(phrases, rng))} {one if len(scene.solids) == 1 else many}")


def _name(solid: Solid, rng: np.random.Generator | None) -> str:
    return name_of(solid.colour, solid.shape, rng)


def _coarse(solid: Solid, scene: Scene, rng: np.random.Generator | None) -> str:
    """Size, place and motion in plain words."""
    size = "small" if solid.radius_m < 0.8 else "large" if solid.radius_m > 1.1 else "of medium size"
    place = ("left", "centre", "right")[min(int(3 * solid.position_m[0] / scene.view_m[0]), 2)]
    row = ("lower ", "", "upper ")[min(int(3 * solid.position_m[1] / scene.view_m[1]), 2)]
    return f"{size}, {choose(('in', 'at'), rng)} the {row}{place}, {_motion(solid)}"


def _motion(solid: Solid) -> str:
    vx, vy = solid.velocity_m_per_s
    speed = float(np.hypot(vx, vy))
    if speed == 0.0:
        return "at rest"
    along = ("right", "up", "left", "down")[round(np.arctan2(vy, vx) / (np.pi / 2)) % 4]
    return f"moving {'slowly' if speed < 1.5 else 'fast' if speed > 3.0 else 'steadily'} {along}"
