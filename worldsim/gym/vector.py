"""Learned worlds as one vectorised Gymnasium environment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from worldsim.errors import ConfigError, StateError, UnknownNameError
from worldsim.gym.actions import ActionFormat, rows_of
from worldsim.gym.episodes import (
    MAX_SEED,
    Running,
    checked_options,
    checked_render_mode,
    frames_space,
    simulator_of,
    start,
)
from worldsim.inputs import checked_size, checked_texts
from worldsim.simulator import Sampling, Simulator


class SimulatorVectorEnv(Running, VectorEnv[np.ndarray, Any, np.ndarray]):
    """Many learned worlds in one batch; environment k equals a `SimulatorEnv` seeded with `seed + k`.

    Options of `reset` are as there, for all environments or as a list of one each (`text`), with a leading axis
    (`frames`, `actions`, `camera`), or a state of `num_envs` environments. `reset_mask`, (num_envs,) boolean, resets
    some only.

    Args:
        num_envs: How many.
        checkpoint: Shipped name or directory, or a `Simulator`.
        text: Text of episodes whose reset names none.
        frame_size: (H, W) of generated frames; the training size by default.
        sampling: How frames are denoised; the checkpoint's own by default.
        device: Where to run; by default a simulator's own device, or the CPU.
        render_mode: "rgb_array", or None.
        max_episode_steps: Truncates episodes; None for no end.
        autoreset_mode: What happens when an episode ends: `NEXT_STEP`, `SAME_STEP` or `DISABLED` (Gymnasium 1.1).
        camera: As in `SimulatorEnv`.
        hold: As in `SimulatorEnv`.

    Raises:
        UnknownNameError: If there is no such checkpoint, render mode or autoreset mode.
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        num_envs: int,
        checkpoint: str | Path | Simulator = "bounce",
        *,
        text: str | None = None,
        frame_size: tuple[int, int] | None = None,
        sampling: Sampling | None = None,
        device: str | None = None,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        camera: bool | None = None,
        hold: bool = True,
    ) -> None:
        counts = [num_envs] if max_episode_steps is None else [num_envs, max_episode_steps]
        if not all(isinstance(n, (int, np.integer)) and n >= 1 for n in counts):
            got = f"num_envs {num_envs}, max_episode_steps {max_episode_steps}"
            raise ConfigError(expected="whole num_envs and max_episode_steps above 0", got=got, remedy="Correct them.")
        self.simulator = simulator_of(checkpoint, sampling, device)
        self.num_envs, self.text, self.render_mode = num_envs, text, checked_render_mode(render_mode)
        self.frame_size = checked_size(frame_size or self.simulator.frame_size)
        modes = {mode.value: mode for mode in AutoresetMode}
        name = autoreset_mode.value if isinstance(autoreset_mode, AutoresetMode) else autoreset_mode
        if name not in modes:
            raise UnknownNameError(kind="autoreset mode", name=str(name), known=modes)
        self.max_episode_steps, self.autoreset_mode = max_episode_steps, modes[name]
        fps = self.simulator.fps / self.simulator.actions_per_step
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": fps,
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_observation_space = frames_space(self.frame_size)
        self._actions = ActionFormat(self.simulator, camera=camera, hold=hold)
        self.single_action_space = self._actions.space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs: list[np.random.Generator] = [seeding.np_random(None)[0] for _ in range(num_envs)]
        self._frames = np.zeros((num_envs, *self.frame_size, 3), np.uint8)
        self._steps = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts episodes in all environments, or in those of `options["reset_mask"]`.

        Raises:
            StateError: If a state, a mask or seeds do not fit `num_envs`, or a state stands beside other options.
            TextError: If texts are none.
            UnknownNameError: If an option is unknown.
        """
        mask = options.get("reset_mask") if isinstance(options, dict) else None
        options = checked_options(options, "reset_mask")
        rows = np.arange(self.num_envs) if mask is None else np.flatnonzero(self._checked_mask(mask))
        seeds = self._seeds(seed)
        for row in rows:
            if seeds[row] is not None:
                self._rngs[row] = seeding.np_random(seeds[row])[0]
        self._begin(rows, options)
        return self._frames.copy(), self._infos()

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:  # noqa: ANN401
        """Denoises the next frame of every environment in one batch.

        Raises:
            StateError: Before the first reset, or after an end in mode `DISABLED` without a reset.
            ActionError: If an action is not in the action space.
        """
        restarting = self._ended.copy()
        if self.autoreset_mode == AutoresetMode.DISABLED and restarting.any():
            raise StateError(
                expected="a reset of the environments that ended",
                got=f"a step with {np.flatnonzero(restarting).tolist()} ended",
                remedy='Call reset(options={"reset_mask": terminated | truncated}).',
            )
        chosen, motions = self._actions.of_step(self._actions.split(actions, self.num_envs))
        step = self.simulator.step(self.state, chosen, camera=motions)
        self._state = step.state
        infos: dict[str, Any] = {}
        if self.simulator.actions_per_step > 1:
            infos |= {"frames": step.frames, "_frames": ~restarting}
        self._frames = np.array(step.frames[:, -1] if infos else step.frames)
        self._steps += 1
        rewards, terminated = step.rewards.astype(np.float64), step.terminated.copy()
        limit = self.max_episode_steps
        truncated = np.zeros(self.num_envs, bool) if limit is None else self._steps >= limit
        if self.autoreset_mode == AutoresetMode.NEXT_STEP and restarting.any():
            # The step of an ended environment is its reset: its action is ignored.
            rewards[restarting], terminated[restarting], truncated[restarting] = 0.0, False, False
            self._begin(np.flatnonzero(restarting), {})
        self._ended = terminated | truncated
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._ended.any():
            infos |= self._final_infos(self._ended)
            self._begin(np.flatnonzero(self._ended), {})
        return self._frames.copy(), rewards, terminated, truncated, infos | self._infos()

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The latest frames in mode "rgb_array"."""
        return tuple(self._frames) if self.render_mode == "rgb_array" else None

    def _begin(self, rows: np.ndarray, options: dict[str, Any]) -> None:
        """New episodes in the given rows."""
        if not len(rows):
            return
        text = options.get("text", self.text)
        texts = checked_texts(text, self.num_envs, known=True)
        if len(texts) != self.num_envs:
            raise StateError(expected=f"{self.num_envs} texts", got=len(texts), remedy="Give one each.")
        seeds = [int(self._rngs[row].integers(MAX_SEED)) for row in rows]
        space = self.simulator.action_space
        some = {k: rows_of(k, v, rows, self.num_envs, space) for k, v in options.items()}
        state, frames = start(self.simulator, some, [texts[r] for r in rows], seeds, self.frame_size)
        everyone = len(rows) == self.num_envs
        self._state = state if everyone else self.state.scatter(rows.tolist(), state)
        self._frames[rows] = frames
        self._steps[rows], self._ended[rows] = 0, False

    def _infos(self) -> dict[str, Any]:
        everyone = np.ones(self.num_envs, bool)
        return {
            "caption": np.array([c or "" for c in self.state.captions], dtype=object),
            "_caption": everyone,
            "frame": self.state.frame.cpu().numpy(),
            "_frame": everyone.copy(),
        }

    def _final_infos(self, ended: np.ndarray) -> dict[str, Any]:
        final = np.full(self.num_envs, None, dtype=object)
        for row in np.flatnonzero(ended):
            final[row] = self._frames[row].copy()
        info = {k: v for k, v in self._infos().items() if not k.startswith("_")}
        return {
            "final_obs": final,
            "_final_obs": ended.copy(),
            "final_info": info | {f"_{k}": ended.copy() for k in info},
            "_final_info": ended.copy(),
        }

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + k for k in range(self.num_envs)]
        if not isinstance(seed, (Sequence, np.ndarray)) or len(seed) != self.num_envs:
            raise StateError(expected=f"one seed, or {self.num_envs} seeds", got=repr(seed), remedy="Give one each.")
        return [None if one is None else int(one) for one in seed]

    def _checked_mask(self, mask: object) -> np.ndarray:
        if not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise StateError(
                expected=f"reset_mask as a boolean array ({self.num_envs},) with at least one True",
                got=mask,
                remedy="Pass terminated | truncated.",
            )
        return mask
