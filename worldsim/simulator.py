"""Simulator: a learned world that is stepped, branched and saved.

A step denoises the next frame against the cached past, passes the clean result once to extend the cache (reward and
termination are read there), and decodes it. The state is a value: stepping returns a new one and leaves the old valid.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldsim.checkpoint import Checkpoint, fingerprint_of, load_checkpoint
from worldsim.control_inputs import ControlInputs
from worldsim.controls import Controls
from worldsim.dynamics import Dynamics
from worldsim.errors import ActionError, CameraError, ConfigError, FramesError, StateError
from worldsim.inputs import (
    Text,
    checked_device,
    checked_frames,
    checked_seeds,
    checked_size,
    checked_texts,
    count_envs,
)
from worldsim.sampling import Sampling
from worldsim.state import State
from worldsim.tokenizer import check_frame_size
from worldsim.transformer import Precision
from worldsim.video import from_model, to_model

__all__ = ["Sampling", "Simulator", "State", "Step", "load"]


class Step(NamedTuple):
    """What a step returns.

    Attributes:
        state: The state after the step.
        frames: uint8 (B, H, W, 3), or (B, 4, H, W, 3) with temporal stride 4.
        rewards: float32 (B,); zeros for a model without outcome heads.
        terminated: bool (B,); False for a model without outcome heads.
    """

    state: State
    frames: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray


class Simulator:
    """A learned world.

    Args:
        checkpoint: The networks.
        sampling: How frames are denoised; the checkpoint's own by default.
        device: Where to run.
        precision: Of the transformer and its cache, "float32" or "bfloat16"; latents and the tokenizer stay float32.
        compiled: Whether the passes of a step go through torch.compile, on CUDA as CUDA graphs. The first step of a
            number of environments then takes a minute.

    Raises:
        ConfigError: If the sampling is none, or does not suit the model; if the device is not there.
        UnknownNameError: If the precision is not known.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        sampling: Sampling | None = None,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
        compiled: bool = False,
    ) -> None:
        if sampling is not None and not isinstance(sampling, Sampling):
            raise ConfigError(expected="a Sampling", got=repr(sampling), remedy="Pass for example Sampling(steps=1).")
        self.checkpoint = checkpoint
        self.sampling = sampling or Sampling.from_dict(checkpoint.meta.get("sampling", {}))
        self.device = checked_device(device)
        self.precision: Precision = precision
        self.compiled = compiled
        self.model = checkpoint.model.to(self.device).eval().for_stepping(precision, compiled=compiled)
        # Convolutions that keep channels together: faster, and the same whatever the layout of the latents.
        self.tokenizer = (
            checkpoint.tokenizer.to(self.device)
            .to(  # pyright: ignore[reportCallIssue] - its overloads lack this
                memory_format=torch.channels_last
            )
            .eval()
        )
        self.dynamics = Dynamics(self.model, self.sampling)
        # States of another precision hold other keys; compiled or not, they are the same.
        self.fingerprint = fingerprint_of(checkpoint) + ("" if precision == "float32" else f"-{precision}")
        self.inputs = ControlInputs(checkpoint, self.device)

    @property
    def action_space(self) -> spaces.Space | None:
        """Space of a single action."""
        return self.checkpoint.action_space

    @property
    def camera_range(self) -> tuple[float, ...] | None:
        """The largest motions of the camera in training (rad, rad, rad, m, m, m); None for a world that takes none."""
        return self.checkpoint.camera_range

    @property
    def fps(self) -> float:
        """Frames per second of simulated time."""
        return self.checkpoint.fps

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) the model was trained at; other multiples of its stride work too."""
        return self.checkpoint.frame_size

    @property
    def actions_per_step(self) -> int:
        """Actions consumed and frames given by a step: the temporal stride."""
        return self.tokenizer.config.temporal_stride

    @torch.inference_mode()
    def reset(
        self,
        *,
        frames: np.ndarray | None = None,
        actions: Any = None,  # noqa: ANN401 - any space's value
        camera: np.ndarray | None = None,
        text: Text = None,
        seed: int | Sequence[int] = 0,
        num_envs: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> tuple[State, np.ndarray]:
        """Starts one or more episodes.

        Args:
            frames: Given first frames, uint8 (T, H, W, 3) for all environments or (B, T, H, W, 3); without them the
                first frame is generated.
            actions: The T - 1 actions between the given frames, (T - 1, ...) or (B, T - 1, ...); without them the
                model is told that they are unknown.
            camera: The motions of the camera between them (`worldsim.camera`), (T - 1, 6) or (B, T - 1, 6); likewise.
            text: One text for all environments, or one each; None for no text.
            seed: One seed, from which environment k takes seed + k, or one each.
            num_envs: Number of environments, if `frames`, `text` and `seed` do not tell.
            frame_size: (H, W) of generated first frames; that of the given frames, or of the training data, by default.

        Returns:
            The state, and the latest frame of each environment, uint8 (B, H, W, 3).

        Raises:
            FramesError: If the frames' shape, type, size or number does not fit.
            ActionError: If the actions do not fit the frames or the space.
            CameraError: If the motions do not fit the frames, or the model takes none.
            TextError: If the model has no text, or a text is too long.
            StateError: If the arguments disagree on the number of environments, or a seed is no integer.
        """
        batch = count_envs(frames, text, seed, num_envs)
        if frames is None:
            for error, controls in ((ActionError, actions), (CameraError, camera)):
                if controls is not None:
                    raise error(
                        expected="no actions or camera motion without given frames",
                        got="some",
                        remedy="Pass them to `step`.",
                    )
            state = self._blank(batch, text, seed, frame_size or self.frame_size)
            step = self._advance(state, self.inputs.of_step(None, None, batch))
            return step.state, step.frames if self.actions_per_step == 1 else step.frames[:, -1]
        given = checked_frames(frames, batch)
        size = given.shape[2:4]
        if frame_size is not None and checked_size(frame_size) != size:
            raise FramesError(expected=f"frames of {tuple(frame_size)}", got=size, remedy="Resize them.")
        state = self._blank(batch, text, seed, size)
        latents = self.tokenizer.encode(to_model(given, self.device))
        controls = self.inputs.of_past(actions, camera, *latents.shape[:2])
        return self.dynamics.prefill(state, latents, controls), np.ascontiguousarray(given[:, -1])

    @torch.inference_mode()
    def step(
        self,
        state: State,
        actions: Any,  # noqa: ANN401 - any space's value
        *,
        camera: np.ndarray | None = None,
        donate: bool = False,
    ) -> Step:
        """Advances every environment by one step.

        Args:
            state: Where to go on from; stays valid.
            actions: One action per environment, stacked: (B, ...), or (B, 4, ...) with temporal stride 4. None for a
                world without actions, or to leave the action to the model.
            camera: Motion of each environment's camera to the next frame (`worldsim.camera`): (B, 6), or (B, 4, 6) with
                temporal stride 4. None for a world without, or to leave it to the model.
            donate: Give up the old state: its memory is reused, which saves a copy of the cache.

        Raises:
            StateError: If the state belongs to another model.
            ActionError: If the actions do not fit the space.
            CameraError: If the motions do not fit the environments, are not finite, or the model takes none.
        """
        self.dynamics.check(state, self.fingerprint)
        controls = self.inputs.of_step(actions, camera, state.num_envs)
        return self._advance(state if donate else state.clone(), controls)

    @torch.inference_mode()
    def observe(self, state: State) -> np.ndarray:
        """The latest frame of each environment, decoded from the state: uint8 (B, H, W, 3).

        Raises:
            StateError: If the state belongs to another model, or has seen no frame.
        """
        self.dynamics.check(state, self.fingerprint)
        if int(state.frame.min()) < 1:
            raise StateError(expected="a state that has seen a frame", got="a blank one", remedy="Reset first.")
        return from_model(self.tokenizer.decode(state.recent(1)[0]))[:, -1]

    def rollout(
        self,
        *,
        actions: Any = None,  # noqa: ANN401 - any space's value
        camera: np.ndarray | None = None,
        frames: np.ndarray | None = None,
        past_actions: Any = None,  # noqa: ANN401 - any space's value
        past_camera: np.ndarray | None = None,
        text: str | None = None,
        seed: int = 0,
        num_frames: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """A whole video of one environment.

        Args:
            actions: (T, ...) actions; None for none.
            camera: (T, 6) motions of the camera (`worldsim.camera`); None for none.
            frames: Given first frames, uint8 (T0, H, W, 3).
            past_actions: The (T0 - 1, ...) actions between the given frames; unknown by default.
            past_camera: The (T0 - 1, 6) motions between them; unknown by default.
            text: The text.
            seed: The seed.
            num_frames: Frames to generate beyond the first; the number of actions or motions by default.
            frame_size: (H, W) of a generated first frame, as in `reset`.

        Returns:
            uint8 (T0 + T, H, W, 3); T0 is 1 if no frames are given.

        Raises:
            ActionError: If the number of actions does not fit, or an action the space.
            CameraError: If the motions are not finite, or the model takes none.
            FramesError: If the frames do not fit.
            StateError: If texts or seeds are those of several environments.
        """
        if frames is not None and np.ndim(frames) != 4:
            raise FramesError(expected="one video (T, H, W, 3)", got=np.shape(frames), remedy="Use `reset` and `step`.")
        if (envs := count_envs(frames, text, seed, None)) != 1:
            raise StateError(expected="one text and one seed", got=f"{envs} of them", remedy="Use `reset` and `step`.")
        stride, inputs = self.actions_per_step, self.inputs
        count = inputs.count(actions, camera, num_frames)
        state, first = self.reset(
            frames=frames, actions=past_actions, camera=past_camera, text=text, seed=seed, frame_size=frame_size
        )
        video = list(first if frames is None else frames)
        for start in range(0, count, stride):
            chosen, motion = inputs.piece(actions, camera, start)
            step = self.step(state, chosen, camera=motion, donate=True)
            state = step.state
            video.extend(step.frames[0] if stride > 1 else step.frames)
        return np.stack(video)

    @torch.inference_mode()
    def surprise(
        self,
        frames: np.ndarray,
        *,
        actions: Any = None,  # noqa: ANN401 - any space's value
        camera: np.ndarray | None = None,
        text: Text = None,
        levels: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
        draws: int = 1,
        seed: int = 0,
    ) -> np.ndarray:
        """How badly each frame is denoised against the true past: what the model finds implausible is large.

        Every frame is noised to each level, and the squared error of the estimated clean latent is averaged over
        levels, draws and the latent. The noise of frame t depends on (seed, t, draw) alone, so that clips are compared
        under the same noise (as LikePhys, Yuan et al. 2025, does).

        Args:
            frames: uint8 (T, H, W, 3), or (B, T, H, W, 3).
            actions: The T - 1 actions between them, or (B, T - 1, ...); unknown by default.
            camera: The (T - 1, 6) motions of the camera between them, or (B, T - 1, 6); unknown by default.
            text: One text, or one for each clip.
            levels: Noise levels in (0, 1].
            draws: Draws of the noise for each level.
            seed: The seed of the noise.

        Returns:
            float64 (F,) or (B, F), in units of the latents' variance; F = T, or 1 + (T - 1) / 4 with temporal stride 4.
            The first frame has no past.

        Raises:
            ConfigError: If there is no level, a level is out of range, or there are no draws.
            FramesError: If the frames do not fit the model.
            ActionError: If the actions do not fit the frames or the space.
            CameraError: If the motions do not fit the frames, or the model takes none.
            TextError: If the text does not fit the model.
        """
        listed = isinstance(levels, Sequence) and len(levels) > 0 and all(0.0 < level <= 1.0 for level in levels)
        if not listed or not isinstance(draws, int) or draws < 1:
            raise ConfigError(
                expected="levels in (0, 1] and at least one draw", got=f"{levels} and {draws}", remedy="Correct them."
            )
        batch = count_envs(frames, text, seed, None)
        given = checked_frames(frames, batch)
        state = self._blank(batch, text, [seed] * batch, given.shape[2:4])
        latents = self.tokenizer.encode(to_model(given, self.device))
        controls = self.inputs.of_past(actions, camera, *latents.shape[:2])
        errors = []
        for i in range(latents.shape[1]):
            latent, own = latents[:, i : i + 1], controls.at(slice(i, i + 1))
            errors.append(self.dynamics.denoising_error(state, latent, own, levels, draws))
            state = self.dynamics.observe(state, latent, own)
        found = torch.stack(errors, dim=1).cpu().numpy()
        return found if frames.ndim == 5 else found[0]

    def _advance(self, state: State, controls: Controls) -> Step:
        state, latent, hidden = self.dynamics.advance(state, controls)
        rewards, terminated = self._outcomes(hidden, state.num_envs)
        video = from_model(self.tokenizer.decode(latent))
        return Step(state, video[:, 0] if self.actions_per_step == 1 else video, rewards, terminated)

    def _outcomes(self, hidden: Tensor | None, count: int) -> tuple[np.ndarray, np.ndarray]:
        if hidden is None:
            return np.zeros(count, np.float32), np.zeros(count, bool)
        reward, logit = self.model.outcomes(hidden)
        scaled = reward[:, 0].float() * self.checkpoint.reward_scale
        return scaled.cpu().numpy().astype(np.float32), (logit[:, 0] > 0).cpu().numpy()

    def _blank(self, batch: int, text: Text, seed: int | Sequence[int], size: tuple[int, int]) -> State:
        """A state in which nothing has been seen, of frames of size (H, W)."""
        config, stride = self.model.config, self.tokenizer.config.spatial_stride
        size = checked_size(size)
        check_frame_size(*size, self.tokenizer.config, patch=config.patch)
        texts = checked_texts(text, batch, known=config.text is not None)
        grid = (size[0] // stride, size[1] // stride)
        return self.dynamics.blank(checked_seeds(seed, batch), texts, grid, fingerprint=self.fingerprint)


def load(
    name_or_path: str | Path,
    *,
    sampling: Sampling | None = None,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    compiled: bool = False,
) -> Simulator:
    """A simulator from a shipped checkpoint's name or a checkpoint directory; see `Simulator` for the rest.

    Raises:
        UnknownNameError: If there is no such checkpoint; the message suggests the nearest name.
        CheckpointError: If it is truncated, foreign, of another version or not finite.
        ConfigError: If the device is not there.
    """
    checkpoint = load_checkpoint(name_or_path, device=checked_device(device))
    return Simulator(checkpoint, sampling=sampling, device=device, precision=precision, compiled=compiled)
