"""Sizes of the transformer, from one million to one billion parameters, and what they cost."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from worldsim.config import ModelConfig, TextConfig
from worldsim.errors import UnknownNameError
from worldsim.transformer import VideoDiT

# Measured with `saved_tensors_hooks` under bfloat16 autocast: 141 to 151 bytes a token, block and channel.
_KEPT_BYTES = 145


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a model costs on frames of one latent grid.

    Attributes:
        parameters: Number of weights.
        tokens: Tokens of a frame.
        flops_per_pass: Floating-point operations of one pass over one new frame against a full cache; a step with S
            denoising steps takes S + 1 passes. A multiplication and an addition count as two.
        flops_per_forecast: Of one forecast, which a step makes beside them; 0 for a model without.
        cache_bytes: Memory of one environment's key/value cache in float32.
        weight_bytes: Memory of the weights in float32.
    """

    parameters: int
    tokens: int
    flops_per_pass: int
    flops_per_forecast: int
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
        flops_per_forecast=_forecast_flops(config, latent_grid),
        cache_bytes=2 * depth * tokens * config.window * d * 4,
        weight_bytes=4 * parameters,
    )


def _forecast_flops(config: ModelConfig, latent_grid: tuple[int, int]) -> int:
    if config.forecast is None:
        return 0
    own, channels = config.forecast, config.latent_channels
    taps = own.frames * channels * own.width + own.depth * 2 * own.width**2 + 2 * own.width * channels
    modulation = 2 * own.depth * 2 * own.width * (config.action_dim + config.camera_dim + 2)
    return 2 * 9 * taps * latent_grid[0] * latent_grid[1] + modulation


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """What training a model takes.

    Attributes:
        tokens: Target tokens; each is also computed once more in the clean stream.
        frames: Frames that these are, repetitions included.
        flops: Floating-point operations of all updates.
        state_bytes: Weights, gradients, two moments and the moving average in float32; FSDP2 divides them by the
            number of devices.
        window_bytes: What autograd keeps for one window, in bfloat16 where autocast allows.
        days: Wall-clock time.
    """

    tokens: int
    frames: int
    flops: float
    state_bytes: int
    window_bytes: int
    days: float


def training_cost(
    config: ModelConfig,
    *,
    latent_grid: tuple[int, int],
    length: int = 20,
    feedback: float = 0.25,
    tokens_per_parameter: float = 20.0,
    devices: int = 8,
    device_flops_per_s: float = 989e12,
    utilisation: float = 0.4,
) -> TrainingCost:
    """Estimates a training run of the transformer.

    A forward and backward pass takes three times a forward one; two streams run side by side; some updates begin with
    a forward pass for feedback. A forecast is only asked. Attention to what the mask hides is not counted.

    Args:
        config: The model.
        latent_grid: (h, w) of the latents.
        length: Frames of a window.
        feedback: Share of updates with such a pass.
        tokens_per_parameter: Target tokens for each weight; 20 is optimal for text (Hoffmann et al. 2022), and taken
            over here for want of a better rule.
        devices: Number of devices.
        device_flops_per_s: Peak rate of one in bfloat16; the default is an H100's or H200's without sparsity.
        utilisation: Share of it that is reached.
    """
    found = cost(config, latent_grid=latent_grid)
    frames = round(tokens_per_parameter * found.parameters / found.tokens)
    flops = frames * ((3.0 + feedback) * 2.0 * found.flops_per_pass + (1.0 + feedback) * found.flops_per_forecast)
    return TrainingCost(
        tokens=frames * found.tokens,
        frames=frames,
        flops=flops,
        state_bytes=5 * 4 * found.parameters,
        window_bytes=_KEPT_BYTES * 2 * length * found.tokens * config.depth * config.width,
        days=flops / (devices * device_flops_per_s * utilisation) / 86400.0,
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
    "100m": _sized(576, 10, 9),
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
