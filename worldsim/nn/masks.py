"""Masks of attention over time: True where a frame (row) may look at a frame (column)."""

import torch
from torch import Tensor


def causal_mask(num_frames: int, window: int, *, device: torch.device | None = None) -> Tensor:
    """(F, F) boolean: frame i sees frames i - window + 1 to i."""
    i = torch.arange(num_frames, device=device)
    gap = i[:, None] - i[None]
    return (gap >= 0) & (gap < window)


def two_stream_mask(num_frames: int, window: int, *, device: torch.device | None = None) -> Tensor:
    """(2F, 2F) boolean for a clean stream followed by a noisy stream of the same frames.

    A clean frame sees the clean past and itself; a noisy frame sees the clean past and itself. That is what a cached
    step sees, for every frame of a sequence at once.
    """
    clean = causal_mask(num_frames, window, device=device)
    itself = torch.eye(num_frames, dtype=torch.bool, device=device)
    top = torch.cat((clean, torch.zeros_like(clean)), dim=1)
    return torch.cat((top, torch.cat((clean & ~itself, itself), dim=1)))
