"""Tokenizer: video frames to latents and back.

A latent frame stands for one frame, or with temporal stride 4 for four (the first frame then stands alone), and depends
on no other: encoding and decoding stream, and the first latent of a longer video equals that of a single image.

Shape legend: B videos, T frames, F latent frames, C latent channels.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldsim.config import TokenizerConfig
from worldsim.errors import ConfigError, FramesError
from worldsim.nn.vit import VisionTransformer


def num_latents(num_frames: int, temporal_stride: int) -> int:
    """Latent frames of a video.

    Raises:
        FramesError: If the frames after the first do not fill whole groups.

    >>> num_latents(9, 4)
    3
    """
    if num_frames < 1 or (num_frames - 1) % temporal_stride:
        raise FramesError(
            expected=f"1 + k * {temporal_stride} frames for a tokenizer with temporal stride {temporal_stride}",
            got=num_frames,
            remedy="Cut the video to such a length.",
        )
    return 1 + (num_frames - 1) // temporal_stride


def check_frame_size(height: int, width: int, config: TokenizerConfig, *, patch: int = 1) -> None:
    """Raises FramesError if a tokenizer (and a transformer with `patch`) cannot take frames of this size."""
    if config.frame_size is not None and (height, width) != tuple(config.frame_size):
        raise FramesError(
            expected=f"frames of {config.frame_size[0]} x {config.frame_size[1]} pixels (height x width)",
            got=f"{height} x {width}",
            remedy="This tokenizer is bound to one size; resize the frames.",
        )
    unit = config.spatial_stride * patch
    if height % unit or width % unit or not height or not width:
        low = [max(n // unit, 1) * unit for n in (height, width)]
        high = [max(-(-n // unit), 1) * unit for n in (height, width)]
        raise FramesError(
            expected=f"frame height and width that are multiples of {unit} pixels",
            got=f"{height} x {width} (height x width)",
            remedy=f"Resize or pad, for example to {low[0]} x {low[1]} or {high[0]} x {high[1]}.",
        )


class ConvTokenizer(nn.Module):
    """A convolutional autoencoder with a bounded, noise-trained bottleneck.

    Latents are standardised with per-channel statistics measured after training (`measure`), so that the noise path
    starts from unit variance.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        if config.kind != "conv" or config.spatial_stride != 8:
            raise ConfigError(
                expected="kind 'conv' and spatial stride 8",
                got=f"{config.kind!r} and {config.spatial_stride}",
                remedy="Correct the configuration; 'vit' tokenizers are imported, not trained.",
            )
        pixels, fine, coarse = 3 * 16 * config.temporal_stride, config.width, 2 * config.width
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(pixels, fine, 3, padding=1),
            *(Residual(fine) for _ in range(config.encoder_depth)),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * fine, coarse, 1),
            *(Residual(coarse) for _ in range(config.encoder_depth)),
            nn.Conv2d(coarse, config.latent_channels, 1),
            nn.Tanh(),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.latent_channels, coarse, 3, padding=1),
            *(Residual(coarse) for _ in range(config.decoder_depth)),
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),
            *(Residual(fine) for _ in range(config.decoder_depth)),
            nn.Conv2d(fine, pixels, 3, padding=1),
            nn.PixelShuffle(4),
        )
        self.register_buffer("mean", torch.zeros(config.latent_channels))
        self.register_buffer("std", torch.ones(config.latent_channels))

    def bottleneck(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) to raw latents (B, F, C, h, w) in (-1, 1)."""
        check_frame_size(frames.shape[-2], frames.shape[-1], self.config)
        groups = self.group(frames)
        return self.encoder(groups.flatten(0, 1)).unflatten(0, groups.shape[:2])

    def from_bottleneck(self, raw: Tensor) -> Tensor:
        """(B, F, C, h, w) raw latents to (B, F, 3 * temporal stride, H, W)."""
        return self.decoder(raw.flatten(0, 1)).unflatten(0, raw.shape[:2])

    def encode(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) in [-1, 1] to standardised latents (B, F, C, H / 8, W / 8).

        Raises:
            FramesError: If the size or the number of frames does not fit the strides.
        """
        return self.standardise(self.bottleneck(frames))

    def standardise(self, raw: Tensor) -> Tensor:
        """Raw latents (..., C, h, w) to zero mean and unit variance per channel."""
        return (raw - _channels(self.mean)) / _channels(self.std)

    def decode(self, latents: Tensor, *, starts: bool = False) -> Tensor:
        """Standardised latents (B, F, C, h, w) to frames (B, T, 3, H, W), not clamped.

        Args:
            latents: Standardised latents.
            starts: Whether the first latent is a video's first, which stands for one frame. It matters with temporal
                stride 4 only: T is then 1 + 4 (F - 1), else 4 F.
        """
        out = self.from_bottleneck(latents * _channels(self.std) + _channels(self.mean))
        frames = out.unflatten(2, (self.config.temporal_stride, 3)).flatten(1, 2)
        return frames[:, self.config.temporal_stride - 1 :] if starts else frames

    @torch.no_grad()
    def measure(self, raw: Tensor) -> None:
        """Sets the standardisation from raw latents (B, F, C, h, w)."""
        self.mean.copy_(raw.float().mean(dim=(0, 1, 3, 4)))
        self.std.copy_(raw.float().std(dim=(0, 1, 3, 4)).clamp(min=1e-3))

    def group(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) to groups (B, F, 3 * temporal stride, H, W); the first frame fills the first group alone."""
        stride = self.config.temporal_stride
        num_latents(frames.shape[1], stride)
        if stride == 1:
            return frames
        first = frames[:, :1].expand(-1, stride - 1, -1, -1, -1)
        return torch.cat((first, frames), dim=1).unflatten(1, (-1, stride)).flatten(2, 3)


class Residual(nn.Module):
    """Two 3x3 convolutions around a SiLU, added to the input; the identity at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return x + self.second(F.silu(self.first(F.silu(x))))


class VitTokenizer(nn.Module):
    """A vision transformer autoencoder of single frames, bound to one frame size: that of Oasis.

    A latent cell is a patch of `spatial_stride` pixels; the encoder's mean, times `latent_scale`, is the latent.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        if config.kind != "vit" or config.frame_size is None or config.temporal_stride != 1:
            raise ConfigError(
                expected="kind 'vit', a frame size and temporal stride 1",
                got=f"{config.kind!r}, {config.frame_size} and {config.temporal_stride}",
                remedy="Correct the configuration.",
            )
        check_frame_size(*config.frame_size, config)
        self.config = config
        self.grid = (config.frame_size[0] // config.spatial_stride, config.frame_size[1] // config.spatial_stride)
        pixels, width = 3 * config.spatial_stride**2, config.width
        self.patchify = nn.Linear(pixels, width)
        self.encoder = VisionTransformer(width, config.heads, config.encoder_depth, self.grid)
        self.to_moments = nn.Linear(width, 2 * config.latent_channels)
        self.from_latent = nn.Linear(config.latent_channels, width)
        self.decoder = VisionTransformer(width, config.heads, config.decoder_depth, self.grid)
        self.unpatchify = nn.Linear(width, pixels)

    def encode(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) in [-1, 1] to latents (B, T, C, H / stride, W / stride).

        Raises:
            FramesError: If the frames have another size than the tokenizer is bound to.
        """
        check_frame_size(frames.shape[-2], frames.shape[-1], self.config)
        p = self.config.spatial_stride
        patches = rearrange(frames, "B T c (h p) (w q) -> (B T) (h w) (c p q)", p=p, q=p)
        mean = self.to_moments(self.encoder(self.patchify(patches)))[..., : self.config.latent_channels]
        latents = rearrange(mean, "(B T) (h w) C -> B T C h w", B=len(frames), h=self.grid[0])
        return latents * self.config.latent_scale

    def decode(self, latents: Tensor, *, starts: bool = False) -> Tensor:  # noqa: ARG002 - one latent is one frame
        """Latents (B, T, C, h, w) to frames (B, T, 3, H, W), not clamped; `starts` makes no difference."""
        p = self.config.spatial_stride
        x = self.from_latent(rearrange(latents / self.config.latent_scale, "B T C h w -> (B T) (h w) C"))
        pixels = self.unpatchify(self.decoder(x))
        pattern = "(B T) (h w) (c p q) -> B T c (h p) (w q)"
        return rearrange(pixels, pattern, B=len(latents), h=self.grid[0], c=3, p=p)


Tokenizer = ConvTokenizer | VitTokenizer


def build_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """The tokenizer of a configuration, with fresh weights.

    Raises:
        ConfigError: If the configuration is inconsistent.
    """
    return VitTokenizer(config) if config.kind == "vit" else ConvTokenizer(config)


def _channels(per_channel: Tensor) -> Tensor:
    return per_channel[:, None, None]
