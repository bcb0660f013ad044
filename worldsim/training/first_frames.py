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


class FirstFrames:
    """Batches of latent frames that have nothing before them, as many frames as a batch of windows has.

    Neighbouring frames tell the same of their caption, so every frame is drawn by itself.

    Args:
        dataset: The dataset.
        latents: (frames, C, h, w) float16.
        config: The run, as for this dataset (`TrainConfig.of_dataset`).
        episodes: Episodes to draw from.
        camera: Whether the model takes the camera's motion.
    """

    def __init__(
        self, dataset: Dataset, latents: np.ndarray, config: TrainConfig, episodes: np.ndarray, *, camera: bool
    ) -> None:
        self.dataset, self.latents, self.share, self.camera = dataset, latents, config.dynamics.first_frames, camera
        self.frames, self.stride = config.dynamics.length, config.tokenizer.temporal_stride
        self._drawn = Windows(
            dataset,
            1,
            batch_size=config.optimiser.batch_size * self.frames,
            seed=config.seed + 2,
            episodes=episodes,
            frames=False,
        )

    def due(self, step: int) -> bool:
        """Whether update `step` is one of theirs; they lie evenly among the others."""
        return math.floor((step + 1) * self.share) > math.floor(step * self.share)

    def raw(self, step: int, rows: range | None = None) -> dict[str, Any]:
        """What update `step` draws, as from `Windows`, or some rows of it, of `frames` frames each."""
        each = self.frames
        return self._drawn.batch(step, slice(None) if rows is None else slice(rows.start * each, rows.stop * each))

    def batch(self, step: int, device: torch.device, rows: range | None = None) -> LatentBatch:
        """The frames of update `step`, or some rows of them; of what led to them nothing is known."""
        raw = self.raw(step, rows)
        index = self.dataset.starts[raw["episode"]] + raw["start"]
        latents = torch.from_numpy(self.latents[index].astype(np.float32)).unflatten(0, (-1, self.frames))
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
