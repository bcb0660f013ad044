"""Forecasts of the next frame by a convolution over the latest ones: where the paths of frames can begin.

What is near in the next frame was near in the last ones, which a convolution knows from the start and attention over
single places has to learn. The regression says what follows for certain, and how far it may be off; the diffusion
transformer makes what is left open (after CorrDiff, Mardani et al. 2023, which adds the two).

Shape legend: B sequences, F latent frames, K frames before each, C latent channels, h x w latent grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldsim.config import ModelConfig
from worldsim.nn.passes import Conditions

# Of the logarithm of the spread, in latents of unit variance: 0.02 to 1.5.
_LEAST_LOG, _MOST_LOG = -3.9, 0.4


def frames_before(latents: Tensor, count: int) -> Tensor:
    """The frames before each frame of a run, zeros where there are none.

    Args:
        latents: (B, F, C, h, w).
        count: How many before each, K.

    Returns:
        (B, F, K, C, h, w), the latest last.
    """
    padded = F.pad(latents, (0, 0) * 3 + (count, 0))
    return padded[:, :-1].unfold(1, count, 1).movedim(-1, 2)


def told(forecast: Tensor, spread: Tensor, seen: Tensor) -> Tensor:
    """Forecasts as `Conditions.expected` takes them.

    Args:
        forecast: (B, F, C, h, w).
        spread: The same.
        seen: Boolean, broadcastable to (B, F): whether anything precedes the frame.

    Returns:
        (B, F, 2 C, h, w).
    """
    return torch.where(seen[..., None, None, None], torch.cat((forecast, spread), dim=2), 0.0)


class Forecast(nn.Module):
    """Latest frames and what leads on from them, to the next frame and how far it may be off.

    Every place sees as far as the convolutions reach, and the norm is over the channels of a place alone, so that
    frames of any size are forecast alike.

    Args:
        config: The model's, with a `forecast`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        own = config.forecast
        assert own is not None
        self.config, self.frames, channels = config, own.frames, config.latent_channels
        self.enter = nn.Conv2d(own.frames * channels, own.width, 3, padding=1)
        # Actions and motion, and whether each is known.
        controls = config.action_dim + config.camera_dim + 2
        self.layers = nn.ModuleList(_Layer(own.width, controls) for _ in range(own.depth))
        self.change, self.log_spread = (nn.Conv2d(own.width, channels, 3, padding=1) for _ in range(2))

    def begin(self) -> None:
        """Sets the first forecast: nothing changes, give or take one unit of the latents."""
        for layer in (self.change, self.log_spread, *(m.second for m in self.layers if isinstance(m, _Layer))):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, before: Tensor, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """The forecast of each frame, and its standard deviation.

        Args:
            before: (B, F, K, C, h, w) the frames before each, zeros where there were none; see `frames_before`.
            conditions: What led to the frames themselves.

        Returns:
            Two (B, F, C, h, w), float32.
        """
        shape, dtype = before.shape[:2], self.enter.weight.dtype
        controls = controls_of(conditions, before, self.config).flatten(0, 1).to(dtype)
        flat = before.flatten(0, 1)
        x = self.enter(_last(flat.flatten(1, 2).to(dtype)))
        for layer in self.layers:
            x = layer(x, controls)
        x = F.gelu(x, approximate="tanh")
        # What is known of the error is read from what the forecast is made from, and does not shape it.
        spread = self.log_spread(x.detach()).float().clamp(_LEAST_LOG, _MOST_LOG).exp()
        return (flat[:, -1].float() + self.change(x).float()).unflatten(0, shape), spread.unflatten(0, shape)


class _Layer(nn.Module):
    """A residual pair of 3 x 3 convolutions after an adaptive norm over the channels of each place."""

    def __init__(self, width: int, controls: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(controls, 2 * width)
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, controls: Tensor) -> Tensor:
        """(N, W, h, w) and (N, controls) to (N, W, h, w)."""
        shift, scale = self.modulation(controls)[:, None, None].chunk(2, dim=-1)
        y = torch.addcmul(shift, self.norm(x.movedim(1, -1)).to(shift.dtype), 1.0 + scale).movedim(-1, 1)
        return x + self.second(F.gelu(self.first(_last(y)), approximate="tanh"))


def controls_of(conditions: Conditions, before: Tensor, config: ModelConfig) -> Tensor:
    """Actions and camera motion as a forecast takes them, zeros where unknown: (B, F, A + M + 2)."""
    parts, flags = [], []
    for value, has, size in (
        (conditions.actions, conditions.has_action, config.action_dim),
        (conditions.camera, conditions.has_camera, config.camera_dim),
    ):
        known = torch.full((*before.shape[:2], 1), float(value is not None and size > 0), device=before.device)
        if has is not None:
            known = known * has[..., None]
        parts.append(known.expand(-1, -1, size) if value is None else value.float() * known)
        flags.append(known)
    return torch.cat((*parts, *flags), dim=-1)


def _last(x: Tensor) -> Tensor:
    """Channels last in memory, which convolutions on CPUs want."""
    return x.contiguous(memory_format=torch.channels_last)
