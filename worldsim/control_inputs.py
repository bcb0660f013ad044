"""What users pass as actions and camera motion, checked and turned into `Controls`."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from worldsim.camera import checked_motion, scaled_motion
from worldsim.checkpoint import Checkpoint
from worldsim.controls import Controls
from worldsim.errors import ActionError, CameraError
from worldsim.inputs import count_actions, past_vectors, slice_actions, step_vectors


class ControlInputs:
    """Reads actions and camera motion for a learned world.

    Args:
        checkpoint: The world.
        device: Where the controls go.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.space: spaces.Space | None = checkpoint.action_space
        self.ranges = checkpoint.camera_range
        self.stride = checkpoint.tokenizer.config.temporal_stride
        self._like = checkpoint.model.patchify.weight
        self._config, self._device = checkpoint.model.config, device

    def of_step(self, actions: Any, camera: np.ndarray | None, batch: int) -> Controls:  # noqa: ANN401 - any space's value
        """Controls of the next frame, (B, 1, ...); None stands for unknown ones.

        Args:
            actions: (B, ...), or with a stride above 1 (B, stride, ...).
            camera: (B, 6), or (B, stride, 6).
            batch: Number of environments.

        Raises:
            ActionError: If the actions do not fit the space or the number of environments.
            CameraError: If the motions do not fit that number, are not finite, or the model takes none.
        """
        vectors = None if actions is None else step_vectors(self.space, actions, batch, self.stride)
        if camera is not None:
            leading = (batch,) if self.stride == 1 else (batch, self.stride)
            camera = checked_motion(camera, leading).reshape(batch, self.stride, -1) if self._takes_camera() else None
        return self._controls(vectors, camera, batch, 1)

    def of_past(self, actions: Any, camera: np.ndarray | None, batch: int, latents: int) -> Controls:  # noqa: ANN401
        """Controls of given frames, (B, latents, ...); None stands for unknown ones, and nothing led to the first.

        Args:
            actions: (T - 1, ...) for all environments, or (B, T - 1, ...).
            camera: (T - 1, 6) or (B, T - 1, 6).
            batch: Number of environments.
            latents: Latent frames that the T given frames make.

        Raises:
            ActionError: If the actions do not fit the space, the frames or the number of environments.
            CameraError: If the motions do not fit the frames or that number, are not finite, or the model takes none.
        """
        vectors = None if actions is None else past_vectors(self.space, actions, batch, latents, self.stride)
        if camera is not None and self._takes_camera():
            count = (latents - 1) * self.stride
            leading = (batch, count) if np.ndim(camera) == 3 else (count,)
            camera = np.broadcast_to(checked_motion(camera, leading), (batch, count, 6))
        return self._controls(vectors, camera, batch, latents)

    def of_window(self, camera: np.ndarray | None, count: int, frames: int, *, first: int) -> Controls:
        """Controls of a run of `frames` frames, (1, frames, ...), of which some motions may be known.

        Args:
            camera: (count, 6), the motions to frames `first`, `first + 1`, ...; None stands for unknown ones.
            count: Number of motions.
            frames: Number of frames.
            first: The first frame that a motion leads to.

        Raises:
            CameraError: If the motions are not `count`, are not finite, or the model takes none.
        """
        controls = Controls.unknown(1, frames, self._config, self._like)
        if camera is not None and self._takes_camera():
            self._tell_camera(controls.at(slice(first, first + count)), checked_motion(camera, (count,))[None])
        return controls

    def count(self, actions: Any, camera: np.ndarray | None, num_frames: int | None) -> int:  # noqa: ANN401
        """The number of frames that a run of controls leads to.

        Args:
            actions: (T, ...), or None.
            camera: (T, 6), or None.
            num_frames: T, or None.

        Raises:
            ActionError: If nothing tells, they disagree, or do not fill whole steps.
            CameraError: If the motions are no run of motions, or the model takes none.
        """
        told = {"num_frames": num_frames}
        if actions is not None:
            told["actions"] = count_actions(self.space, actions)
        if camera is not None and self._takes_camera():
            told["camera"] = len(checked_motion(camera, np.shape(camera)[:1]))
        counts = {v for v in told.values() if v is not None}
        whole = all(isinstance(v, (int, np.integer)) for v in counts)
        if not whole or len(counts) != 1 or (count := counts.pop()) < 0 or count % self.stride:
            raise ActionError(
                expected=f"actions, camera motions or num_frames that agree, in a multiple of {self.stride}",
                got=told,
                remedy="Pass one of them, or as many of each.",
            )
        return count

    def piece(self, actions: Any, camera: np.ndarray | None, start: int) -> tuple[Any, np.ndarray | None]:  # noqa: ANN401
        """The actions and motions of one step out of runs of them, with a leading batch axis of one."""
        chosen = None if actions is None else slice_actions(self.space, actions, start, self.stride)
        if camera is None:
            return chosen, None
        motion = np.asarray(camera[start : start + self.stride])
        return chosen, motion if self.stride == 1 else motion[None]

    def _controls(self, vectors: np.ndarray | None, camera: np.ndarray | None, batch: int, frames: int) -> Controls:
        """Controls whose last frames have these actions and motions; nothing led to those before."""
        controls = Controls.unknown(batch, frames, self._config, self._like)
        if vectors is not None:
            told = controls.at(slice(frames - vectors.shape[1], None))
            told.actions[:] = torch.from_numpy(vectors).to(self._device)
            told.has_action[:] = True
        if camera is not None:
            self._tell_camera(controls.at(slice(frames - camera.shape[1] // self.stride, None)), camera)
        return controls

    def _tell_camera(self, controls: Controls, camera: np.ndarray) -> None:
        """Writes motions (B, F * stride, 6) into controls of F frames, in place."""
        assert self.ranges is not None
        groups = scaled_motion(camera, self.ranges).reshape(controls.camera.shape)
        controls.camera[:] = torch.from_numpy(groups).to(self._device)
        controls.has_camera[:] = True

    def _takes_camera(self) -> bool:
        """True.

        Raises:
            CameraError: If the model takes no camera motion.
        """
        if self.ranges is None:
            raise CameraError(
                expected="no camera motion for a model that takes none",
                got="some",
                remedy="Pass None, or train a world on data recorded with --camera.",
            )
        return True
