"""What a frame holds on the whole, wherever things stand, and how well a text says it.

Denoising asks the words for little: by the time that a body can be seen in the noise, its colour can, and they are
learnt late. What is there on the whole follows from the words alone, and teaches their encoder within minutes. It is
the mean over places of random features of the latents, which tells the distribution of the latents of a place (kernel
mean embeddings, Smola et al. 2007, by random features, Rahimi and Recht 2007). The mean of the latents themselves tells
colours, and next to nothing of shapes.

Shape legend: N frames, C latent channels, h x w latent grid, K features.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor


def summary_of(frames: Tensor, count: int) -> Tensor:
    """What frames hold on the whole.

    Args:
        frames: (N, C, h, w) latents of unit variance.
        count: Number of features, K; the same ones at every call.

    Returns:
        (N, K) float32: means over places, less what normal noise gives, times the root of the number of places. Their
        variance is of the order of one, were places independent.
    """
    weight, bias, expected = (x.to(frames.device) for x in _features(frames.shape[1], count))
    found = F.gelu(torch.einsum("nchw,kc->nkhw", frames.float(), weight) + bias[:, None, None])
    return (found.mean(dim=(2, 3)) - expected) * (frames.shape[-2] * frames.shape[-1]) ** 0.5


def summary_error(said: Tensor, frames: Tensor) -> Tensor:
    """Mean squared error of what texts say (N, K) of frames (N, C, h, w); a scalar."""
    return (said.float() - summary_of(frames, said.shape[1])).square().mean()


@functools.lru_cache(maxsize=8)
def _features(channels: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (K, C) and biases (K,) of the features, and their means (K,) over normal noise."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(count, channels, generator=draw) / channels**0.5
    bias = torch.randn(count, generator=draw)
    # Of x times the normal distribution function of x, which is GELU, over x normal with this bias as its mean.
    variance = weight.square().sum(dim=1)
    spread = (1.0 + variance).sqrt()
    normal = torch.distributions.Normal(0.0, 1.0)
    expected = bias * normal.cdf(bias / spread) + variance / spread * normal.log_prob(bias / spread).exp()
    return weight, bias, expected
