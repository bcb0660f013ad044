"""Forecasts: what they see, where they begin, and that stepping takes the ones that training does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_worlds import MODEL, TOLERANCE, WINDOW, latents_of_run, model, pixels, simulator

from worldsim.config import ForecastConfig, ModelConfig
from worldsim.errors import ConfigError
from worldsim.nn.forecast import Forecast, controls_of, frames_before
from worldsim.nn.passes import Conditions
from worldsim.noise import source
from worldsim.sampling import Sampling
from worldsim.state import frame_noise
from worldsim.training.config import DynamicsConfig
from worldsim.training.losses import LatentBatch, dynamics_loss
from worldsim.transformer import VideoDiT

FORECAST = ForecastConfig(frames=3, width=8, depth=2)
CHANGES = {"source": "forecast", "forecast": FORECAST, "source_noise": 0.05}


def test_frames_before_are_the_ones_before_and_zeros_where_there_are_none() -> None:
    latents = torch.arange(1.0, 6.0).reshape(1, 5, 1, 1, 1)
    found = frames_before(latents, 3)[0, :, :, 0, 0, 0]
    expected = [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert found.tolist() == expected


def test_a_new_forecast_says_that_nothing_changes() -> None:
    network = VideoDiT(replace(MODEL, **CHANGES))
    latents = torch.randn(2, 5, 4, 4, 2)
    expected, spread = network.forecasts(frames_before(latents, 3), Conditions())
    torch.testing.assert_close(expected[:, 1:], latents[:, :-1], rtol=0, atol=0)
    assert not expected[:, 0].any()
    assert (spread > 0).all()


def test_a_place_is_forecast_from_what_the_convolutions_reach_whatever_the_size() -> None:
    """Two pairs of convolutions and one at each end reach six cells."""
    forecast = model(**CHANGES).forecast
    assert isinstance(forecast, Forecast)
    before, controls = torch.randn(1, 1, 3, 4, 16, 16), torch.randn(1, 1, 3 + 0 + 2)
    base, _ = forecast(before, controls)
    changed = before.clone()
    changed[..., 0, 0] += 1.0
    moved = (forecast(changed, controls)[0] - base).abs().amax(dim=2)[0, 0] > 0
    assert moved[:7, :7].all()
    assert not moved[7:].any()
    assert not moved[:, 7:].any()
    # Far from the border a larger picture is forecast as its part.
    part, _ = forecast(before[..., :14, :14], controls)
    torch.testing.assert_close(part[..., :7, :7], base[..., :7, :7], rtol=0, atol=1e-5)


def test_unknown_controls_are_not_zero_controls() -> None:
    actions = torch.zeros(1, 2, 3)
    before = torch.zeros(1, 2, 3, 4, 4, 2)
    known = controls_of(Conditions(actions=actions), before, MODEL)
    unknown = controls_of(Conditions(), before, MODEL)
    partly = controls_of(Conditions(actions=actions + 1, has_action=torch.tensor([[True, False]])), before, MODEL)
    assert known.shape == (1, 2, 5)
    assert not torch.equal(known, unknown)
    assert torch.equal(partly[:, 1], unknown[:, 1])


@pytest.mark.parametrize("rule", [Sampling(steps=1), Sampling(steps=1, context_level=0.2)], ids=["clean", "noised"])
def test_steps_begin_at_the_forecast_from_the_frames_as_they_are_shown(rule: Sampling) -> None:
    sim = simulator(sampling=rule, **CHANGES)
    asked, made = [], sim.model.forecasts

    def watched(before: torch.Tensor, conditions: Conditions) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append((before, conditions))
        return made(before, conditions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sim.model, "forecasts", watched)
        latents, _ = latents_of_run(sim, [np.array([i % 3]) for i in range(2 * WINDOW)], envs=1, seed=3)
    shown = latents
    if rule.context_level:
        noise = [frame_noise(torch.tensor([3]), torch.tensor([i]), latents.shape[2:], stream=1)[0] for i in range(9)]
        shown = (1 - rule.context_level) * latents + rule.context_level * torch.stack(noise)
    history = frames_before(shown, 3)
    # The first frame follows from noise; its forecast is not used.
    assert len(asked) == 1 + 2 * WINDOW
    for i, (before, conditions) in enumerate(asked[1:], start=1):
        torch.testing.assert_close(before[:, 0], history[:, i], rtol=0, atol=TOLERANCE)
        assert conditions.actions is not None
        assert conditions.actions[0, 0].argmax() == (i - 1) % 3


def test_a_forecast_leads_from_the_source_to_the_frame() -> None:
    """A transformer that says nothing leaves the forecast and its noise as they are."""
    sim = simulator(sampling=Sampling(steps=1), prediction="velocity", **CHANGES)
    with torch.no_grad():
        sim.model.unpatchify.weight.zero_()
        sim.model.unpatchify.bias.zero_()
    state, _ = sim.reset(frames=pixels(1, WINDOW), seed=5)
    after = sim.step(state, np.array([2])).state
    conditions = Conditions(actions=torch.eye(3)[2][None, None])
    expected, spread = sim.model.forecasts(state.recent(3)[0][:, None], conditions)
    noise = frame_noise(torch.tensor([5]), torch.tensor([WINDOW]), torch.Size((4, 4, 2)))[:, None]
    begin = source(sim.model.config, noise, expected, torch.ones(1, 1, dtype=torch.bool), spread)
    torch.testing.assert_close(after.recent(1)[0], begin, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(begin, expected + spread.clamp(min=0.05) * noise, rtol=0, atol=0)


def _batch(b: int = 2, f: int = 6) -> LatentBatch:
    """Cells in which a number grows by 0.1 a frame."""
    steps = torch.arange(f)[None, :, None, None, None] * 0.1
    known = torch.ones(b, f, dtype=torch.bool)
    return LatentBatch(
        latents=torch.randn(b, 1, 4, 4, 2, generator=torch.Generator().manual_seed(0)) + steps,
        actions=torch.zeros(b, f, 3),
        rewards=torch.zeros(b, f),
        terminated=torch.zeros(b, f, dtype=torch.bool),
        known=known,
        texts=[None] * b,
    )


def test_a_run_of_new_forecasts_is_as_wrong_as_standing_still() -> None:
    network = VideoDiT(replace(MODEL, **CHANGES))
    config = DynamicsConfig(bidirectional=0.0, forecasts=1.0, forecast_steps=4, context_noise=0.0)
    _, parts = dynamics_loss(network, _batch(), config, torch.Generator().manual_seed(0), feedback=False)
    # In the third and last step that six frames, three of them seen, allow: frame i + 2 is said to be frame i - 1.
    assert float(parts["run_forecast"]) == pytest.approx(0.1**2, rel=1e-4)
    assert float(parts["run_forecast_last"]) == pytest.approx(0.3**2, rel=1e-4)


@pytest.mark.parametrize("forecasts", [0.0, 1.0])
def test_windows_of_one_frame_have_nothing_to_forecast(forecasts: float) -> None:
    network = model(**CHANGES)
    config = DynamicsConfig(bidirectional=0.0, forecasts=forecasts)
    loss, parts = dynamics_loss(network, _batch(f=1), config, torch.Generator().manual_seed(0), feedback=False)
    assert torch.isfinite(loss)
    assert float(parts["run_forecast" if forecasts else "forecast"]) == 0.0
    # Nor do they keep longer ones beside them from running on.
    mixed = [_batch(f=6), _batch(f=1)]
    loss, parts = dynamics_loss(network, mixed, config, torch.Generator().manual_seed(0), feedback=False)
    assert torch.isfinite(loss)
    assert float(parts["run_forecast_last" if forecasts else "forecast"]) > 0.0


@pytest.mark.parametrize("forecasts", [0.0, 1.0])
def test_forecasts_learn_from_their_own_error_alone(forecasts: float) -> None:
    network = model(**CHANGES).requires_grad_(True)
    network.zero_grad()
    config = DynamicsConfig(bidirectional=0.0, forecasts=forecasts, forecast_steps=2)
    loss, _ = dynamics_loss(network, _batch(), config, torch.Generator().manual_seed(0), feedback=False)
    loss.backward()
    with_gradient = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    network.requires_grad_(False)
    assert "forecast" in with_gradient
    assert ("blocks" in with_gradient) == (forecasts == 0.0)


def test_forecasts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most the window"):
        ModelConfig(window=3, forecast=ForecastConfig(frames=4))
    with pytest.raises(ConfigError, match="`forecast` for source"):
        ModelConfig(source="forecast")
    with pytest.raises(ConfigError, match="at least 1"):
        ForecastConfig(depth=0)
    with pytest.raises(ConfigError, match="rectified_flow"):
        ModelConfig(source="forecast", forecast=ForecastConfig(), path="variance_preserving")
