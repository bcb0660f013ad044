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
from worldsim.training.batches import LatentBatch
from worldsim.training.config import DynamicsConfig
from worldsim.training.forecast_phase import forecast_loss
from worldsim.training.losses import dynamics_loss
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
    assert network.forecast is not None
    expected, spread = network.forecast(frames_before(latents, 3), Conditions())
    torch.testing.assert_close(expected[:, 1:], latents[:, :-1], rtol=0, atol=0)
    assert not expected[:, 0].any()
    assert (spread > 0).all()


def test_a_place_is_forecast_from_what_the_convolutions_reach_whatever_the_size() -> None:
    """Two pairs of convolutions and one at each end reach six cells."""
    forecast = model(**CHANGES).forecast
    assert isinstance(forecast, Forecast)
    before, conditions = torch.randn(1, 1, 3, 4, 16, 16), Conditions(actions=torch.randn(1, 1, 3))
    base, _ = forecast(before, conditions)
    changed = before.clone()
    changed[..., 0, 0] += 1.0
    moved = (forecast(changed, conditions)[0] - base).abs().amax(dim=2)[0, 0] > 0
    assert moved[:7, :7].all()
    assert not moved[7:].any()
    assert not moved[:, 7:].any()
    # Far from the border a larger picture is forecast as its part.
    part, _ = forecast(before[..., :14, :14], conditions)
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
    asked: list[tuple[torch.Tensor, Conditions]] = []
    assert sim.model.forecast is not None
    watch = sim.model.forecast.register_forward_pre_hook(lambda _, given: asked.append(given))
    latents, _ = latents_of_run(sim, [np.array([i % 3]) for i in range(2 * WINDOW)], envs=1, seed=3)
    watch.remove()
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
    assert sim.model.forecast is not None
    expected, spread = sim.model.forecast(state.recent(3)[0][:, None], conditions)
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


def _loss(config: DynamicsConfig, network: VideoDiT, f: int = 6) -> tuple[torch.Tensor, dict[str, float]]:
    assert network.forecast is not None
    loss, parts = forecast_loss(network.forecast, _batch(f=f), config, torch.Generator().manual_seed(0))
    return loss, {k: float(v) for k, v in parts.items()}


def test_a_run_of_new_forecasts_is_as_wrong_as_standing_still() -> None:
    _, parts = _loss(DynamicsConfig(forecast_noise=0.0, forecast_short=0.0), VideoDiT(replace(MODEL, **CHANGES)))
    # Of six frames three are seen, and each forecast says the third: frames on from it by 1, 2 and 3.
    assert parts["error"] == pytest.approx(0.1**2, rel=1e-4)
    assert parts["still_error"] == pytest.approx(0.1**2, rel=1e-4)
    assert parts["last_error"] == pytest.approx(0.3**2, rel=1e-4)


def test_a_run_of_forecasts_goes_on_from_its_own_frames() -> None:
    network = model(**CHANGES)
    assert network.forecast is not None
    batch = _batch(f=5)
    _, parts = _loss(DynamicsConfig(forecast_noise=0.0, forecast_short=0.0, drop_action=0.0), network, f=5)
    known = Conditions(actions=batch.actions[:, :1] if batch.actions is not None else None)
    first, _ = network.forecast(batch.latents[:, None, :3], known)
    second, _ = network.forecast(torch.cat((batch.latents[:, None, 1:3], first[:, :, None]), dim=2), known)
    assert parts["error"] == pytest.approx(float((first - batch.latents[:, 3:4]).square().mean()), rel=1e-5)
    assert parts["last_error"] == pytest.approx(float((second - batch.latents[:, 4:]).square().mean()), rel=1e-5)


def test_short_windows_show_the_latest_frames_only() -> None:
    network = model(**CHANGES)
    assert network.forecast is not None
    seen: list[torch.Tensor] = []
    watch = network.forecast.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        forecast_loss(network.forecast, _batch(b=8, f=4), DynamicsConfig(forecast_short=1.0), generator)
    watch.remove()
    shown = torch.cat(seen)[:, 0].flatten(2).abs().amax(dim=2) > 0  # (windows, 3)
    assert shown[:, -1].all()
    assert {int(x) for x in shown.sum(dim=1)} == {1, 2, 3}
    assert (shown.int().diff(dim=1) >= 0).all()


@pytest.mark.parametrize("own", [True, False], ids=["forecast", "transformer"])
def test_forecasts_and_the_transformer_learn_apart(*, own: bool) -> None:
    network = model(**CHANGES).requires_grad_(requires_grad=True)
    network.zero_grad()
    if own:
        loss, _ = _loss(DynamicsConfig(), network)
    else:
        config = DynamicsConfig(bidirectional=0.0)
        loss, _ = dynamics_loss(network, _batch(), config, torch.Generator().manual_seed(0), feedback=True)
    loss.backward()
    with_gradient = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    network.requires_grad_(requires_grad=False)
    assert ("forecast" in with_gradient) == own
    assert ("blocks" in with_gradient) == (not own)


@pytest.mark.parametrize("feedback", [False, True])
def test_windows_of_one_frame_have_nothing_to_forecast(*, feedback: bool) -> None:
    network, config = model(**CHANGES), DynamicsConfig(bidirectional=0.0)
    for batch in (_batch(f=1), [_batch(f=6), _batch(f=1)]):
        loss, _ = dynamics_loss(network, batch, config, torch.Generator().manual_seed(0), feedback=feedback)
        assert torch.isfinite(loss)


def test_forecasts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most the window"):
        ModelConfig(window=3, forecast=ForecastConfig(frames=4))
    with pytest.raises(ConfigError, match="`forecast` for source"):
        ModelConfig(source="forecast")
    with pytest.raises(ConfigError, match="at least 1"):
        ForecastConfig(depth=0)
    with pytest.raises(ConfigError, match="rectified_flow"):
        ModelConfig(source="forecast", forecast=ForecastConfig(), path="variance_preserving")
