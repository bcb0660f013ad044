"""What stands before and after the blocks: features of the noise level, and the heads of reward and termination."""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

LEVEL_FEATURES = 256


def level_features(time: Tensor) -> Tensor:
    """(..., 256) sinusoidal features [cos, sin] of the noise time, longest period 1e4 (as in GLIDE and DiT)."""
    angles = time.float()[..., None] * _level_frequencies(time.device)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)  # a constant made while stepping must serve training too
def _level_frequencies(device: torch.device) -> Tensor:
    half = LEVEL_FEATURES // 2
    return torch.exp(-torch.arange(half, device=device, dtype=torch.float32) * (math.log(1e4) / half))


class Outcome(nn.Module):
    """Reward and termination of a frame from the mean and the maximum of its hidden tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, 2))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, N, D) to reward and termination logit, each (B, F)."""
        x = self.norm(hidden)
        out = self.mlp(torch.cat((x.mean(dim=2), x.amax(dim=2)), dim=-1))
        return out[..., 0], out[..., 1]
