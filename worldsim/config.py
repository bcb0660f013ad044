"""Configurations: frozen, keyword-only, checked when they are made, and plain data on disk."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, Self, get_args, get_type_hints

from worldsim.errors import ConfigError, UnknownNameError

Prediction = Literal["x", "velocity", "noise"]
PathName = Literal["rectified_flow", "variance_preserving"]
Source = Literal["noise", "previous", "forecast"]

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configurations: conversion to and from plain dictionaries, strict about names."""

    def to_dict(self) -> dict[str, Any]:
        """Nested plain data that `json.dumps` takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            UnknownNameError: If a field is not known here.
            ConfigError: If the values do not fit together.
        """
        hints, known = get_type_hints(cls), {f.name for f in fields(cls)}
        for name in data:
            if name not in known:
                raise UnknownNameError(kind=f"field of {cls.__name__}", name=name, known=known)
        return cls(**{name: _restore(hints[name], value) for name, value in data.items()})


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(Config):
    """The video compression network.

    Attributes:
        kind: "conv" (ours) or "vit" (Oasis').
        spatial_stride: Pixels a latent cell spans on each side.
        temporal_stride: Frames a latent spans: 1, or 4 (the first frame then stands alone).
        latent_channels: Channels of the latent.
        width: Channels of the widest layer ("conv") or of the tokens ("vit").
        encoder_depth: Residual blocks, or transformer blocks, of the encoder.
        decoder_depth: The same for the decoder.
        heads: Attention heads ("vit").
        latent_scale: Factor on the encoder's output ("vit"); "conv" measures its own statistics in training.
        frame_size: (H, W) that the network is bound to ("vit"), or None for any size divisible by the stride.
    """

    kind: Literal["conv", "vit"] = "conv"
    spatial_stride: int = 8
    temporal_stride: Literal[1, 4] = 1
    latent_channels: int = 8
    width: int = 64
    encoder_depth: int = 2
    decoder_depth: int = 2
    heads: int = 1
    latent_scale: float = 1.0
    frame_size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class TextConfig(Config):
    """The text encoder: hashed words, learned embeddings, a small transformer.

    Attributes:
        buckets: Size of the hashed vocabulary.
        max_tokens: Longest text, in words and punctuation marks.
        layers: Transformer layers over the words.
        slots: Tokens that the words are summarised into; what the frames attend to.
        summary: Numbers by which the words also say what the frames hold on the whole (`worldsim.training.summary`),
            which is soon learnt and shows what to make of them; 0 for none.
    """

    buckets: int = 4096
    max_tokens: int = 64
    layers: int = 1
    slots: int = 8
    summary: int = 0

    def __post_init__(self) -> None:
        if self.summary < 0:
            raise ConfigError(expected="text.summary of at least 0", got=self.summary, remedy="Give a number.")


@dataclass(frozen=True, kw_only=True)
class ForecastConfig(Config):
    """A convolutional forecast of the next frame (`worldsim.nn.forecast`).

    Attributes:
        frames: Latest frames that it sees.
        width: Its channels.
        depth: Residual pairs of convolutions.
    """

    frames: int = 4
    width: int = 128
    depth: int = 6

    def __post_init__(self) -> None:
        if min(self.frames, self.width, self.depth) < 1:
            raise ConfigError(
                expected="frames, width and depth of a forecast of at least 1",
                got=f"{self.frames}, {self.width}, {self.depth}",
                remedy="Raise them.",
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """The video diffusion transformer.

    Attributes:
        latent_channels: Channels of the tokenizer's latents.
        patch: Latent cells a token spans on each side.
        width: Channels of a token.
        depth: Blocks; each attends over a frame's patches, then over time.
        heads: Attention heads; width / heads must be a multiple of 4.
        mlp_ratio: Hidden width of each of a block's two MLPs over `width`.
        window: Frames that temporal attention spans, the current one included.
        modulation: "shared" computes the adaLN modulation once and gives each block offsets (PixArt-alpha, Chen et al.
            2023); "block" gives each block its own projection (DiT, Peebles & Xie 2022).
        qk_norm: RMS-normalise queries and keys (Dehghani et al. 2023).
        grid_positions: Rotary positions of patches: "axial" (any size) or "pixel" (Oasis).
        action_dim: Length of the flattened action vector; 0 for a model without actions.
        action_token: Give the action a token of its own beside adding it to the condition.
        camera_dim: Length of the camera-motion vector; 0 for none.
        text: The text encoder, or None.
        heads_out: Whether reward and termination are predicted.
        reward_bins: Values over which the reward is a distribution, an odd number; 0 for one number and squared error
            (`worldsim.nn.outcomes.Outcome`).
        path: Noise path.
        prediction: What the network predicts.
        source: Where the path of a frame begins at level 1: "noise"; "previous", the frame before it plus noise
            (`worldsim.noise.source`), so that what does not change need not be made anew; or "forecast", its forecast
            plus noise. The latter two only with rectified flow.
        source_noise: Standard deviation of that noise; around forecasts the least, and theirs where it is larger.
        forecast: The forecast, or None for a model without.
    """

    latent_channels: int = 8
    patch: int = 2
    width: int = 160
    depth: int = 6
    heads: int = 5
    mlp_ratio: float = 2.0
    window: int = 16
    modulation: Literal["shared", "block"] = "shared"
    qk_norm: bool = True
    grid_positions: Literal["axial", "pixel"] = "axial"
    action_dim: int = 0
    action_token: bool = True
    camera_dim: int = 0
    text: TextConfig | None = None
    heads_out: bool = True
    reward_bins: int = 0
    path: PathName = "rectified_flow"
    prediction: Prediction = "x"
    source: Source = "noise"
    source_noise: float = 0.3
    forecast: ForecastConfig | None = None

    def __post_init__(self) -> None:
        if self.source != "noise" and self.path != "rectified_flow":
            raise ConfigError(
                expected='path "rectified_flow" for paths that begin at the previous frame or at a forecast',
                got=self.path,
                remedy="Change `path` or `source`.",
            )
        if self.source == "forecast" and self.forecast is None:
            raise ConfigError(
                expected='a `forecast` for source "forecast"', got=None, remedy="Give `forecast`, or change `source`."
            )
        if self.forecast and self.forecast.frames > self.window:
            raise ConfigError(
                expected=f"a forecast from at most the window's {self.window} frames",
                got=self.forecast.frames,
                remedy="Lower `forecast.frames`.",
            )
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise ConfigError(
                expected="width / heads to be a multiple of 4",
                got=f"width {self.width}, heads {self.heads}",
                remedy="Rotary positions take half of each head's pairs for each image axis; change either number.",
            )
        if self.reward_bins and (self.reward_bins < 3 or not self.reward_bins % 2):
            raise ConfigError(
                expected="0 reward_bins or an odd number from 3",
                got=self.reward_bins,
                remedy="An odd number has nought in its middle; 63 serves most rewards.",
            )
        if self.window < 1:
            raise ConfigError(expected="a window of at least 1 frame", got=self.window, remedy="Raise `window`.")


def _restore(hint: Any, value: Any) -> Any:  # noqa: ANN401 - plain data is untyped
    options = get_args(hint)
    config = next((t for t in (hint, *options) if isinstance(t, type) and is_dataclass(t)), None)
    if config is not None and isinstance(value, Mapping):
        return config.from_dict(value)  # type: ignore[attr-defined]
    return tuple(value) if isinstance(value, list) else value
