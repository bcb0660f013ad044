"""Noise paths: how a clean latent turns into noise, and what a network predicts about it.

Levels run from 0 (clean) to 1 (pure noise). A path mixes signal and noise, `x = signal(level) * x0 + noise(level) * e`:

- rectified flow (Liu et al. 2022, Lipman et al. 2022): signal 1 - level, noise level;
- variance preserving with the sigmoid schedule of Jabri et al. 2022, tabulated at 1000 steps as Oasis does.
"""

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from worldsim.config import ModelConfig, PathName, Prediction

_VP_STEPS = 1000


class NoisePath(Protocol):
    """A mixture of signal and noise indexed by the level in [0, 1]; all methods are elementwise."""

    def signal(self, level: Tensor) -> Tensor:
        """Factor of the clean latent."""
        ...

    def noise(self, level: Tensor) -> Tensor:
        """Factor of the unit Gaussian noise."""
        ...

    def time(self, level: Tensor) -> Tensor:
        """The number that the network's noise-level embedding receives."""
        ...


@dataclass(frozen=True)
class RectifiedFlow:
    """Straight paths from data to noise."""

    def signal(self, level: Tensor) -> Tensor:
        """1 - level."""
        return 1.0 - level

    def noise(self, level: Tensor) -> Tensor:
        """The level itself."""
        return level

    def time(self, level: Tensor) -> Tensor:
        """1000 * level, so that the sinusoidal embedding sees the usual range."""
        return 1000.0 * level


@dataclass(frozen=True)
class VariancePreserving:
    """Sigmoid betas from -3 to 3 with temperature 1; level (t + 1) / 1000 is step t, and level 0 is clean."""

    def signal(self, level: Tensor) -> Tensor:
        """Square root of the cumulative product of alphas."""
        return self._cumulative(level).sqrt().to(level.dtype)

    def noise(self, level: Tensor) -> Tensor:
        """Square root of one minus the cumulative product of alphas."""
        return (1.0 - self._cumulative(level)).sqrt().to(level.dtype)

    def time(self, level: Tensor) -> Tensor:
        """The integer step t as a float; -1 for the clean level."""
        return self._index(level).to(level.dtype) - 1.0

    def _index(self, level: Tensor) -> Tensor:
        # The small offset undoes float rounding of (t + 1) / 1000 before truncation.
        return (level.double() * _VP_STEPS + 1e-3).long()

    def _cumulative(self, level: Tensor) -> Tensor:
        return _sigmoid_alphas_cumulative().to(level.device)[self._index(level)]


@cache
@torch.inference_mode(mode=False)  # a constant made while stepping must serve training too
def _sigmoid_alphas_cumulative() -> Tensor:
    """(1001,) float64; entry 0 is the clean level, entry t + 1 is step t."""
    low, high = torch.sigmoid(torch.tensor(-3.0)).double(), torch.sigmoid(torch.tensor(3.0)).double()
    grid = torch.linspace(0, _VP_STEPS, _VP_STEPS + 1, dtype=torch.float64) / _VP_STEPS
    curve = (high - torch.sigmoid(grid * 6.0 - 3.0)) / (high - low)
    betas = (1.0 - curve[1:] / curve[:-1]).clamp(0.0, 0.999)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1.0 - betas, dim=0)])


def path_named(name: PathName) -> NoisePath:
    """The path of that name."""
    return {"rectified_flow": RectifiedFlow(), "variance_preserving": VariancePreserving()}[name]


def mix(path: NoisePath, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """The latent at `level`; `level` broadcasts over the trailing axes of `clean`."""
    level = _broadcast(level, clean)
    return path.signal(level) * clean + path.noise(level) * noise


def clean_from_prediction(path: NoisePath, kind: Prediction, prediction: Tensor, x: Tensor, level: Tensor) -> Tensor:
    """The clean latent that a prediction at `x`, `level` stands for.

    "velocity" is d x / d level of rectified flow, and v = signal * noise - noise_factor * x0 (Salimans & Ho 2022) of a
    variance-preserving path.
    """
    if kind == "x":
        return prediction
    level = _broadcast(level, x)
    signal, noise = path.signal(level), path.noise(level)
    if kind == "noise":
        return (x - noise * prediction) / signal.clamp(min=1e-6)
    if isinstance(path, RectifiedFlow):
        return x - level * prediction
    return signal * x - noise * prediction


def noise_from_clean(path: NoisePath, clean: Tensor, x: Tensor, level: Tensor) -> Tensor:
    """The unit noise that mixes with `clean` into `x` at `level` (levels above 0)."""
    level = _broadcast(level, x)
    return (x - path.signal(level) * clean) / path.noise(level).clamp(min=1e-8)


def _broadcast(level: Tensor, like: Tensor) -> Tensor:
    if level.ndim == 0:  # may stay on the CPU
        return level.to(like.dtype)
    return level.reshape(level.shape + (1,) * (like.ndim - level.ndim)).to(like.dtype)


def source(config: ModelConfig, noise: Tensor, near: Tensor, has_near: Tensor, spread: Tensor | None = None) -> Tensor:
    """Where the paths of frames begin, at level 1.

    Rectified flow runs between any two distributions; coupling each frame with the one before it keeps the path short
    (stochastic interpolants with data-dependent couplings, Albergo et al. 2023; for forecasting, Chen et al. 2024).

    Args:
        config: Its `source` and `source_noise`.
        noise: (B, F, C, h, w) unit Gaussian.
        near: The frame before each, or its forecast, like `noise`; what stands where there is none does not matter.
        has_near: Boolean, broadcastable to (B, F).
        spread: Standard deviation of the noise around it, like `noise`, where it is larger than `source_noise`.
    """
    if config.source == "noise":
        return noise
    scale = config.source_noise if spread is None else spread.to(noise).clamp(min=config.source_noise)
    return torch.where(has_near[..., None, None, None], near.to(noise) + scale * noise, noise)
