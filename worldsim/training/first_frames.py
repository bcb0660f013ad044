"""Single frames of many scenes: what a world must learn to begin from its text."""

import math
from typing import Any

import numpy as np
import torch

from worldsim.camera import MOTION_DIM
from worldsim.data import Dataset, Windows
from worldsim.spaces import action_dim
from worldsim.training.batches import LatentBatch
from worldsim.training.config import TrainConfig
from worldsim.training.data import describe_windows, rows_slice, split_episodes

_HELD_FRAMES = 64


def due(step: int, share: float) -> bool:
    """Whether update `step` is one of a share of them, which lie evenly among the others."""
    return math.floor((step + 1) * share) > math.floor(step * share)


class FirstFrames:
    """Batches of latent frames that have nothing before them, as many frames as a batch of windows has.

    Neighbouring frames tell the same of their caption, so every frame is drawn by itself; episodes may be too short for
    windows.

    Args:
        dataset: The dataset.
        latents: (frames, C, h, w) float16.
        config: The run, as for this dataset (`TrainConfig.of_dataset`).
        camera: Whether the model takes the camera's motion.
    """

    def __init__(self, dataset: Dataset, latents: np.ndarray, config: TrainConfig, *, camera: bool) -> None:
        self.dataset, self.latents = dataset, latents
        self.camera = camera and dataset.has_camera
        self.frames, self.stride = config.dynamics.length, config.tokenizer.temporal_stride
        self.episodes, held = split_episodes(dataset, config.held_out, config.episodes)
        size, seed = config.optimiser.batch_size * self.frames, config.seed + 2
        self._drawn = Windows(dataset, 1, batch_size=size, seed=seed, episodes=self.episodes, frames=False)
        self._held = Windows(dataset, 1, batch_size=_HELD_FRAMES, seed=seed, episodes=held, frames=False)

    @property
    def num_windows(self) -> int:
        """Number of scenes, which is what counts here."""
        return len(self.episodes)

    def batch(self, step: int, device: torch.device, rows: range | None = None) -> LatentBatch:
        """The frames of update `step`, or some rows of them; of what led to them nothing is known."""
        return self._convert(self._raw(step, rows), self.frames, device)

    def describe(self, step: int, rows: range | None = None) -> str:
        """Which frames these are."""
        return describe_windows(self._raw(step, rows), self.dataset)

    def held_out(self, index: int, device: torch.device) -> LatentBatch:
        """Frames of held-out episodes; the same for the same index."""
        return self._convert(self._held.batch(index), 1, device)

    def _raw(self, step: int, rows: range | None) -> dict[str, Any]:
        """What `Windows` draws, a row being `frames` frames."""
        rows = None if rows is None else range(rows.start * self.frames, rows.stop * self.frames)
        return self._drawn.batch(step, rows_slice(rows))

    def _convert(self, raw: dict[str, Any], frames: int, device: torch.device) -> LatentBatch:
        index = self.dataset.starts[raw["episode"]] + raw["start"]
        latents = torch.from_numpy(self.latents[index].astype(np.float32)).unflatten(0, (-1, frames))
        b, f = latents.shape[:2]
        unknown = torch.zeros(b, f, device=device)
        return LatentBatch(
            latents=latents.to(device),
            actions=torch.zeros(b, f, action_dim(self.dataset.action_space) * self.stride, device=device),
            rewards=unknown,
            terminated=unknown.bool(),
            known=unknown.bool(),
            texts=[c or None for c in raw["captions"]],
            camera=torch.zeros(b, f, MOTION_DIM * self.stride, device=device) if self.camera else None,
            lone=True,
        )
