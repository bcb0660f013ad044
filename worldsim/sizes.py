"""Sizes of the transformer, from one million to one billion parameters, and what they cost."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from worldsim.config import ModelConfig, TextConfig
from worldsim.errors import UnknownNameError
from worldsim.transformer import VideoDiT


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a model costs on frames of one latent grid.

    Attributes:
        parameters: Number of weights.
        tokens: Tokens of a frame.
        flops_per_pass: Floating-point operations of one pass over one new frame against a full cache; a step with S
            denoising steps takes S + 1 passes. A multiplication and an addition count as two.
        cache_bytes: Memory of one environment's key/value cache in float32.
        weight_bytes: Memory of the weights in float32.
    """

    parameters: int
    tokens: int
    flops_per_pass: int
    cache_bytes: int
    weight_bytes: int


def cost(config: ModelConfig, *, latent_grid: tuple[int, int]) -> Cost:
    """Counts weights and operations of matrix products; elementwise work is left out, as is usual.

    Args:
        config: The model.
        latent_grid: (h, w) of the latents, for example (8, 8) for 64 x 64 pixels.
    """
    with torch.device("meta"):
        model = VideoDiT(config)
    parameters = sum(p.numel() for p in model.parameters())
    d, depth = config.width, config.depth
    patches = latent_grid[0] * latent_grid[1] // config.patch**2
    tokens = patches + model.tokens_beside_patches
    slots = config.text.slots if config.text else 0
    mlp = 2 * 2 * d * int(d * config.mlp_ratio)
    projections = 2 * 4 * d * d
    spatial = 2 * 2 * d * (tokens + slots)
    temporal = 2 * 2 * d * config.window
    per_token = depth * (2 * projections + 2 * mlp + spatial + temporal)
    ends = 2 * 2 * d * config.latent_channels * config.patch**2 * patches
    modulation = 2 * 12 * d * d * (1 if config.modulation == "shared" else depth)
    return Cost(
        parameters=parameters,
        tokens=tokens,
        flops_per_pass=per_token * tokens + ends + modulation,
        cache_bytes=2 * depth * tokens * config.window * d * 4,
        weight_bytes=4 * parameters,
    )


def _sized(width: int, depth: int, heads: int) -> Callable[[], ModelConfig]:
    def make() -> ModelConfig:
        return ModelConfig(
            latent_channels=16, window=16, width=width, depth=depth, heads=heads, mlp_ratio=4.0, text=TextConfig()
        )

    return make


SIZES: dict[str, Callable[[], ModelConfig]] = {
    "1m": _sized(64, 8, 2),
    "4m": _sized(128, 8, 4),
    "16m": _sized(256, 9, 4),
    "60m": _sized(448, 11, 7),
    "250m": _sized(832, 14, 13),
    "1b": _sized(1536, 17, 24),
}


def size(name: str) -> ModelConfig:
    """The configuration of that name; `action_dim` is for you to fill in.

    Raises:
        UnknownNameError: If there is none.
    """
    if name.lower() not in SIZES:
        raise UnknownNameError(kind="model size", name=name, known=SIZES)
    return SIZES[name.lower()]()
