"""What stands before the blocks: how latents and conditions enter.

Shape legend: B sequences, F latent frames, C latent channels, h x w latent grid, N tokens of a frame, D width.
"""

import math
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor, nn

from worldsim.config import ModelConfig
from worldsim.errors import FramesError
from worldsim.nn.passes import Conditions
from worldsim.nn.rope import grid_rotation
from worldsim.noise import path_named

LEVEL_FEATURES = 256


def level_features(time: Tensor) -> Tensor:
    """(..., 256) sinusoidal features [cos, sin] of the noise time, longest period 1e4 (as in GLIDE and DiT)."""
    angles = time.float()[..., None] * _level_frequencies(time.device)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)  # a constant made while stepping must serve training too
def _level_frequencies(device: torch.device) -> Tensor:
    half = LEVEL_FEATURES // 2
    return torch.exp(-torch.arange(half, device=device, dtype=torch.float32) * (math.log(1e4) / half))


class Entrance(nn.Module):
    """Patches become tokens; noise level, action and camera the condition of a frame.

    A base class rather than a part of the transformer: its weights keep their names.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.path = path_named(config.path)
        d = config.width
        self.patchify = nn.Linear(config.latent_channels * config.patch**2, d)
        expects = config.source == "forecast"
        self.expected = nn.Linear(2 * config.latent_channels * config.patch**2, d, bias=False) if expects else None
        self.level = nn.Sequential(nn.Linear(LEVEL_FEATURES, d), nn.SiLU(), nn.Linear(d, d))
        self.action = nn.Linear(config.action_dim, d) if config.action_dim else None
        self.no_action = nn.Parameter(torch.zeros(d)) if config.action_dim else None
        self.action_token = nn.Linear(d, d) if config.action_dim and config.action_token else None
        self.camera = nn.Linear(config.camera_dim, d) if config.camera_dim else None
        # Apart from the embedding of a camera at rest, which begins as zero, from the first update on.
        self.no_camera = nn.Parameter(0.02 * torch.randn(d)) if config.camera_dim else None

    @property
    def head_dim(self) -> int:
        """Size of an attention head."""
        return self.config.width // self.config.heads

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and hence of tokens."""
        return self.patchify.weight.dtype

    @property
    def tokens_beside_patches(self) -> int:
        """Tokens of a frame that are not patches."""
        return int(self.action_token is not None)

    def embed_latents(
        self, latents: Tensor, action_token: Tensor | None, expected: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latents (B, F, C, h, w) to tokens (B, F, N, D), and the rotation of their places in the frame.

        Args:
            latents: The frames.
            action_token: From `embed_action_token`.
            expected: As in `Conditions`; noise hides what the paths of frames begin at, so it is told beside it.

        Raises:
            FramesError: If the latent grid is not divisible by the patch.
        """
        p = self.config.patch
        h, w = latents.shape[-2:]
        if h % p or w % p:
            raise FramesError(
                expected=f"a latent grid divisible by the patch size {p}",
                got=f"{h} x {w}",
                remedy="Use frames whose height and width are multiples of the stride times the patch size.",
            )
        x = self.patchify(_patches(latents, p).to(self.dtype))
        if self.expected is not None and expected is not None:
            x = x + self.expected(_patches(expected, p).to(self.dtype))
        kind, beside = self.config.grid_positions, self.tokens_beside_patches
        grid = grid_rotation(h // p, w // p, self.head_dim, kind, x.dtype, x.device, beside=beside)
        return x if action_token is None else torch.cat((x, action_token), dim=2), grid

    def embed_action(self, batch: int, frames: int, conditions: Conditions) -> Tensor | None:
        """(B, F, D), or None for a model without actions."""
        if self.action is None or self.no_action is None:
            return None
        if conditions.actions is None:
            return self.no_action.expand(batch, frames, -1)
        embedded = self.action(conditions.actions.to(self.dtype))
        if conditions.has_action is None:
            return embedded
        return torch.where(conditions.has_action[..., None], embedded, self.no_action.to(embedded.dtype))

    def embed_action_token(self, action: Tensor | None) -> Tensor | None:
        """(B, F, 1, D), or None for a model without such a token."""
        return None if self.action_token is None or action is None else self.action_token(action).unsqueeze(2)

    def embed_camera(self, conditions: Conditions) -> Tensor | None:
        """(B, F, D), or one for all frames (D,); None for a model without camera motion."""
        if self.camera is None or self.no_camera is None:
            return None
        if conditions.camera is None:
            return self.no_camera
        embedded = self.camera(conditions.camera.to(self.dtype))
        if conditions.has_camera is None:
            return embedded
        return torch.where(conditions.has_camera[..., None], embedded, self.no_camera.to(embedded.dtype))

    def embed_condition(self, levels: Tensor, conditions: Conditions, action: Tensor | None) -> Tensor:
        """What frames are modulated by, text apart: (B, F, D).

        Args:
            levels: (B, F) noise levels.
            conditions: Of the frames.
            action: From `embed_action`.
        """
        c = self.level(level_features(self.path.time(levels.float())).to(self.dtype))
        if action is not None:
            c = c + action
        camera = self.embed_camera(conditions)
        return c if camera is None else c + camera


def _patches(latents: Tensor, patch: int) -> Tensor:
    return rearrange(latents, "B F C (h p) (w q) -> B F (h w) (C p q)", p=patch, q=patch)
