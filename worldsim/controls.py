"""What led to frames: actions and the camera's motion, as a network takes them, each known or not.

Shape legend: B environments, F latent frames, A numbers of an action, M numbers of a motion; of a group's four actions
and motions together with temporal stride 4.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from worldsim.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Controls of a run of frames.

    Attributes:
        actions: (B, F, A); `actions[:, i]` led to frame i.
        has_action: (B, F) boolean, whether it is known.
        camera: (B, F, M); `camera[:, i]` is the motion to frame i, in units of the largest one in training.
        has_camera: (B, F) boolean, whether it is known.
    """

    actions: Tensor
    has_action: Tensor
    camera: Tensor
    has_camera: Tensor

    @classmethod
    def unknown(cls, batch: int, frames: int, config: ModelConfig, like: Tensor) -> Self:
        """Controls of which nothing is known, of the model's sizes and of a tensor's type and device."""
        known = torch.zeros(batch, frames, dtype=torch.bool, device=like.device)
        return cls(
            actions=like.new_zeros(batch, frames, config.action_dim),
            has_action=known,
            camera=like.new_zeros(batch, frames, config.camera_dim),
            has_camera=known.clone(),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Each part by its name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The function applied to each part."""
        return type(self)(**{name: function(part) for name, part in self.tensors().items()})

    def at(self, frames: slice) -> Self:
        """Those of some frames, sharing memory."""
        return self.map(lambda part: part[:, frames])

    def put(self, rows: Tensor, slots: Tensor, other: Self) -> None:
        """Overwrites frame `slots[k]` of environment `rows[k]` with the single frame of `other` there, in place."""
        for name, part in self.tensors().items():
            new: Tensor = getattr(other, name)[:, 0]
            part[rows, slots] = new.to(part.dtype)
