"""Noise paths against closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldsim.errors import ConfigError
from worldsim.noise import (
    RectifiedFlow,
    VariancePreserving,
    clean_from_prediction,
    mix,
    noise_from_clean,
    path_named,
)
from worldsim.sampler import level_grid

PATHS = {"rectified_flow": RectifiedFlow(), "variance_preserving": VariancePreserving()}


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def test_the_variance_preserving_schedule_is_the_sigmoid_curve():
    steps = np.arange(1000)
    # The product of the alphas telescopes to the curve itself, up to the last step, whose beta is bounded by 0.999.
    curve = (_sigmoid(3.0) - _sigmoid((steps + 1) / 1000 * 6.0 - 3.0)) / (_sigmoid(3.0) - _sigmoid(-3.0))
    level = torch.tensor((steps + 1) / 1000, dtype=torch.float64)
    signal = VariancePreserving().signal(level).numpy()
    # The reference rounds the ends of the sigmoid to float32, which moves the curve by 1e-8.
    np.testing.assert_allclose(signal[:-1] ** 2, curve[:-1], rtol=0, atol=3e-8)
    assert signal[-1] ** 2 == pytest.approx(curve[-2] * 0.001, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_are_read_as_whole_steps(dtype):
    level = torch.arange(1001, dtype=dtype) / 1000
    torch.testing.assert_close(VariancePreserving().time(level), torch.arange(-1, 1000, dtype=dtype), rtol=0, atol=0)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_signal_falls_and_noise_rises_from_clean_to_noise(path):
    level = torch.linspace(0, 1, 1001, dtype=torch.float64)
    signal, noise = path.signal(level), path.noise(level)
    assert (signal[0], noise[0]) == (1.0, 0.0)
    assert bool((signal.diff() < 0).all())
    assert bool((noise.diff() > 0).all())
    if isinstance(path, VariancePreserving):
        torch.testing.assert_close(signal**2 + noise**2, torch.ones_like(signal))
    else:
        torch.testing.assert_close(signal + noise, torch.ones_like(signal))


@given(
    name=st.sampled_from(sorted(PATHS)),
    kind=st.sampled_from(["x", "velocity", "noise"]),
    step=st.integers(1, 990),
    seed=st.integers(0, 2**31),
)
def test_every_prediction_leads_back_to_the_clean_latent(name, kind, step, seed):
    path = PATHS[name]
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 2, 3, 4, 5, generator=generator, dtype=torch.float64)
    level = torch.full((2,), step / 1000, dtype=torch.float64)
    x = mix(path, clean, noise, level)
    signal, factor = path.signal(level[0]), path.noise(level[0])
    velocity = noise - clean if name == "rectified_flow" else signal * noise - factor * clean
    prediction = {"x": clean, "noise": noise, "velocity": velocity}[kind]
    torch.testing.assert_close(clean_from_prediction(path, kind, prediction, x, level), clean)
    torch.testing.assert_close(noise_from_clean(path, clean, x, level), noise)


def test_velocity_of_rectified_flow_is_the_derivative_along_the_path():
    clean, noise = torch.randn(2, 1, 8, dtype=torch.float64)
    here, step = torch.tensor([0.3], dtype=torch.float64), 1e-6
    slope = (mix(RectifiedFlow(), clean, noise, here + step) - mix(RectifiedFlow(), clean, noise, here)) / step
    x = mix(RectifiedFlow(), clean, noise, here)
    torch.testing.assert_close(
        clean_from_prediction(RectifiedFlow(), "velocity", slope, x, here), clean, atol=1e-8, rtol=0
    )


def test_every_grid_of_the_variance_preserving_path_is_the_truncated_one():
    path = VariancePreserving()
    for steps in range(1, 201):
        expected = torch.linspace(-1, 999, steps + 1).long().flip(0)
        assert path.time(level_grid(steps, path).float()).long().tolist() == expected.tolist(), steps


def test_grids_of_rectified_flow_are_even():
    np.testing.assert_allclose(level_grid(4, RectifiedFlow()).numpy(), [1.0, 0.75, 0.5, 0.25, 0.0])
    np.testing.assert_allclose(level_grid(2, RectifiedFlow(), start=0.6).numpy(), [0.6, 0.3, 0.0])


@pytest.mark.parametrize(("steps", "start"), [(0, 1.0), (2, 0.0), (2, 1.5), (2, math.nan)])
def test_impossible_grids_are_refused(steps, start):
    with pytest.raises(ConfigError, match="at least one step"):
        level_grid(steps, RectifiedFlow(), start=start)


def test_paths_are_found_by_name():
    assert path_named("rectified_flow") == RectifiedFlow()
    assert path_named("variance_preserving") == VariancePreserving()
