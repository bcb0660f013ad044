"""Policies by which a learned and a true world are played, and ranked in both."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.bounce.captions import task
from envs.captions import COLOURS
from envs.errors import CaptionError
from eval.controlled import Policy, replay
from worldsim.cli.demo_cases import World

# A pixel belongs to a colour that it is no further from than this, in levels.
NEAR_LEVELS = 60.0


def policies(
    world: World, space: spaces.Discrete, captions: Sequence[str], recorded: np.ndarray
) -> Mapping[str, Policy]:
    """Every action held for ever, the recorded actions, and in Bounce three that steer by what they see."""
    count = len(recorded)
    held = {f"always {a}": _always(np.full(count, a)) for a in range(int(space.start), int(space.start + space.n))}
    made: dict[str, Policy] = {**held, "random": replay(recorded)}
    if world.title == "Bounce":
        made |= {
            "to the target": _steer(captions, "target", 1.0),
            "from the target": _steer(captions, "target", -1.0),
            "to the hazard": _steer(captions, "hazard", 1.0),
        }
    return made


def _always(actions: np.ndarray) -> Policy:
    return lambda _frames, _t: actions


def _steer(captions: Sequence[str], role: str, sign: float) -> Policy:
    """Pushes Bounce's black agent along the longer axis to the body of a colour, or away from it; else stays."""
    colours = [_colour(caption, role) for caption in captions]

    def policy(frames: np.ndarray, _t: int) -> np.ndarray:
        return np.array([push(f, c, sign) for f, c in zip(frames, colours, strict=True)])

    return policy


def _colour(caption: str, role: str) -> tuple[int, int, int] | None:
    try:
        named: Mapping[Any, tuple[str, str]] = task(caption)
    except CaptionError:
        return None
    return COLOURS[named[role][0]] if role in named else None


def push(frame: np.ndarray, colour: tuple[int, int, int] | None, sign: float) -> int:
    """The action that pushes the agent to (sign 1) or from (-1) a colour in a frame (H, W, 3); 0 where it sees none."""
    agent, goal = _centre(frame, (0, 0, 0)), None if colour is None else _centre(frame, colour)
    if agent is None or goal is None:
        return 0
    down, right = sign * (goal - agent)
    if abs(right) >= abs(down):
        return 2 if right > 0 else 1
    return 4 if down > 0 else 3


def _centre(frame: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray | None:
    """Row and column of the centre of a colour's pixels."""
    near = np.argwhere(np.linalg.norm(frame.astype(float) - colour, axis=-1) < NEAR_LEVELS)
    return near.mean(axis=0) if len(near) else None
