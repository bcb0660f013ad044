"""What stands before and after the blocks: features of the noise level, and the heads of reward and termination."""

import torch
from torch import Tensor, nn

LEVEL_FEATURES = 256


def level_features(time: Tensor) -> Tensor:
    """(..., 256) sinusoidal features [cos, sin] of the noise time, longest period 1e4 (as in GLIDE and DiT)."""
    half = LEVEL_FEATURES // 2
    frequencies = torch.exp(-torch.arange(half, device=time.device, dtype=torch.float32) * (9.210340371976184 / half))
    angles = time.float()[..., None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


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
