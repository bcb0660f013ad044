"""How a simulator denoises: the options of a step, and guidance."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from worldsim.config import Config
from worldsim.errors import ConfigError
from worldsim.sampler import Method

FULL = "full"


@dataclass(frozen=True, kw_only=True)
class Sampling(Config):
    """How frames are denoised.

    Attributes:
        steps: Denoising steps a frame.
        first_steps: The same for a frame that nothing precedes. It is all noise and no memory, and the few steps that
            carry on a video leave it empty.
        method: First-order "euler" (DDIM on a variance-preserving path) or second-order "heun".
        text_guidance: Weight of classifier-free guidance by the text (Ho & Salimans 2022); 1 is none.
        action_guidance: The same for actions.
        camera_guidance: The same for the camera's motion.
        damping: Factor on every denoising update but a frame's last; slightly below 1 counters drift.
        context_level: The noise level that the network is told of past frames.
        context_noise: Whether past frames are in fact noised to that level.
        cache: "rolling" keeps each frame's keys and values as computed when it was new, which is exact for models
            trained with windowed attention; "exact" recomputes the window once it slides, for models that were not.
        sinks: First frames of an episode that stay in the window for ever (attention sinks, Xiao et al. 2023), as far
            back as its oldest; "rolling" only.
    """

    steps: int = 2
    first_steps: int = 32
    method: Method = "euler"
    text_guidance: float = 1.0
    action_guidance: float = 1.0
    camera_guidance: float = 1.0
    damping: float = 1.0
    context_level: float = 0.0
    context_noise: bool = True
    cache: Literal["rolling", "exact"] = "rolling"
    sinks: int = 0

    def __post_init__(self) -> None:
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in (self.steps, self.first_steps, self.sinks))
        if not whole or min(self.steps, self.first_steps) < 1 or not 0.0 <= self.context_level < 1.0:
            raise ConfigError(
                expected="whole numbers of steps and first steps, above 0, and sinks, and a context level in [0, 1)",
                got=f"{self.steps}, {self.first_steps}, {self.sinks} and {self.context_level}",
                remedy="Correct them.",
            )
        if not 0.0 < self.damping <= 1.0 or not all(map(math.isfinite, self._weights.values())):
            raise ConfigError(
                expected="damping in (0, 1] and finite guidance weights",
                got=f"{self.damping} and {self._weights}",
                remedy="Correct them.",
            )
        if self.method not in {"euler", "heun"} or self.cache not in {"rolling", "exact"}:
            raise ConfigError(
                expected="method 'euler' or 'heun' and cache 'rolling' or 'exact'",
                got=f"{self.method!r} and {self.cache!r}",
                remedy="Choose among these.",
            )

        if self.sinks < 0 or (self.sinks and self.cache == "exact"):
            raise ConfigError(
                expected="0 or more sinks, and cache 'rolling' with any",
                got=f"{self.sinks} and {self.cache!r}",
                remedy="Leave the sinks out.",
            )

    @property
    def _weights(self) -> dict[str, float]:
        return {"text": self.text_guidance, "action": self.action_guidance, "camera": self.camera_guidance}

    @property
    def variants(self) -> tuple[str, ...]:
        """What is left out of the conditions in each evaluation that guidance combines; the full one comes first."""
        return (FULL, *(name for name, weight in self._weights.items() if weight != 1.0))

    def guided(self, clean: Tensor) -> Tensor:
        """Combines (variants * B, ...) estimates into (B, ...): full + sum of (weight - 1) * (full - without)."""
        full, *others = clean.chunk(len(self.variants))
        guided = full
        for name, without in zip(self.variants[1:], others, strict=True):
            guided = guided + (self._weights[name] - 1.0) * (full - without)
        return guided
