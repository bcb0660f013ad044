"""Paths that begin at the previous frame."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from worldsim.config import ModelConfig
from worldsim.controls import Controls
from worldsim.dynamics import Dynamics
from worldsim.errors import ConfigError
from worldsim.noise import mix, source
from worldsim.sampler import level_grid, sample
from worldsim.sampling import Sampling
from worldsim.state import frame_noise
from worldsim.training.batches import LatentBatch
from worldsim.training.config import DynamicsConfig
from worldsim.training.losses import dynamics_loss
from worldsim.transformer import Conditions, Output, VideoDiT


def config_of(**changes: object) -> ModelConfig:
    plain: dict[str, object] = {
        "latent_channels": 4, "patch": 1, "width": 16, "depth": 1, "heads": 2, "window": 4, "source": "previous",
        "source_noise": 0.25, "heads_out": False,
    }  # fmt: skip
    return ModelConfig.from_dict(plain | changes)


def test_a_step_begins_around_the_frame_before(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    dynamics = Dynamics(VideoDiT(config_of()).eval(), Sampling(steps=1))
    begun: list[Tensor] = []

    def denoiser(*_: object) -> Callable[[Tensor, Tensor], Tensor]:
        def denoise(x: Tensor, level: Tensor) -> Tensor:
            if float(level) == 1.0:
                begun.append(x)
            return 0.5 * x

        return denoise

    monkeypatch.setattr(dynamics, "_denoiser", denoiser)
    state = dynamics.blank([3, 4], [None, None], (2, 2), fingerprint="here")
    made = []
    with torch.no_grad():
        for _ in range(6):  # beyond the window
            state, latent, _ = dynamics.advance(state, Controls.unknown(2, 1, dynamics.model.config, state.latents))
            made.append(latent)
    noise = [frame_noise(torch.tensor([3, 4]), torch.full((2,), i), torch.Size((4, 2, 2)))[:, None] for i in range(6)]
    torch.testing.assert_close(begun[0], noise[0])
    for i in range(1, 6):
        torch.testing.assert_close(begun[i], made[i - 1] + 0.25 * noise[i])


class Watcher(VideoDiT):
    """Remembers what it was shown, and predicts nothing."""

    shown: list[Tensor]

    def forward(
        self,
        latents: Tensor,
        levels: Tensor,
        conditions: Conditions,
        *,
        positions: Tensor,
        mask: Tensor | None,
        record: object = None,
    ) -> Output:
        self.shown.append(latents)
        hidden = torch.zeros(*latents.shape[:2], 1, self.config.width)
        return Output(prediction=torch.zeros_like(latents, requires_grad=True), hidden=hidden)


def test_training_shows_what_a_step_sees() -> None:
    """At level 1 a target is its predecessor with noise of the configured spread; the first is noise alone."""
    model = Watcher(config_of())
    model.shown = []
    b, f = 64, 5
    truth = LatentBatch(
        latents=10.0 * torch.arange(f).view(1, f, 1, 1, 1).expand(b, f, 4, 2, 2).float(),
        actions=None,
        rewards=torch.zeros(b, f),
        terminated=torch.zeros(b, f, dtype=torch.bool),
        known=torch.ones(b, f, dtype=torch.bool),
        texts=[None] * b,
    )
    pure = DynamicsConfig(pure_noise=1.0, bidirectional=0.0, context_clean=1.0)
    dynamics_loss(model, truth, pure, torch.Generator().manual_seed(0), feedback=False)
    target = model.shown[0][:, f:]
    assert target[:, 0].std() == pytest.approx(1.0, rel=0.1)
    assert abs(float(target[:, 0].mean())) < 0.1
    for i in range(1, f):
        assert float(target[:, i].mean()) == pytest.approx(10.0 * (i - 1), abs=0.05)
        assert float(target[:, i].std()) == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_samplers_carry_a_previous_frame_to_the_next(method: Literal["euler", "heun"]) -> None:
    """With the exact clean estimate of a Gaussian target coupled with its source, samples have the target's law."""
    config, count = config_of(), 200_000
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 1, 1, 1, 1, generator=generator)
    previous = 2.0
    begin = source(config, noise, torch.full_like(noise, previous), torch.tensor([[True]]))
    path = VideoDiT(config).path
    mean, std, spread = 3.0, 0.5, config.source_noise

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        signal, weight = 1.0 - level, level
        variance = (signal * std) ** 2 + (weight * spread) ** 2
        return mean + signal * std**2 / variance * (x - signal * mean - weight * previous)

    made = sample(denoise, begin, level_grid(64, path), path, method=method)
    assert float(made.mean()) == pytest.approx(mean, abs=0.01)
    assert float(made.std()) == pytest.approx(std, rel=0.03)
    half = mix(path, torch.full_like(begin, mean), begin, torch.full(begin.shape[:2], 0.5))
    torch.testing.assert_close(half, 0.5 * mean + 0.5 * begin)


def test_only_straight_paths_can_begin_elsewhere() -> None:
    with pytest.raises(ConfigError, match="rectified_flow"):
        config_of(path="variance_preserving")
