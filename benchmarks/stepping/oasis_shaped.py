"""Cached generation against full recomputation, with a model shaped as Oasis'; `step.py` prints it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from stepping.timing import median_of, operator_time
from torch import Tensor

from worldsim.config import ModelConfig
from worldsim.controls import Controls
from worldsim.dynamics import Dynamics
from worldsim.nn.masks import causal_mask
from worldsim.noise import clean_from_prediction
from worldsim.sampler import level_grid, sample
from worldsim.sampling import Sampling
from worldsim.sizes import cost
from worldsim.state import frame_noise
from worldsim.transformer import Conditions, VideoDiT


def oasis_shaped(width: int, depth: int, grid: tuple[int, int], device: str, rate: float) -> dict[str, object]:
    """Cached generation against full recomputation, with the same outputs from the same past.

    Medians of some frames are taken, of both; those of the frames between are interpolated.
    """
    torch.manual_seed(0)
    config = ModelConfig(
        latent_channels=16, width=width, depth=depth, heads=max(1, width // 64), mlp_ratio=4.0, window=32,
        modulation="block", qk_norm=False, grid_positions="pixel", action_dim=25, action_token=False,
        heads_out=False, path="variance_preserving", prediction="velocity",
    )  # fmt: skip
    model = VideoDiT(config).to(device).eval().requires_grad_(requires_grad=False)
    for weight in model.parameters():  # a new model predicts zero whatever it sees
        weight.copy_(torch.randn_like(weight) * (weight[0].numel() if weight.ndim > 1 else 25) ** -0.5)
    exact = Dynamics(model, Sampling(steps=10, cache="exact", context_level=0.015, context_noise=False))
    rolling = Dynamics(model, Sampling(steps=10, cache="rolling", context_level=0.015, context_noise=False))
    window, past = config.window, torch.randn(1, config.window, 16, *grid, device=device)
    slow, quick, difference = {}, {}, 0.0
    with torch.inference_mode():
        _, advance = _next_frame(exact, past[:, :1])
        advance()  # warms the allocator up
        for i in (1, window // 2, window - 1, window):  # the window fills; then it slides
            _, advance = _next_frame(exact, past[:, :i])
            quick[i], found = median_of(advance)
            if i != window - 1:  # as many frames pass through the network as when the window slides
                slow[i], again = median_of(lambda i=i: _recomputed(exact, past[:, :i], i))
                difference = max(difference, float((again - found).abs().max()))
        slow[window - 1] = slow[window]
        model_passes, advance = _next_frame(rolling, past)
        rolled, _ = median_of(advance)
        spent = operator_time(advance, rounds=1)
    filling = range(1, window)
    first, first_quick = (float(np.interp(filling, list(t), list(t.values())).sum()) for t in _in_order(slow, quick))
    flops = cost(config, latent_grid=grid).flops_per_pass * model_passes
    return {
        "width_depth_grid": [width, depth, list(grid)],
        "parameters": sum(p.numel() for p in model.parameters()),
        "largest_difference_of_latents": difference,
        "first_32_frames_ratio": round(first / first_quick, 1),
        "sliding_exact_ratio": round(slow[window] / quick[window], 1),
        "sliding_rolling_ratio": round(slow[window] / rolled, 1),
        "seconds_full_p50": {i: round(t, 3) for i, t in slow.items()},
        "seconds_cached_p50": {i: round(t, 3) for i, t in quick.items()},
        "seconds_rolling_p50": round(rolled, 3),
        "share_of_matrix_rate_rolling": round(flops / rolled / rate, 3),
        "operator_time_rolling": spent,
    }


def _in_order(*times: dict[int, float]) -> list[dict[int, float]]:
    return [dict(sorted(t.items())) for t in times]


def _next_frame(dynamics: Dynamics, past: Tensor) -> tuple[int, Callable[[], Tensor]]:
    """The number of passes over the frame after the given latent ones, and what makes it, as often as wanted."""
    device, known = str(past.device), past.shape[1]
    state = dynamics.blank([0], [None], (past.shape[3], past.shape[4]), fingerprint="")
    actions = torch.cat([_action(i, device) for i in range(known)], dim=1)
    state = dynamics.prefill(state, past, _controls(dynamics, actions, torch.arange(known, device=device)[None] > 0))
    action = _action(known, device)
    controls = _controls(dynamics, action, torch.ones_like(action[..., 0]).bool())
    # A step writes in place; what it writes is what the next call of the same writes again.
    return dynamics.sampling.steps + 1, lambda: dynamics.advance(state, controls)[1]


def _controls(dynamics: Dynamics, actions: Tensor, known: Tensor) -> Controls:
    unknown = Controls.unknown(len(actions), actions.shape[1], dynamics.model.config, actions)
    return replace(unknown, actions=actions, has_action=known)


def _action(frame: int, device: str) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor([[frame % 25]], device=device), 25).float()


def _recomputed(dynamics: Dynamics, frames: Tensor, i: int) -> Tensor:
    """Frame i by passes over the whole window, as published: no cache."""
    model, device = dynamics.model, str(frames.device)
    begin = max(0, i - model.config.window + 1)
    context, positions = frames[:, begin:], torch.arange(begin, i + 1, device=device)
    actions = torch.cat([_action(j, device) for j in positions.tolist()], dim=1)
    conditions = Conditions(actions=actions, has_action=positions[None] > 0)
    mask = causal_mask(len(positions), model.config.window, device=frames.device)

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        levels = torch.full((1, len(positions)), 0.015, device=device)
        levels[:, -1] = level
        out = model(torch.cat((context, x), dim=1), levels, conditions, positions=positions, mask=mask)
        return clean_from_prediction(model.path, "velocity", out.prediction[:, -1:], x, level.expand(1, 1))

    noise = frame_noise(torch.tensor([0]), torch.tensor([i]), frames.shape[2:])[:, None].to(frames)
    return sample(denoise, noise, level_grid(10, model.path), model.path)
