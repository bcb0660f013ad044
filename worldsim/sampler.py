"""Samplers as pure functions of (denoise, x, levels).

`denoise(x, level)` returns the model's estimate of the clean latent. Levels are a decreasing sequence that starts at
the level of `x` and usually ends at 0. All samplers here solve the probability-flow equation of a noise path.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from worldsim.errors import ConfigError
from worldsim.noise import NoisePath, RectifiedFlow, VariancePreserving, noise_from_clean

Denoise = Callable[[Tensor, Tensor], Tensor]
Method = Literal["euler", "heun"]


def level_grid(num_steps: int, path: NoisePath, *, start: float = 1.0) -> Tensor:
    """(num_steps + 1,) float64 levels from `start` to 0.

    Evenly spaced for rectified flow; for a variance-preserving path rounded down to whole steps, as in Oasis.

    Raises:
        ConfigError: If `num_steps` is below 1 or `start` is outside (0, 1].
    """
    if num_steps < 1 or not 0.0 < start <= 1.0:
        raise ConfigError(
            expected="at least one step and a start level in (0, 1]",
            got=f"{num_steps} steps from level {start}",
            remedy="Raise the number of steps, or the start level.",
        )
    if isinstance(path, VariancePreserving):
        # In float32 and from below, as the reference counts: truncation makes the order of rounding matter.
        steps = torch.linspace(-1.0, start * 1000.0 - 1.0, num_steps + 1).trunc().double()
        return (steps.flip(0) + 1.0) / 1000.0
    return torch.linspace(start, 0.0, num_steps + 1, dtype=torch.float64)


def sample(
    denoise: Denoise,
    x: Tensor,
    levels: Tensor,
    path: NoisePath | None = None,
    *,
    method: Method = "euler",
    damping: float = 1.0,
) -> Tensor:
    """Integrates from `levels[0]` to `levels[-1]`.

    Args:
        denoise: The estimate of the clean latent at (x, level); level is a 0-d tensor, an element of `levels`.
        x: The latent at `levels[0]`.
        levels: (S + 1,) decreasing.
        path: The noise path; rectified flow by default.
        method: "euler" (first order; on a variance-preserving path this is DDIM, Song et al. 2020) or "heun" (second
            order, Karras et al. 2022; two evaluations a step except the last).
        damping: Factor on every update but the last; below 1 it counters drift of long rollouts.

    Raises:
        ConfigError: If the levels do not decrease, or the method does not suit the path.
    """
    path = path or RectifiedFlow()
    if levels.ndim != 1 or len(levels) < 2 or not bool((levels.diff() < 0).all()):
        raise ConfigError(expected="two or more decreasing levels", got=levels.tolist(), remedy="Use `level_grid`.")
    if method == "heun" and not isinstance(path, RectifiedFlow):
        raise ConfigError(expected="rectified flow for Heun's method", got=type(path).__name__, remedy="Use 'euler'.")
    last = len(levels) - 2
    for i, (here, there) in enumerate(pairwise(levels.to(x.dtype))):
        clean = denoise(x, here)
        if method == "heun" and there > 0:
            moved = _heun_step(denoise, x, clean, here, there)
        else:
            moved = first_order_step(x, clean, here, there, path)
        x = moved if damping == 1.0 or i == last else x + damping * (moved - x)
    return x


def first_order_step(x: Tensor, clean: Tensor, here: Tensor, there: Tensor, path: NoisePath) -> Tensor:
    """One step that keeps the estimated clean latent and noise and changes their mixture.

    It is Euler's step of rectified flow and DDIM's step of a variance-preserving path. Where `here` is 0 and so is
    `there`, x is clean and is replaced by the estimate.
    """
    noise = noise_from_clean(path, clean, x, here)
    return path.signal(there) * clean + path.noise(there) * noise


def _heun_step(denoise: Denoise, x: Tensor, clean: Tensor, here: Tensor, there: Tensor) -> Tensor:
    slope = (x - clean) / here
    guess = x + (there - here) * slope
    slope_there = (guess - denoise(guess, there)) / there
    return x + (there - here) * 0.5 * (slope + slope_there)
