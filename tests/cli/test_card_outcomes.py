"""What a card says of rewards and ends: read as a step reads them, and told from chance."""

import numpy as np
import pytest
import torch

import worldsim
from worldsim.cli.card_outcomes import outcome_figures, outcomes_of
from worldsim.cli.demo_cases import GIVEN, Dreamt
from worldsim.data import Episode
from worldsim.video import to_model


def episodes(count=3, frames=12):
    rng = np.random.default_rng(0)
    return [
        Episode(
            frames=rng.integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8),
            actions=rng.integers(0, 5, frames - 1),
            rewards=rng.choice([-1.0, 0.0, 0.0, 1.0], frames - 1).astype(np.float32),
            terminated=np.zeros(frames - 1, bool),
            truncated=np.zeros(frames - 1, bool),
            fps=10.0,
            caption=f"scene {k}",
            seed=k,
        )
        for k in range(count)
    ]


def test_outcomes_of_true_frames_are_those_of_a_step_that_sees_them(tiny_bounce):
    simulator, given = worldsim.load(tiny_bounce), episodes()
    rewards, ends = outcomes_of(simulator, given)
    frames = np.stack([e.frames for e in given])
    actions = np.stack([e.actions for e in given])
    state, _ = simulator.reset(frames=frames[:, :1], text=[e.caption for e in given])
    dynamics = simulator.dynamics
    with torch.inference_mode():
        latents = simulator.tokenizer.encode(to_model(frames))
        for t in range(1, frames.shape[1]):  # twice as many as the window holds
            controls = simulator.inputs.of_step(actions[:, t - 1], None, len(given))
            latent = latents[:, t : t + 1]
            hidden = dynamics._see(state, latent, dynamics._plan(state, controls, [0.0]), 0)
            state = state.extended(latent[:, 0], controls)
            reward, logit = simulator.model.outcomes(hidden)
            np.testing.assert_allclose(rewards[:, t - 1], reward[:, 0], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(ends[:, t - 1], logit[:, 0].sigmoid(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("ends", [False, True])
def test_a_dream_that_knows_is_told_from_one_that_guesses(tiny_bounce, ends):
    given = episodes(count=8, frames=40)
    for episode in given if ends else ():
        episode.terminated[5::9] = True
    true = np.stack([e.rewards for e in given])[:, GIVEN - 1 :]
    over = np.stack([e.terminated for e in given])[:, GIVEN - 1 :]
    videos = np.stack([e.frames for e in given])
    simulator = worldsim.load(tiny_bounce)
    knows = {f.name: f for f in outcome_figures(simulator, given, Dreamt(videos, true, over))}
    for sign in ("above", "below"):
        for when in ("first 16 frames", f"all {true.shape[1]} frames"):
            assert knows[f"AUROC of reward {sign} 0, dream, {when}"].value == 1.0
        guess = knows[f"AUROC of reward {sign} 0, true frames"]
        assert guess.low < 0.5 < guess.high  # an untrained head
    if ends:
        assert knows["AUROC of termination, dream"].value == 1.0
    else:
        quiet = knows["frames wrongly said to end the episode (none does), dream"]
        assert (quiet.value, quiet.count) == (0.0, true.size)
        assert 0.0 < quiet.high < 0.02
        loud = outcome_figures(simulator, given, Dreamt(videos, true, ~over))[-1]
        assert (loud.name, loud.value) == (quiet.name, 1.0)
