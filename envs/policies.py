"""Policies that act in the worlds: random, and a scripted expert that solves Bounce's task.

A policy is any callable `policy(obs, info, rng) -> action` on numpy arrays, so experts, random and learned policies
can be exchanged. `info` is that of the last `reset` or `step`; the expert reads `info["truth"]` and `info["caption"]`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from envs.bounce.captions import task
from envs.captions import COLOURS
from envs.errors import CaptionError, SceneError

Info = Mapping[str, Any]


class Policy(Protocol):
    """Chooses actions."""

    def __call__(self, obs: np.ndarray, info: Info, rng: np.random.Generator) -> Any:  # noqa: ANN401 - any action space
        """The action for this observation."""
        ...


class RandomPolicy:
    """Uniform actions of a discrete or bounded continuous space, each held for a random while.

    Args:
        action_space: Discrete, MultiDiscrete, or Box with finite bounds.
        hold: Mean number of steps that an action is held (geometric); 1 draws anew at every step.

    Raises:
        SceneError: Another kind of space, or `hold` below 1.
    """

    def __init__(self, action_space: gym.Space, hold: float = 1.0) -> None:
        spaces = gym.spaces
        bounded = isinstance(action_space, spaces.Box) and action_space.is_bounded()
        if not bounded and not isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete):
            raise SceneError(
                expected="a Discrete, MultiDiscrete or bounded Box space",
                got=action_space,
                remedy="Write a policy of your own for this space.",
            )
        if not hold >= 1.0:
            raise SceneError(expected="hold of at least 1 step", got=hold, remedy="Use hold=1 to draw at every step.")
        self.action_space, self.hold = action_space, hold
        self._action: Any = None

    def __call__(self, obs: np.ndarray, info: Info, rng: np.random.Generator) -> Any:  # noqa: ANN401, ARG002
        """An action of the space."""
        if self._action is None or rng.random() < 1.0 / self.hold:
            self._action = self._draw(rng)
        return self._action

    def _draw(self, rng: np.random.Generator) -> Any:  # noqa: ANN401
        space = self.action_space
        if isinstance(space, gym.spaces.Discrete):
            return space.start + rng.integers(space.n)
        if isinstance(space, gym.spaces.MultiDiscrete):
            return space.start + rng.integers(space.nvec)
        assert isinstance(space, gym.spaces.Box)
        return rng.uniform(space.low, space.high).astype(space.dtype)


# What the expert knows of the world: see envs.bounce.env. It plans in steps of one frame.
_DT_S = 0.1
_THRUST_M_PER_S2 = 6.0
_DRAG_PER_S = 1.0
_DIRECTIONS = np.array([(0.0, 0.0), (-1.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, -1.0)])
_FIRST, _HORIZON = 4, 14
_MARGIN_M = 0.3
# Every pair of a first action, held for `_FIRST` frames, and a second, held to the horizon.
_PLANS = np.array([(a, b) for a in range(5) for b in range(5)])


def bounce_expert(obs: np.ndarray, info: Info, rng: np.random.Generator) -> int:  # noqa: ARG001 - deterministic
    """Solves `envs:Bounce-v0`: steers to the object that the caption names and dodges the hazard.

    Foresees free flight between walls for 1.4 s under every plan of two actions, and takes the first action of the plan
    that soonest comes near the target without coming near the hazard.

    Args:
        obs: The frame (H, W, 3).
        info: With `truth` and `caption` (any detail).
        rng: Not used.

    Returns:
        An action of the billiards scenario.

    Raises:
        CaptionError: The caption names no object that is in view.
    """
    truth = info["truth"]
    target, hazard = named_slots(obs, info)
    view = np.array(obs.shape[1::-1]) / (min(obs.shape[:2]) / 10.0)
    agent = _flight(truth, np.zeros(len(_PLANS), int), view, thrust=True)
    goal = _flight(truth, np.array([target]), view)
    reach = _reach(truth, obs)
    gap = np.linalg.norm(agent - goal, axis=2) - reach[0] - reach[target]
    # Seconds until the touch, or the horizon and the distance that is left.
    touches = gap <= 0.0
    when = np.where(touches.any(axis=1), touches.argmax(axis=1), _HORIZON)
    cost = when * _DT_S + np.maximum(gap.min(axis=1), 0.0)
    if hazard is not None:
        danger = np.linalg.norm(agent - _flight(truth, np.array([hazard]), view), axis=2) - reach[0] - reach[hazard]
        before = np.arange(_HORIZON)[None] <= when[:, None]
        closest = np.where(before, danger, np.inf).min(axis=1)
        cost += 10.0 * np.maximum(_MARGIN_M - closest, 0.0)
    return int(_PLANS[int(cost.argmin()), 0])


def _flight(
    truth: Mapping[str, np.ndarray], slots: np.ndarray, view: np.ndarray, *, thrust: bool = False
) -> np.ndarray:
    """Foreseen positions (P, horizon, 2) of solids in free flight between elastic walls."""
    position, velocity = truth["position_m"][slots].copy(), truth["velocity_m_per_s"][slots].copy()
    reach = np.sqrt(truth["full_masks"][slots].sum(axis=(1, 2)) / np.pi) * view[0] / truth["full_masks"].shape[2]
    low, high = reach[:, None], view - reach[:, None]
    path = np.empty((len(slots), _HORIZON, 2))
    for t in range(_HORIZON):
        pull = np.broadcast_to(truth["gravity_m_per_s2"], velocity.shape)
        if thrust:
            pull = pull + _THRUST_M_PER_S2 * _DIRECTIONS[_PLANS[:, int(t >= _FIRST)]] - _DRAG_PER_S * velocity
        position = position + _DT_S * velocity + 0.5 * _DT_S**2 * pull
        velocity = velocity + _DT_S * pull
        out = (position < low) | (position > high)
        velocity = np.where(out, np.where(position < low, np.abs(velocity), -np.abs(velocity)), velocity)
        position = np.clip(position, low, high)
        path[:, t] = position
    return path


def _reach(truth: Mapping[str, np.ndarray], obs: np.ndarray) -> np.ndarray:
    """Radii (N,) in metres of discs with the areas of the full masks."""
    return np.sqrt(truth["full_masks"].sum(axis=(1, 2)) / np.pi) * 10.0 / min(obs.shape[:2])


def named_slots(obs: np.ndarray, info: Info) -> tuple[int, int | None]:
    """Slots of the target and the hazard that a Bounce caption names, told by the colours in the frame.

    Raises:
        CaptionError: The caption names no target, or one that is not in view.
    """
    looks = task(info["caption"])
    slots = {role: _slot_of(colour, obs, info["truth"]) for role, (colour, _) in looks.items()}
    target = slots.get("target")
    if target is None:
        raise CaptionError(
            expected="a caption that names an object in view as the target",
            got=repr(info["caption"]),
            remedy="Use the caption of the episode.",
        )
    return target, slots.get("hazard")


def _slot_of(colour: str, obs: np.ndarray, truth: Mapping[str, np.ndarray]) -> int | None:
    """The slot, other than the agent's, whose visible pixels are nearest to a colour."""
    wanted = np.array(COLOURS[colour], float)
    best, slot = 60.0, None
    for k in np.flatnonzero(truth["present"])[1:]:
        pixels = obs[truth["segmentation"] == k + 1]
        distance = float(np.linalg.norm(np.median(pixels, axis=0) - wanted)) if len(pixels) else np.inf
        if distance < best:
            best, slot = distance, int(k)
    return slot
