"""Actions of the Gymnasium environments: what agents choose, turned into what a simulator takes."""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from worldsim.camera import MOTION_DIM
from worldsim.errors import ActionError, ConfigError, StateError
from worldsim.simulator import Simulator
from worldsim.spaces import stack_actions
from worldsim.state import State


class ActionFormat:
    """The space of an agent's single action, and its way into the simulator.

    A world with actions and a camera takes both, `{"action": ..., "camera": ...}`; one with either takes that alone;
    one with neither takes 0.

    Args:
        simulator: The world.
        camera: Whether the agent moves the camera; None for whether the world takes its motion. Left out, the motion is
            unknown to the world.
        hold: With temporal stride 4, whether an action is held for the four frames of a step; otherwise an action is
            four, stacked.

    Raises:
        ConfigError: If the world takes no camera motion and `camera` is True.
    """

    def __init__(self, simulator: Simulator, *, camera: bool | None, hold: bool) -> None:
        ranges, own = simulator.camera_range, simulator.action_space
        if camera and ranges is None:
            raise ConfigError(
                expected="a world that takes the camera's motion", got="one that does not", remedy="Leave `camera` out."
            )
        self._stride, self._hold, self._acts = simulator.actions_per_step, hold, own is not None
        self._moves = ranges is not None and camera is not False
        parts: dict[str, spaces.Space] = {} if own is None else {"action": own}
        if ranges is not None and self._moves:
            limit = np.array(ranges, np.float32)
            parts["camera"] = spaces.Box(-limit, limit, (MOTION_DIM,), np.float32)
        single = spaces.Dict(parts) if len(parts) == 2 else next(iter(parts.values()), spaces.Discrete(1))
        self.space: spaces.Space = single if hold or self._stride == 1 else batch_space(single, self._stride)

    def of_step(self, actions: list[Any]) -> tuple[Any, np.ndarray | None]:
        """Single actions, one an environment, as the actions and the camera's motion that `Simulator.step` takes.

        Raises:
            ActionError: If one is not in the space.
        """
        for action in actions:
            if _names_truth(self.space, action) or not self.space.contains(action):
                raise ActionError(expected=f"an action in {self.space}", got=action, remedy="Look at env.action_space.")
        stacked = stack_actions(self.space, actions)
        if self._hold and self._stride > 1:
            stacked = _held(stacked, self._stride)
        if self._acts and self._moves:
            return stacked["action"], stacked["camera"]
        return (stacked if self._acts else None), (stacked if self._moves else None)

    def split(self, actions: Any, count: int) -> list[Any]:  # noqa: ANN401 - any space's value
        """A batch of actions as a list of single ones.

        Raises:
            ActionError: If it is not a batch of that many.
        """
        return _split(self.space, actions, count)


def rows_of(name: str, value: Any, rows: np.ndarray, count: int, space: spaces.Space | None) -> Any:  # noqa: ANN401
    """What concerns some environments of a reset option that may have one entry for each.

    Args:
        name: Of the option.
        value: Frames, actions, camera motions or a state, of all environments together or of each.
        rows: The environments.
        count: Number of all environments.
        space: Space of the simulator's single action.

    Raises:
        StateError: If there is an entry for another number of environments, or the entries cannot be stacked.
    """
    if isinstance(value, State):
        return value.take(rows.tolist()) if value.num_envs == count else value
    if isinstance(value, dict) and isinstance(space, spaces.Dict):
        return {k: rows_of(name, part, rows, count, space.spaces.get(k)) for k, part in value.items()}
    if isinstance(value, (list, tuple)) and isinstance(space, spaces.Tuple) and name == "actions":
        parts = zip(value, space.spaces, strict=True)
        return [rows_of(name, part, rows, count, sub) for part, sub in parts]
    shape = (space.shape if space is not None else None) or ()
    single = {"frames": 4, "camera": 2, "actions": 1 + len(shape)}.get(name)
    if single is None or not isinstance(value, (np.ndarray, list)):
        return value
    try:
        whole = np.asarray(value)
    except ValueError as error:
        raise StateError(expected=f"{name} of equal lengths", got=str(error), remedy="Stack them.") from error
    if whole.ndim <= single:
        return value
    if len(value) != count:
        raise StateError(
            expected=f"{name} of {count} environments, or of one for all", got=len(value), remedy="Give one each."
        )
    return whole[rows]


def _names_truth(space: spaces.Space, action: Any) -> bool:  # noqa: ANN401 - any space's value
    """Whether a discrete part of an action is True or False, which Gymnasium's spaces take for 1 and 0."""
    if isinstance(space, spaces.Dict) and isinstance(action, dict):
        return any(_names_truth(s, action[k]) for k, s in space.spaces.items() if k in action)
    if isinstance(space, spaces.Tuple) and isinstance(action, (list, tuple)):
        return any(_names_truth(s, a) for s, a in zip(space.spaces, action, strict=False))
    return isinstance(space, spaces.Discrete) and isinstance(action, (bool, np.bool_))


def _held(actions: Any, stride: int) -> Any:  # noqa: ANN401 - any space's value
    if isinstance(actions, dict):
        return {k: _held(v, stride) for k, v in actions.items()}
    if isinstance(actions, list):
        return [_held(v, stride) for v in actions]
    return np.repeat(actions[:, None], stride, axis=1)


def _split(space: spaces.Space, actions: Any, count: int) -> list[Any]:  # noqa: ANN401 - any space's value
    if isinstance(space, spaces.Dict):
        if not isinstance(actions, dict) or set(actions) != set(space.spaces):
            raise ActionError(
                expected=f"a mapping with the keys of {space}", got=actions, remedy="Look at action_space."
            )
        parts = {k: _split(s, actions[k], count) for k, s in space.spaces.items()}
        return [{k: parts[k][i] for k in parts} for i in range(count)]
    if isinstance(space, spaces.Tuple):
        columns = [_split(s, a, count) for s, a in zip(space.spaces, actions, strict=True)]
        return [tuple(c[i] for c in columns) for i in range(count)]
    if isinstance(actions, (list, tuple)) and any(_names_truth(space, one) for one in actions):
        raise ActionError(expected=f"actions in {space}", got=actions, remedy="Pass numbers, not truth values.")
    batch = np.asarray(actions)
    if batch.ndim == 0 or len(batch) != count:
        raise ActionError(expected=f"{count} actions, one an environment", got=batch.shape, remedy="Stack them.")
    return list(batch)
