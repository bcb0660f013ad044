"""The simulator against recomputation without any cache, and CUDA against the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_worlds import FRAMES, MODEL, SIZE, TOLERANCE, WINDOW, checkpoint, latents_of_run, pixels, simulator, told

from worldsim.checkpoint import save_checkpoint
from worldsim.nn.masks import causal_mask
from worldsim.noise import clean_from_prediction, mix
from worldsim.sampler import level_grid, sample
from worldsim.sampling import Sampling
from worldsim.simulator import load
from worldsim.state import frame_noise
from worldsim.transformer import Conditions
from worldsim.video import to_model


def _uncached(sim, actions, *, text, seed):
    """The latents (1, T, C, h, w) of the same run by full passes: over the whole past, or the window if refreshed."""
    shape = (MODEL.latent_channels, SIZE[0] // 8, SIZE[1] // 8)
    latents = torch.zeros(1, 0, *shape)
    vectors = torch.cat((torch.zeros(1, 3), torch.eye(3)[np.concatenate(actions)]))[None]
    for i in range(len(actions) + 1):
        start = max(0, i - WINDOW + 1) if sim.sampling.cache == "exact" else 0
        latents = torch.cat((latents, _next_by_full_passes(sim, latents, vectors, start, text, seed)), dim=1)
    return latents


def _next_by_full_passes(sim, latents, vectors, start, text, seed):
    model, rule, path = sim.model, sim.sampling, sim.model.path
    i, shape = latents.shape[1], latents.shape[2:]
    context = latents[:, start:]
    if rule.context_noise and rule.context_level and i > start:
        noise = [frame_noise(torch.tensor([seed]), torch.tensor([j]), shape, stream=1) for j in range(start, i)]
        context = mix(path, context, torch.stack(noise, dim=1), torch.full((1, i - start), rule.context_level))
    positions = torch.arange(start, i + 1)
    has_action = positions[None] > 0

    def estimate(x, level, *, with_text=True, with_action=True):
        levels = torch.full((1, len(positions)), rule.context_level)
        levels[:, -1] = level
        conditions = Conditions(
            actions=vectors[:, start : i + 1],
            has_action=has_action & with_action,
            text=model.encode_text([text if with_text else None]),
        )
        mask = causal_mask(len(positions), WINDOW)
        out = model(torch.cat((context, x), dim=1), levels, conditions, positions=positions, mask=mask)
        return clean_from_prediction(path, model.config.prediction, out.prediction[:, -1:], x, level.expand(1, 1))

    def denoise(x, level):
        full = estimate(x, level)
        by_text = full - estimate(x, level, with_text=False)
        by_action = full - estimate(x, level, with_action=False)
        return full + (rule.text_guidance - 1) * by_text + (rule.action_guidance - 1) * by_action

    x = frame_noise(torch.tensor([seed]), torch.tensor([i]), shape)[:, None]
    grid = level_grid(rule.steps if i else rule.first_steps, path)
    return sample(denoise, x, grid, path, method=rule.method, damping=rule.damping)


CASES = {
    "rolling": Sampling(steps=2),
    "rolling heun": Sampling(steps=2, first_steps=3, method="heun"),
    "rolling guided": Sampling(steps=1, first_steps=2, text_guidance=2.0, action_guidance=1.7),
    "rolling noised context": Sampling(steps=2, first_steps=5, context_level=0.2, damping=0.9),
    "rolling told context": Sampling(steps=1, first_steps=1, context_level=0.2, context_noise=False),
    "exact": Sampling(steps=2, first_steps=3, cache="exact"),
    "exact guided": Sampling(steps=1, first_steps=2, cache="exact", text_guidance=1.5, action_guidance=0.0),
    "exact noised context": Sampling(steps=2, first_steps=2, cache="exact", context_level=0.2),
}


@pytest.mark.parametrize("rule", CASES.values(), ids=CASES)
def test_every_frame_equals_full_recomputation(rule):
    """`rolling` equals a pass over the whole past under windowed attention, `exact` one over the window alone."""
    sim = simulator(sampling=rule)
    actions = [np.array([i % 3]) for i in range(FRAMES)]
    found, _ = latents_of_run(sim, actions, envs=1)
    expected = _uncached(sim, actions, text="a red ball", seed=3)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("path", ["rectified_flow", "variance_preserving"])
@pytest.mark.parametrize("prediction", ["x", "velocity", "noise"])
def test_every_kind_of_model_equals_full_recomputation(path, prediction):
    sim = simulator(sampling=Sampling(steps=3, first_steps=3), path=path, prediction=prediction)
    actions = [np.array([1])] * (WINDOW + 2)
    found, _ = latents_of_run(sim, actions, envs=1)
    expected = _uncached(sim, actions, text="a red ball", seed=3)
    # Estimates from noise divide by the signal, which nearly vanishes at level 1: compare in units of the result.
    torch.testing.assert_close(found / expected.abs().amax(), expected / expected.abs().amax(), atol=TOLERANCE, rtol=0)


def test_a_frame_that_nothing_precedes_takes_its_own_number_of_steps():
    few, many = (simulator(sampling=Sampling(steps=1, first_steps=n)) for n in (1, 7))
    passes = []
    for sim in (few, many):
        step, count = sim.model.step, []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sim.model, "step", lambda *a, step=step, count=count: (count.append(1), step(*a))[1])
            state, first = sim.reset(text="a red ball")
            counts = [len(count)]
            sim.step(state, np.array([0]))
            counts.append(len(count) - counts[0])
            sim.reset(frames=pixels(2))
            counts.append(len(count) - sum(counts))
        passes.append(counts)
        np.testing.assert_array_equal(first[0], sim.rollout(text="a red ball", num_frames=0)[0])
    assert passes == [[1, 1, 0], [7, 1, 0]]


def test_exact_and_rolling_differ_once_the_window_slides():
    actions = [np.array([0])] * FRAMES
    rolling, _ = latents_of_run(simulator(sampling=Sampling(steps=1, first_steps=1)), actions, envs=1)
    exact, _ = latents_of_run(simulator(sampling=Sampling(steps=1, first_steps=1, cache="exact")), actions, envs=1)
    torch.testing.assert_close(rolling[:, :WINDOW], exact[:, :WINDOW], atol=TOLERANCE, rtol=0)
    assert (rolling[:, WINDOW:] - exact[:, WINDOW:]).abs().max() > 100 * TOLERANCE


SINKS = Sampling(steps=1, first_steps=2, sinks=2)


def test_sinks_matter_once_the_window_slides():
    actions = [np.array([i % 3]) for i in range(FRAMES)]
    with_sinks, _ = latents_of_run(simulator(sampling=SINKS), actions, envs=1)
    without, _ = latents_of_run(simulator(sampling=replace(SINKS, sinks=0)), actions, envs=1)
    torch.testing.assert_close(with_sinks[:, :WINDOW], without[:, :WINDOW], atol=TOLERANCE, rtol=0)
    assert (with_sinks[:, WINDOW:] - without[:, WINDOW:]).abs().max() > 100 * TOLERANCE


def test_frames_given_beyond_a_window_with_sinks_are_as_good_as_frames_seen_one_by_one():
    sim = simulator(sampling=SINKS)
    state, _ = sim.reset(text="a red ball", seed=3)
    latents, acts = [state.recent(1)[0]], [0, 1, 2] * WINDOW
    for action in acts:
        state = sim.step(state, np.array([action])).state
        latents.append(state.recent(1)[0])
    vectors = torch.cat((torch.zeros(1, 3), torch.eye(3)[acts]))[None]
    known = torch.arange(len(latents))[None] > 0
    blank = sim.dynamics.blank([3], ["a red ball"], (SIZE[0] // 8, SIZE[1] // 8), fingerprint=sim.fingerprint)
    again = sim.dynamics.prefill(blank, torch.cat(latents, dim=1), told(sim.model, vectors, known))
    torch.testing.assert_close(again.cache.keys, state.cache.keys, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(again.cache.values, state.cache.values, atol=TOLERANCE, rtol=0)
    assert torch.equal(again.frame, state.frame)


@pytest.mark.parametrize("cache", ["rolling", "exact"])
def test_given_frames_are_as_good_as_frames_seen_one_by_one(cache):
    """Prefilling equals stepping: the next frame after given ones is that of a cache filled frame by frame."""
    sim = simulator(sampling=Sampling(steps=2, cache=cache))
    given, acts = pixels(1, WINDOW), np.array([2, 0, 1])
    state, _ = sim.reset(frames=given, actions=acts, text="two boxes", seed=1)
    with torch.inference_mode():
        slow = sim.dynamics.blank([1], ["two boxes"], (4, 2), fingerprint=sim.fingerprint)
        for i, latent in enumerate(sim.tokenizer.encode(to_model(given)).split(1, dim=1)):
            controls = told(sim.model, torch.eye(3)[acts[i - 1]][None, None], torch.tensor([[i > 0]]))
            slow = sim.dynamics.observe(slow, latent, controls)
    for _ in range(3):
        fast_step, slow_step = sim.step(state, np.array([1])), sim.step(slow, np.array([1]))
        state, slow = fast_step.state, slow_step.state
        torch.testing.assert_close(state.recent(1)[0], slow.recent(1)[0], atol=TOLERANCE, rtol=0)


def test_long_given_videos_fill_the_window():
    """With windowed attention any number of frames may be given."""
    sim = simulator(sampling=Sampling(steps=1))
    long = pixels(1, 5 * WINDOW)
    state, last = sim.reset(frames=long)
    assert state.frame.tolist() == [5 * WINDOW]
    np.testing.assert_array_equal(last, long[:, -1])
    assert torch.isfinite(sim.step(state, np.array([0])).state.latents).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rule", [CASES["rolling guided"], CASES["exact noised context"]], ids=["rolling", "exact"])
def test_stepping_on_cuda_equals_stepping_on_the_cpu(rule, tmp_path):
    save_checkpoint(checkpoint(), tmp_path / "world", card="A test.")
    actions = [np.array([i % 3, 0]) for i in range(2 * WINDOW)]
    here, _ = latents_of_run(load(tmp_path / "world", sampling=rule), actions, envs=2)
    there, _ = latents_of_run(load(tmp_path / "world", sampling=rule, device="cuda"), actions, envs=2)
    torch.testing.assert_close(there.cpu(), here, atol=10 * TOLERANCE, rtol=0)
