"""Training of the tokenizer on single frames (or groups, with temporal stride 4)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from worldsim.tokenizer import ConvTokenizer
from worldsim.training.draws import Source, normal

NOISE = 0.05  # on the bounded bottleneck, so that the decoder forgives small errors of the transformer


def tokenizer_loss(tokenizer: ConvTokenizer, frames: Tensor, generator: Source) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared and absolute error of reconstruction through a noisy bottleneck, heavier where frames move.

    Args:
        tokenizer: The network.
        frames: (B, T, 3, H, W) in [-1, 1].
        generator: Source of the bottleneck's noise.
    """
    raw = tokenizer.bottleneck(frames)
    raw = raw + NOISE * normal(raw.shape, generator).to(raw)
    out = tokenizer.from_bottleneck(raw).float()
    target = tokenizer.group(frames)
    error = out - target
    squared = error.square().mean()
    loss = squared + 0.1 * error.abs().mean()
    return loss, {"mse": squared.detach()}


@torch.no_grad()
def reconstruction_psnr(tokenizer: ConvTokenizer, frames: Tensor) -> Mapping[str, float]:
    """Peak signal-to-noise ratio in dB of clamped reconstructions: the ceiling of every rollout."""
    out = tokenizer.decode(tokenizer.encode(frames), starts=True).clamp(-1, 1)
    mse = (out - frames).square().mean(dim=(1, 2, 3, 4)) / 4.0
    return {"psnr_db": float((-10.0 * torch.log10(mse.clamp(min=1e-10))).mean())}
