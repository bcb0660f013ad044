"""Samplers against Gaussian data, whose best estimate and probability flow have closed forms.

For data N(m, C) mixed as s x0 + n e, the best estimate is m + s C (s^2 C + n^2)^-1 (x - s m), and the flow carries
x - s m along each eigenvector of C in proportion to sqrt(s^2 c + n^2).
"""

import numpy as np
import pytest
import torch

from worldsim.errors import ConfigError
from worldsim.noise import RectifiedFlow, VariancePreserving
from worldsim.sampler import first_order_step, level_grid, sample

MEAN = torch.tensor([1.5, -0.5], dtype=torch.float64)
TURN = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
SPREAD = torch.tensor([2.0, 0.1], dtype=torch.float64)  # variances along the columns of TURN
COVARIANCE = TURN @ torch.diag(SPREAD) @ TURN.T
PATHS = {"rectified_flow": RectifiedFlow(), "variance_preserving": VariancePreserving()}


def _denoiser(path):
    def denoise(x, level):
        signal, noise = path.signal(level), path.noise(level)
        gain = signal * SPREAD / (signal**2 * SPREAD + noise**2)
        return MEAN + ((x - signal * MEAN) @ TURN * gain) @ TURN.T

    return denoise


def _flow(path, x, start):
    """Where the probability flow carries x from level `start` to 0."""
    signal, noise = path.signal(start), path.noise(start)
    scale = (SPREAD / (signal**2 * SPREAD + noise**2)).sqrt()
    return MEAN + ((x - signal * MEAN) @ TURN * scale) @ TURN.T


def _noise(count, seed=0):
    return torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _order(path, method, counts):
    """Slope of log error against log step size."""
    x = _noise(64)
    exact = _flow(path, x, torch.tensor(1.0, dtype=torch.float64))
    errors = [
        (sample(_denoiser(path), x, level_grid(n, path), path, method=method) - exact).square().mean().sqrt().item()
        for n in counts
    ]
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0], errors


@pytest.mark.parametrize(("method", "order"), [("euler", 1.0), ("heun", 2.0)])
def test_order_of_convergence_on_rectified_flow(method, order):
    measured, errors = _order(RectifiedFlow(), method, (32, 64, 128, 256))
    assert measured == pytest.approx(order, abs=0.15), errors


def test_order_of_convergence_of_ddim():
    # Counts that divide the 1000 tabulated steps: truncation of the grid does not blur the order.
    measured, errors = _order(VariancePreserving(), "euler", (50, 100, 200, 500))
    assert measured == pytest.approx(1.0, abs=0.15), errors


@pytest.mark.parametrize(
    ("path", "method", "steps"),
    [("rectified_flow", "euler", 400), ("rectified_flow", "heun", 48), ("variance_preserving", "euler", 500)],
)
def test_mean_and_covariance_are_recovered(path, method, steps):
    path, count = PATHS[path], 20_000
    drawn = sample(_denoiser(path), _noise(count, seed=1), level_grid(steps, path), path, method=method)
    # Five standard errors of the sample mean and covariance, plus 2 % for the integration.
    mean_error = 5 * (COVARIANCE.diagonal() / count).sqrt()
    assert bool(((drawn.mean(0) - MEAN).abs() < mean_error + 0.02 * MEAN.abs()).all())
    scale = torch.outer(COVARIANCE.diagonal(), COVARIANCE.diagonal())
    spread = 5 * ((scale + COVARIANCE**2) / count).sqrt() + 0.02 * scale.sqrt()
    assert bool(((torch.cov(drawn.T) - COVARIANCE).abs() < spread).all())


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_known_clean_latent_is_reached_in_any_number_of_steps(path):
    target = torch.randn(3, 2, dtype=torch.float64)
    for steps in (1, 2, 5):
        reached = sample(lambda x, level: target, _noise(3), level_grid(steps, path), path)
        torch.testing.assert_close(reached, target, atol=1e-12, rtol=0)


def test_sampling_from_the_middle_follows_the_flow():
    levels = level_grid(400, RectifiedFlow(), start=0.5)
    x = _noise(16) * 0.5 + 0.5 * MEAN
    reached = sample(_denoiser(RectifiedFlow()), x, levels, method="heun")
    torch.testing.assert_close(reached, _flow(RectifiedFlow(), x, levels[0]), atol=1e-4, rtol=0)


def test_damping_scales_every_update_but_the_last():
    target = torch.zeros(1, 2, dtype=torch.float64)
    seen = []

    def denoise(x, level):
        seen.append(x.clone())
        return target

    x = torch.ones(1, 2, dtype=torch.float64)
    end = sample(denoise, x, torch.tensor([1.0, 0.5, 0.25, 0.0], dtype=torch.float64), damping=0.8)
    # Halving twice becomes two steps of 1 - 0.8 / 2; the last one reaches the target.
    torch.testing.assert_close(torch.stack(seen)[:, 0, 0], torch.tensor([1.0, 0.6, 0.36], dtype=torch.float64))
    torch.testing.assert_close(end, target)


def test_a_step_keeps_clean_and_noise_and_changes_their_mixture():
    path = VariancePreserving()
    clean, noise = torch.randn(2, 4, dtype=torch.float64)
    here, there = (torch.tensor(level, dtype=torch.float64) for level in (0.8, 0.3))
    x = path.signal(here) * clean + path.noise(here) * noise
    moved = first_order_step(x, clean, here, there, path)
    torch.testing.assert_close(moved, path.signal(there) * clean + path.noise(there) * noise)


@pytest.mark.parametrize("levels", [[1.0], [0.5, 0.5, 0.0], [0.0, 1.0]])
def test_levels_that_do_not_decrease_are_refused(levels):
    with pytest.raises(ConfigError, match="decreasing"):
        sample(lambda x, level: x, _noise(1), torch.tensor(levels))


def test_heun_needs_rectified_flow():
    path = VariancePreserving()
    with pytest.raises(ConfigError, match="euler"):
        sample(_denoiser(path), _noise(1), level_grid(4, path), path, method="heun")
