"""A world that writes what happens into its pixels, so that a recording can be checked frame by frame."""

from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class CountingWorld(gym.Env):
    """Red is the step, green the action that led to the frame, blue the seed modulo 251; ends after `steps` or on 9."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 12}

    def __init__(self, *, steps=20, render_mode=None, pixels=True, break_at=None, breakage=None):
        self.render_mode, self.steps = render_mode, steps
        image = spaces.Box(0, 255, (6, 8, 3), np.uint8)
        self.pixels = pixels
        self.observation_space = image if pixels else spaces.Box(-1, 1, (2,))
        self.action_space = spaces.Discrete(10)
        self.break_at, self.breakage = break_at, breakage
        self._image = np.zeros((6, 8, 3), np.uint8)  # one buffer, reused, as real environments do

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_number, self.last, self.seed_mark = 0, 0, seed % 251
        self.luck = int(self.np_random.integers(1000))
        return self._observe(), self._info()

    def step(self, action):
        self.step_number, self.last = self.step_number + 1, int(action)
        broken = self.step_number == self.break_at
        if broken and self.breakage == "raise":
            raise RuntimeError("the world broke")
        if broken and self.breakage == "exit":
            raise SystemExit(3)
        reward = float("nan") if broken and self.breakage == "reward" else self.step_number + self.last / 10
        return self._observe(), reward, self.last == 9, self.step_number >= self.steps, self._info()

    def render(self):
        self._image[..., 0], self._image[..., 1], self._image[..., 2] = self.step_number, self.last, self.seed_mark
        return self._image

    def _observe(self):
        return self.render() if self.pixels else np.zeros(2, np.float32)

    def _info(self):
        truth = {"step": np.array([self.step_number]), "luck": np.array(self.luck + self.step_number / 100)}
        if self.break_at == self.step_number and self.breakage == "truth":
            truth["new"] = np.zeros(2)
        return {"caption": f"luck {self.luck}", "truth": truth}


def cycling(observation, info, rng):
    """Needs the observation, the info and the randomness it is given."""
    return int((observation[0, 0, 0] + info["truth"]["step"][0] + rng.integers(3)) % 9)


class Remembering:
    """Acts on what it has seen in this episode; a memory of the episode before would change its actions."""

    def __init__(self):
        self.count = 0

    def __call__(self, observation, info, rng):
        self.count += 1
        return self.count % 9


def leaving(observation, info, rng):
    """Leaves the action space at the fourth step."""
    return 10 if info["truth"]["step"][0] == 3 else 1


gym.register(id="Counting-v0", entry_point=CountingWorld)
