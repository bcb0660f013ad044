"""Reward as a distribution, against its definition; the heads, against what they are to learn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldsim.config import ModelConfig
from worldsim.errors import ConfigError
from worldsim.nn.outcomes import Outcome, reward_values, two_hot


@given(st.floats(-147, 147, width=32), st.sampled_from((3, 41, 63)))
def test_the_mean_of_two_hot_is_the_number(x, count):
    values = reward_values(count)
    weights = two_hot(torch.tensor([x]), values)
    assert weights.sum() == pytest.approx(1.0, abs=1e-6)
    assert (weights > 0).sum() <= 2
    assert float(weights @ values) == pytest.approx(x, abs=1e-4 * max(1.0, abs(x)))


def test_what_lies_beyond_counts_as_the_outermost():
    values = reward_values(5)
    assert torch.equal(two_hot(torch.tensor([-1e6, 1e6]), values), torch.eye(5)[[0, 4]])


def test_values_are_even_in_symmetric_logarithm():
    values = reward_values(63)
    steps = (values.sign() * values.abs().log1p()).diff()
    torch.testing.assert_close(steps, torch.full((62,), 10 / 62), atol=1e-4, rtol=0)
    assert values[31] == 0


def test_losses_are_the_entropy_and_the_square():
    hidden, rewards, ended = torch.randn(2, 3, 4, 8), torch.tensor([[0.0, 1, -2]] * 2), torch.zeros(2, 3).bool()
    square = Outcome(8)
    assert torch.allclose(square.losses(hidden, rewards, ended)[0], (square(hidden)[0] - rewards).square())
    heads = Outcome(8, 41)
    for name, weight in heads.named_parameters():
        if name.startswith("mlp.2"):
            torch.nn.init.zeros_(weight)
    loss, _ = heads.losses(hidden, rewards, ended)
    torch.testing.assert_close(loss, torch.full((2, 3), torch.tensor(41.0).log().item()))
    torch.testing.assert_close(heads(hidden)[0], torch.zeros(2, 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("bins", [0, 41])
def test_the_heads_learn_rewards_that_tokens_show(bins):
    torch.manual_seed(0)
    heads = Outcome(16, bins)
    optimiser = torch.optim.Adam(heads.parameters(), lr=2e-2)
    rewards = torch.randint(-1, 2, (64, 4)).float()
    hidden = 0.1 * torch.randn(64, 4, 5, 16)
    hidden[:, :, 2, 0] = rewards
    for _ in range(250):
        optimiser.zero_grad()
        reward, end = heads.losses(hidden, rewards, rewards > 0)
        (reward + end).mean().backward()
        optimiser.step()
    said, logit = heads(hidden)
    assert (said - rewards).abs().mean() < 0.1
    assert ((logit > 0) == (rewards > 0)).float().mean() > 0.98


@pytest.mark.parametrize("bins", [1, 2, 40, -3])
def test_nought_must_be_in_the_middle(bins):
    with pytest.raises(ConfigError, match="odd number"):
        ModelConfig(reward_bins=bins)
