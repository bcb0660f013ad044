"""Tiny learned worlds with random weights, every one of them away from zero, for tests of the machinery."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from worldsim.checkpoint import Checkpoint
from worldsim.config import ModelConfig, TextConfig, TokenizerConfig
from worldsim.controls import Controls
from worldsim.sampling import Sampling
from worldsim.simulator import Simulator
from worldsim.tokenizer import build_tokenizer
from worldsim.transformer import VideoDiT

WINDOW = 4
CAMERA_RANGE = (0.0, 0.2, 0.1, 0.5, 0.0, 1.0)
FRAMES = 3 * WINDOW  # of a run that leaves its window behind
SIZE = (32, 16)  # height, width; 2 x 1 patches
TEXT = TextConfig(buckets=64, max_tokens=6, slots=3)
MODEL = ModelConfig(latent_channels=4, width=16, depth=2, heads=2, window=WINDOW, action_dim=3, text=TEXT)
TOKENIZER = TokenizerConfig(latent_channels=4, width=8, encoder_depth=1, decoder_depth=1)

# Networks compute a row of a batch, or a frame of a window, with other matrix shapes than alone; over a rollout the
# rounding stays below this in latents of unit variance.
TOLERANCE = 1e-4


def randomised(module: torch.nn.Module, seed: int = 0) -> Any:
    """The module with every weight drawn anew: zero-initialised layers would hide mistakes behind them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    return module.eval().requires_grad_(False)


@cache
def model(seed: int = 0, **changes: Any) -> VideoDiT:
    return randomised(VideoDiT(replace(MODEL, **changes)), seed)


def checkpoint(
    seed: int = 0, *, space: spaces.Space | None = None, temporal_stride: int = 1, **changes: Any
) -> Checkpoint:
    """A world with three actions, and a camera if `camera_dim` is not 0."""
    space = spaces.Discrete(3) if space is None and changes.get("action_dim", 3) else space
    dim = (spaces.flatdim(space) if space is not None else 0) * temporal_stride
    camera = changes.get("camera_dim", 0) > 0
    return Checkpoint(
        tokenizer=randomised(build_tokenizer(replace(TOKENIZER, temporal_stride=temporal_stride)), seed + 1),
        model=model(seed, **{**changes, "action_dim": dim, "camera_dim": 6 * temporal_stride * camera}),
        action_space=space,
        fps=10.0,
        frame_size=SIZE,
        reward_scale=2.0,
        camera_range=CAMERA_RANGE if camera else None,
        meta={"sampling": {"first_steps": 3}},
    )


def simulator(seed: int = 0, *, sampling: Sampling | None = None, **changes: Any) -> Simulator:
    return Simulator(checkpoint(seed, **changes), sampling=sampling)


def told(network: VideoDiT, actions: torch.Tensor, known: torch.Tensor | None = None) -> Controls:
    """Controls of frames to which these actions (B, F, A) led, all known unless `known` (B, F) says otherwise."""
    unknown = Controls.unknown(*actions.shape[:2], network.config, actions)
    return replace(unknown, actions=actions, has_action=torch.ones_like(unknown.has_action) if known is None else known)


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    """Random frames (*shape, H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (*shape, *SIZE, 3), dtype=np.uint8)


def latents_of_run(sim, actions, *, frames=None, envs=None, text="a red ball", seed=3):
    """Latents (B, T, C, h, w) and pictures of a run, the first frame included."""
    state, first = sim.reset(frames=frames, text=text, seed=seed, num_envs=envs)
    latents, pictures = [state.recent(1)[0][:, 0]], [first]
    for action in actions:
        step = sim.step(state, action)
        state = step.state
        latents.append(state.recent(1)[0][:, 0])
        pictures.append(step.frames)
    return torch.stack(latents, dim=1), np.stack(pictures, axis=1)
