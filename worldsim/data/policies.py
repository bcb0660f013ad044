"""Policies for recording, for any action space."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from worldsim.errors import ConfigError


class Persistent:
    """Draws a random action and keeps it for a while, so that its effect can be seen.

    Uniformly random actions cancel out over a few frames; held ones move things.

    Args:
        action_space: What to draw from.
        mean_frames: Mean number of frames an action is held; the length is geometric.

    Raises:
        ConfigError: If `mean_frames` is below 1.
    """

    def __init__(self, action_space: spaces.Space, *, mean_frames: float = 4.0) -> None:
        if mean_frames < 1:
            raise ConfigError(expected="mean_frames of at least 1", got=mean_frames, remedy="Raise it.")
        self.action_space, self.mean_frames = action_space, mean_frames
        self._held: Any = None

    def reset(self) -> None:
        """Forgets the action held, before an episode."""
        self._held = None

    def __call__(self, observation: Any, info: Mapping[str, Any], rng: np.random.Generator) -> Any:  # noqa: ANN401, ARG002
        """The held action, or at random a new one."""
        if self._held is None or rng.random() < 1.0 / self.mean_frames:
            self.action_space.seed(int(rng.integers(2**31)))
            self._held = self.action_space.sample()
        return self._held
