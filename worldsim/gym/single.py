"""A learned world as a Gymnasium environment."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldsim.gym.actions import ActionFormat
from worldsim.gym.episodes import (
    MAX_SEED,
    Running,
    checked_options,
    checked_render_mode,
    frames_space,
    simulator_of,
    start,
)
from worldsim.inputs import checked_size
from worldsim.simulator import Sampling, Simulator


class SimulatorEnv(Running, gym.Env[np.ndarray, Any]):
    """One learned world, stepped.

    Observations are frames (H, W, 3) uint8. The action space is that of the recorded world; of one that takes the
    camera's motion, a Dict of `action` and `camera`, or the motion alone where there are no actions; a world with
    neither takes 0. Motions (`worldsim.camera`) are bounded by the largest ones in training. With temporal stride 4 an
    action is held for four frames, of which the last is observed; all four are in `info["frames"]`.

    `reset(seed, options)` takes `text`, `frames` (T, H, W, 3) with the `actions` and motions (`camera`) between them,
    or a `state` of the simulator alone; without frames the first frame is generated. `info` holds `caption` (the
    text, also after a `state`) and `frame` (latent frames seen so far).

    Args:
        checkpoint: Shipped name or directory, or a `Simulator`.
        text: Text of episodes whose reset names none.
        frame_size: (H, W) of generated frames; the training size by default.
        sampling: How frames are denoised; the checkpoint's own by default.
        device: Where to run; by default a simulator's own device, or the CPU.
        render_mode: "rgb_array", or None.
        camera: Whether agents move the camera; by default where the world takes its motion.
        hold: With temporal stride 4: False makes an action of four, stacked, one for each frame.

    Raises:
        UnknownNameError: If there is no such checkpoint.
        CheckpointError: If it is damaged.
        ConfigError: If the camera of a world that takes no motion is to be moved, or a simulator to another device.
        FramesError: If the frame size is not two whole numbers above 0.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's form

    def __init__(
        self,
        checkpoint: str | Path | Simulator = "bounce",
        *,
        text: str | None = None,
        frame_size: tuple[int, int] | None = None,
        sampling: Sampling | None = None,
        device: str | None = None,
        render_mode: str | None = None,
        camera: bool | None = None,
        hold: bool = True,
    ) -> None:
        self.simulator = simulator_of(checkpoint, sampling, device)
        self.text, self.frame_size = text, checked_size(frame_size or self.simulator.frame_size)
        self.render_mode = checked_render_mode(render_mode)
        self.metadata = self.metadata | {"render_fps": self.simulator.fps / self.simulator.actions_per_step}
        self.observation_space = frames_space(self.frame_size)
        self._actions = ActionFormat(self.simulator, camera=camera, hold=hold)
        self.action_space = self._actions.space
        self._frame: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; see the class for `options`.

        Raises:
            UnknownNameError: If an option is unknown.
            FramesError: If given frames do not fit.
            StateError: If a given state belongs to another model, or stands beside other options.
        """
        super().reset(seed=seed)
        options = checked_options(options)
        episode_seed = int(self.np_random.integers(MAX_SEED))
        texts = [options.get("text", self.text)]
        self._state, frame = start(self.simulator, options, texts, [episode_seed], self.frame_size)
        self._frame = np.asarray(frame[0])
        return self._frame, self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:  # noqa: ANN401 - any space
        """Denoises the next frame.

        Raises:
            StateError: Before the first reset.
            ActionError: If the action is not in the action space.
        """
        actions, motions = self._actions.of_step([action])
        # The caller may hold on to `state`, so its memory is not reused.
        step = self.simulator.step(self.state, actions, camera=motions)
        self._state, info = step.state, {}
        if self.simulator.actions_per_step > 1:
            info["frames"] = step.frames[0]
        self._frame = np.asarray(step.frames[0, -1] if info else step.frames[0])
        return self._frame, float(step.rewards[0]), bool(step.terminated[0]), False, info | self._info()

    def render(self) -> np.ndarray | None:
        """The latest frame in mode "rgb_array"."""
        return self._frame if self.render_mode == "rgb_array" else None

    def _info(self) -> dict[str, Any]:
        return {"caption": self.state.captions[0] or "", "frame": int(self.state.frame[0])}
