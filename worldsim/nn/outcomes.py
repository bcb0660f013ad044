"""Reward and termination of frames, read from their hidden tokens.

Shape legend: B sequences, F latent frames, N tokens of a frame, D width, K values that a reward is said to have.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FARTHEST = 5.0
"""Symmetric logarithm of the largest reward that can be said: 147 times the spread of the rewards in the data."""


class Outcome(nn.Module):
    """Reward and termination of a frame from the mean and the maximum of its hidden tokens.

    With `reward_bins` the reward is a distribution over values that are even in symmetric logarithm, trained by
    cross-entropy and read as its mean (DreamerV3, Hafner et al. 2023): a rare signed reward, whose mean is nought
    everywhere, is learned that way while squared error still sees nothing. Without, it is one number.

    Args:
        width: D.
        reward_bins: K, odd; 0 for one number and squared error.
    """

    def __init__(self, width: int, reward_bins: int = 0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, max(1, reward_bins) + 1))
        self.reward_bins = reward_bins

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, N, D) to reward and termination logit, each (B, F)."""
        said, logit = self._said(hidden)
        if not self.reward_bins:
            return said[..., 0], logit
        return said.float().softmax(dim=-1) @ reward_values(self.reward_bins, said.device), logit

    def losses(self, hidden: Tensor, rewards: Tensor, terminated: Tensor) -> tuple[Tensor, Tensor]:
        """What is wrong about the reward and the termination of each frame, two (B, F).

        Args:
            hidden: (B, F, N, D).
            rewards: (B, F), in units of the data's spread.
            terminated: (B, F) boolean.
        """
        said, logit = self._said(hidden)
        ended = F.binary_cross_entropy_with_logits(logit.float(), terminated.float(), reduction="none")
        if not self.reward_bins:
            return (said[..., 0].float() - rewards).square(), ended
        target = two_hot(rewards, reward_values(self.reward_bins, said.device))
        return -(target * said.float().log_softmax(dim=-1)).sum(dim=-1), ended

    def _said(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, K or 1) of the reward, and the termination logit (B, F)."""
        x = self.norm(hidden)
        out = self.mlp(torch.cat((x.mean(dim=2), x.amax(dim=2)), dim=-1))
        return out[..., :-1], out[..., -1]


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)  # a constant made while stepping must serve training too
def reward_values(count: int, device: torch.device | None = None) -> Tensor:
    """(K,) values that a reward may be said to have, ascending, even in symmetric logarithm, nought among them.

    >>> reward_values(5).round().tolist()
    [-147.0, -11.0, 0.0, 11.0, 147.0]
    """
    above = torch.linspace(0.0, _FARTHEST, count // 2 + 1, device=device).expm1()
    return torch.cat((-above[1:].flip(0), above))


def two_hot(x: Tensor, values: Tensor) -> Tensor:
    """(...) numbers to (..., K) weights on the two values beside each, whose mean is the number.

    What lies beyond the outermost values counts as those.

    Args:
        x: Any shape.
        values: (K,) ascending, at least two.
    """
    x = x.clamp(float(values[0]), float(values[-1]))
    above = torch.searchsorted(values, x.contiguous()).clamp(1, len(values) - 1)
    low, high = values[above - 1], values[above]
    share = ((x - low) / (high - low))[..., None]
    ends = F.one_hot(above - 1, len(values)), F.one_hot(above, len(values))
    return (1.0 - share) * ends[0] + share * ends[1]
