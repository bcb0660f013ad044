"""Captions of rooms."""

from envs.captions import article, listed, sentence
from envs.room.scene import Scene


def caption(scene: Scene, *, task: bool) -> str:
    """The room in words and, with a task, the solid to walk to."""
    solids = listed([article(solid.name) for solid in scene.solids]) or "nothing"
    text = sentence(f"a room with {solids}")
    if task and scene.target is not None:
        text += " " + sentence(f"walk to the {scene.solids[scene.target - 1].name}")
    return text
