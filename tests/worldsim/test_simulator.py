"""The simulator against recomputation without any cache, and everything that a caller may do wrong."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny_worlds import MODEL, SIZE, WINDOW, checkpoint, pixels, randomised, simulator, told

from worldsim.checkpoint import save_checkpoint
from worldsim.errors import ActionError, ConfigError, FramesError, StateError, TextError
from worldsim.nn.masks import causal_mask
from worldsim.noise import clean_from_prediction, mix
from worldsim.sampler import level_grid, sample
from worldsim.sampling import Sampling
from worldsim.simulator import Simulator, load
from worldsim.state import State, frame_noise
from worldsim.transformer import Conditions
from worldsim.video import to_model

# Networks compute a row of a batch, or a frame of a window, with other matrix shapes than alone; over a rollout the
# rounding stays below this in latents of unit variance.
TOLERANCE = 1e-4
FRAMES = 3 * WINDOW


def _rollout(sim, actions, *, frames=None, envs=None, text="a red ball", seed=3):
    """Latents (B, T, C, h, w) and pictures of a run, the first frame included."""
    state, first = sim.reset(frames=frames, text=text, seed=seed, num_envs=envs)
    latents, pictures = [state.recent(1)[0][:, 0]], [first]
    for action in actions:
        step = sim.step(state, action)
        state = step.state
        latents.append(state.recent(1)[0][:, 0])
        pictures.append(step.frames)
    return torch.stack(latents, dim=1), np.stack(pictures, axis=1)


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
    found, _ = _rollout(sim, actions, envs=1)
    expected = _uncached(sim, actions, text="a red ball", seed=3)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("path", ["rectified_flow", "variance_preserving"])
@pytest.mark.parametrize("prediction", ["x", "velocity", "noise"])
def test_every_kind_of_model_equals_full_recomputation(path, prediction):
    sim = simulator(sampling=Sampling(steps=3, first_steps=3), path=path, prediction=prediction)
    actions = [np.array([1])] * (WINDOW + 2)
    found, _ = _rollout(sim, actions, envs=1)
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
    rolling, _ = _rollout(simulator(sampling=Sampling(steps=1, first_steps=1)), actions, envs=1)
    exact, _ = _rollout(simulator(sampling=Sampling(steps=1, first_steps=1, cache="exact")), actions, envs=1)
    torch.testing.assert_close(rolling[:, :WINDOW], exact[:, :WINDOW], atol=TOLERANCE, rtol=0)
    assert (rolling[:, WINDOW:] - exact[:, WINDOW:]).abs().max() > 100 * TOLERANCE


SINKS = Sampling(steps=1, first_steps=2, sinks=2)


def test_sinks_matter_once_the_window_slides():
    actions = [np.array([i % 3]) for i in range(FRAMES)]
    with_sinks, _ = _rollout(simulator(sampling=SINKS), actions, envs=1)
    without, _ = _rollout(simulator(sampling=replace(SINKS, sinks=0)), actions, envs=1)
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


def test_a_run_repeats_bit_for_bit():
    sim = simulator()
    actions = [np.array([k % 3, 2]) for k in range(FRAMES)]
    first, second = (_rollout(sim, actions, envs=2) for _ in range(2))
    assert torch.equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rule", [CASES["rolling guided"], CASES["exact noised context"]], ids=["rolling", "exact"])
def test_stepping_on_cuda_equals_stepping_on_the_cpu(rule, tmp_path):
    save_checkpoint(checkpoint(), tmp_path / "world", card="A test.")
    actions = [np.array([i % 3, 0]) for i in range(2 * WINDOW)]
    here, _ = _rollout(load(tmp_path / "world", sampling=rule), actions, envs=2)
    there, _ = _rollout(load(tmp_path / "world", sampling=rule, device="cuda"), actions, envs=2)
    torch.testing.assert_close(there.cpu(), here, atol=10 * TOLERANCE, rtol=0)


def test_seeds_make_the_difference():
    sim, actions = simulator(), [np.array([0, 0])] * 2
    both, _ = _rollout(sim, actions, seed=[5, 6])
    assert not torch.isclose(both[0], both[1]).all()
    same, _ = _rollout(sim, actions, seed=[5, 5])
    assert torch.equal(same[0], same[1])


@pytest.mark.parametrize("rule", [Sampling(), Sampling(cache="exact", text_guidance=2.0)], ids=["rolling", "guided"])
def test_an_environment_of_a_batch_is_what_it_is_alone(rule):
    sim = simulator(sampling=rule)
    actions = [np.array([k % 3, 1, 2]) for k in range(FRAMES)]
    texts = ["a red ball", None, "two boxes"]
    together, pictures = _rollout(sim, actions, text=texts, seed=[4, 9, 2])
    for k in range(3):
        alone, alone_pictures = _rollout(sim, [a[k : k + 1] for a in actions], text=[texts[k]], seed=[[4, 9, 2][k]])
        torch.testing.assert_close(alone[0], together[k], atol=TOLERANCE, rtol=0)
        # A latent's rounding may move a pixel across the border between two of its 256 levels.
        difference = np.abs(alone_pictures[0].astype(int) - pictures[k].astype(int))
        assert difference.max() <= 1


def test_environments_of_different_ages_step_together():
    """After a scatter, rows of a batch stand at different frames; each goes on as it would alone."""
    for rule in (Sampling(steps=1), Sampling(steps=1, cache="exact")):
        sim = simulator(sampling=rule)
        old, _ = sim.reset(seed=1, text="a red ball")
        for _ in range(WINDOW + 1):
            old = sim.step(old, np.array([1])).state
        new, _ = sim.reset(seed=2, frames=pixels(2))
        state = State.join([old, new])
        for _ in range(WINDOW + 1):
            state, old, new = (
                sim.step(state, np.array([2, 0])).state,
                sim.step(old, np.array([2])).state,
                sim.step(new, np.array([0])).state,
            )
            alone = torch.cat((old.recent(1)[0], new.recent(1)[0]))
            torch.testing.assert_close(state.recent(1)[0], alone, atol=TOLERANCE, rtol=0)


def test_the_future_and_the_neighbour_change_nothing():
    sim = simulator()
    plain = [np.array([k % 3, 1]) for k in range(8)]
    changed = [a.copy() for a in plain]
    for action in changed[4:]:
        action[:] = 2 - action
    for action in changed[:4]:
        action[1] = 0
    a, b = _rollout(sim, plain, envs=2)[0], _rollout(sim, changed, envs=2)[0]
    assert torch.equal(a[0, :5], b[0, :5])
    assert not torch.isclose(a[0, 5:], b[0, 5:]).all()
    assert not torch.isclose(a[1, 1:5], b[1, 1:5]).all()


@pytest.mark.parametrize("rule", [Sampling(), Sampling(cache="exact")], ids=["rolling", "exact"])
def test_a_state_is_a_value(rule):
    """Stepping leaves the old state as it was: the same step from it gives the same frame, bit for bit."""
    sim = simulator(sampling=rule)
    state, _ = sim.reset(num_envs=2)
    for _ in range(WINDOW + 1):
        state = sim.step(state, np.array([0, 1])).state
    first = sim.step(state, np.array([1, 2]))
    sim.step(first.state, np.array([0, 0]))
    sim.step(state, np.array([2, 0]))
    again = sim.step(state, np.array([1, 2]))
    np.testing.assert_array_equal(first.frames, again.frames)
    assert torch.equal(first.state.cache.keys, again.state.cache.keys)
    donated = sim.step(state.clone(), np.array([1, 2]), donate=True)
    assert torch.equal(first.state.cache.keys, donated.state.cache.keys)


def test_branches_share_the_past_and_part_with_their_seeds():
    sim = simulator()
    state, _ = sim.reset(seed=5)
    state = sim.step(state, np.array([1])).state
    step = sim.step(state.branch(3, seeds=[5, 5, 6]), np.array([0, 0, 0]))
    np.testing.assert_array_equal(step.frames[0], step.frames[1])
    assert not np.array_equal(step.frames[0], step.frames[2])


RESUME = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])
from worldsim.simulator import load
from worldsim.state import State
sim = load(sys.argv[2])
state, frames = State.load(sys.argv[3]), []
for _ in range(3):
    step = sim.step(state, np.array([1, 2]))
    state = step.state
    frames.append(step.frames)
np.save(sys.argv[4], np.stack(frames))
"""


def test_a_saved_run_goes_on_in_another_process_bit_for_bit(tmp_path):
    save_checkpoint(checkpoint(), tmp_path / "world", card="A test.")
    sim = load(tmp_path / "world")
    state, _ = sim.reset(num_envs=2, text=["a red ball", None], seed=8)
    for _ in range(WINDOW):
        state = sim.step(state, np.array([0, 1])).state
    state.save(tmp_path / "state.safetensors")
    here = []
    for _ in range(3):
        step = sim.step(state, np.array([1, 2]))
        state = step.state
        here.append(step.frames)
    out = tmp_path / "frames.npy"
    arguments = [str(p) for p in (tmp_path, tmp_path / "world", tmp_path / "state.safetensors", out)]
    subprocess.run([sys.executable, "-c", RESUME, *arguments], check=True)
    np.testing.assert_array_equal(np.load(out), np.stack(here))


@pytest.mark.parametrize("stride", [1, 4])
def test_shapes_and_ranges_of_a_step(stride):
    sim = simulator(temporal_stride=stride)
    assert sim.actions_per_step == stride
    state, first = sim.reset(num_envs=2)
    assert first.shape == (2, *SIZE, 3)
    assert first.dtype == np.uint8
    actions = np.zeros(2, int) if stride == 1 else np.zeros((2, 4), int)
    step = sim.step(state, actions)
    assert step.frames.shape == ((2, *SIZE, 3) if stride == 1 else (2, 4, *SIZE, 3))
    assert step.frames.dtype == np.uint8
    assert (step.rewards.shape, step.rewards.dtype) == ((2,), np.float32)
    assert (step.terminated.shape, step.terminated.dtype) == ((2,), np.bool_)
    np.testing.assert_array_equal(sim.observe(step.state), step.frames if stride == 1 else step.frames[:, -1])


def test_rewards_and_ends_are_read_from_the_clean_pass():
    sim = simulator()
    state, _ = sim.reset(num_envs=2)
    step = sim.step(state, np.array([1, 2]))
    latents, controls = step.state.recent(2)
    conditions = Conditions(actions=controls.actions, has_action=controls.has_action, text=state.text)
    hidden = sim.model(
        latents, torch.zeros(2, 2), conditions, positions=torch.arange(2), mask=causal_mask(2, WINDOW)
    ).hidden
    reward, logit = sim.model.outcomes(hidden)
    np.testing.assert_allclose(step.rewards, 2.0 * reward[:, 1].numpy(), atol=TOLERANCE)
    np.testing.assert_array_equal(step.terminated, logit[:, 1].numpy() > 0)


def test_without_heads_there_is_no_reward_and_no_end():
    sim = simulator(heads_out=False)
    step = sim.step(sim.reset()[0], np.array([0]))
    assert (step.rewards.tolist(), step.terminated.tolist()) == ([0.0], [False])


def test_other_frame_sizes_work_too():
    sim = simulator()
    state, first = sim.reset(frame_size=(16, 48))
    assert first.shape == (1, 16, 48, 3)
    assert sim.step(state, np.array([0])).frames.shape == (1, 16, 48, 3)


@pytest.mark.parametrize("stride", [1, 4])
def test_rollout_is_reset_and_steps(stride):
    sim = simulator(temporal_stride=stride)
    actions, given = np.array([0, 1, 2, 1, 0, 2, 1, 1]), pixels(1 + stride)
    past = np.array([1] * stride)
    video = sim.rollout(frames=given, past_actions=past, actions=actions, text="two boxes", seed=4)
    assert video.shape == (1 + stride + 8, *SIZE, 3)
    np.testing.assert_array_equal(video[: 1 + stride], given)
    state, _ = sim.reset(frames=given, actions=past, text="two boxes", seed=4)
    step = sim.step(state, actions[:stride].reshape(1, *((4,) if stride == 4 else ())))
    np.testing.assert_array_equal(step.frames.reshape(-1, *SIZE, 3), video[1 + stride : 1 + 2 * stride])
    assert sim.rollout(num_frames=stride).shape == (1 + stride, *SIZE, 3)


SPACES = {
    "box": (spaces.Box(-1, 1, (2,)), [0.5, -0.5]),
    "many": (spaces.MultiDiscrete([2, 3]), [1, 2]),
    "dict": (spaces.Dict({"go": spaces.Discrete(2), "turn": spaces.Box(-1, 1, (1,))}), {"go": 1, "turn": [0.25]}),
    "tuple": (spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)]), [1, 2]),
}


def _stacked(space, action, *shape):
    if isinstance(space, spaces.Dict):
        return {k: _stacked(s, action[k], *shape) for k, s in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return [_stacked(s, a, *shape) for s, a in zip(space.spaces, action, strict=True)]
    value = np.asarray(action)
    return np.broadcast_to(value, (*shape, *value.shape))


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize(("space", "action"), SPACES.values(), ids=SPACES)
def test_every_kind_of_action_space(space, action, stride):
    """Given once for all environments or for each, and in runs: the numbers of the axes must not be mistaken.

    Two environments and two given actions are the case in which lengths alone cannot tell one from the other.
    """
    sim = simulator(space=space, temporal_stride=stride)
    given = pixels(2, 1 + 2 * stride)
    for_all, _ = sim.reset(frames=given, actions=_stacked(space, action, 2 * stride))
    for_each, _ = sim.reset(frames=given, actions=_stacked(space, action, 2, 2 * stride))
    assert torch.equal(for_all.controls.actions, for_each.controls.actions)
    assert for_all.controls.has_action[:, :3].tolist() == [[False, True, True]] * 2
    step = sim.step(for_all, _stacked(space, action, 2) if stride == 1 else _stacked(space, action, 2, stride))
    vector = step.state.recent(1)[1].actions
    assert torch.equal(vector[0], vector[1])
    assert torch.equal(vector[0, 0], for_all.controls.actions[0, 1])
    assert len(sim.rollout(actions=_stacked(space, action, 2 * stride))) == 1 + 2 * stride


def test_guidance_pushes_away_from_what_is_left_out():
    rule = Sampling(text_guidance=3.0)
    clean = torch.tensor([[1.0], [0.5]])  # full, then without text
    assert rule.guided(clean).tolist() == [[2.0]]
    assert Sampling(text_guidance=0.0).guided(clean).tolist() == [[0.5]]
    three = torch.tensor([[1.0], [0.5], [0.75]])
    assert Sampling(text_guidance=3.0, action_guidance=2.0).guided(three).tolist() == [[2.25]]
    assert Sampling().variants == ("full",)


def test_surprise_is_the_error_of_full_passes():
    sim, video, actions = simulator(), pixels(6), np.array([0, 1, 2, 1, 0])
    found = sim.surprise(video, actions=actions, text="a red ball", levels=(0.4, 1.0), seed=7)
    latents = sim.tokenizer.encode(to_model(video))
    vectors = torch.cat((torch.zeros(1, 3), torch.eye(3)[actions]))[None]
    expected = np.zeros(6)
    for i in range(6):
        noise = frame_noise(torch.tensor([7]), torch.tensor([i]), latents.shape[2:], stream=2)
        for level in (0.4, 1.0):
            levels = torch.zeros(1, i + 1)
            levels[:, i] = level
            x = torch.cat(
                (latents[:, :i], mix(sim.model.path, latents[:, i], noise, torch.tensor([level]))[:, None]), dim=1
            )
            known = torch.arange(i + 1)[None] > 0
            conditions = Conditions(
                actions=vectors[:, : i + 1], has_action=known, text=sim.model.encode_text(["a red ball"])
            )
            out = sim.model(x, levels, conditions, positions=torch.arange(i + 1), mask=causal_mask(i + 1, WINDOW))
            expected[i] += (out.prediction[0, i] - latents[0, i]).square().mean().item() / 2
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    both = sim.surprise(np.stack([video, video]), actions=actions, text="a red ball", levels=(0.4, 1.0), seed=7)
    np.testing.assert_allclose(both, np.stack([found, found]), rtol=1e-3)


def test_the_fingerprint_tells_one_changed_weight():
    world = checkpoint()
    other = randomised(type(world.model)(world.model.config))
    assert Simulator(replace(world, model=other)).fingerprint == simulator().fingerprint
    other.blocks[1].temporal_mlp[2].weight[0, 0] += 1e-3
    assert Simulator(replace(world, model=other)).fingerprint != simulator().fingerprint


PLAIN = simulator()
BAD_RESET = {
    "float frames": ({"frames": pixels(2) / 255.0}, FramesError, "uint8"),
    "a list": ({"frames": [1, 2]}, FramesError, "uint8"),
    "no channels": ({"frames": pixels(2)[..., 0]}, FramesError, "uint8"),
    "four channels": ({"frames": np.zeros((2, 16, 16, 4), np.uint8)}, FramesError, "uint8"),
    "no frames": ({"frames": pixels(0)}, FramesError, "uint8"),
    "odd size": ({"frames": np.zeros((2, 24, 16, 3), np.uint8)}, FramesError, "multiples of 16"),
    "odd new size": ({"frame_size": (20, 16)}, FramesError, "16 x 16 or 32 x 16"),
    "two sizes": ({"frames": pixels(2), "frame_size": (16, 16)}, FramesError, "(16, 16)"),
    "actions without frames": ({"actions": np.array([1])}, ActionError, "without given frames"),
    "too many actions": ({"frames": pixels(2), "actions": np.array([0, 1])}, ActionError, "1 actions between"),
    "too few actions": ({"frames": pixels(3), "actions": np.array([0])}, ActionError, "2 actions between"),
    "bad action": ({"frames": pixels(2), "actions": np.array([3])}, ActionError, "Discrete(3)"),
    "rows of actions": ({"frames": pixels(2), "actions": np.zeros((2, 1), int)}, ActionError, "each of 1"),
    "numbers for text": ({"text": [3]}, TextError, "str"),
    "long text": ({"text": "a b c d e f g"}, TextError, "at most 6"),
    "no environments": ({"num_envs": 0}, StateError, "at least 1"),
    "half an environment": ({"num_envs": 1.5}, StateError, "at least 1"),
    "three and two": ({"text": ["a", "b"], "num_envs": 3}, StateError, "agree"),
    "frames and seeds": ({"frames": pixels(2, 1), "seed": [1, 2, 3]}, StateError, "agree"),
    "half a seed": ({"seed": [0.5]}, StateError, "64-bit"),
    "no seed": ({"seed": None}, StateError, "64-bit"),
    "a number for text": ({"text": 3}, TextError, "str"),
    "half a size": ({"frame_size": 16}, FramesError, "(height, width)"),
    "a negative size": ({"frame_size": (-16, 16)}, FramesError, "(height, width)"),
    "a large seed": ({"seed": 2**63}, StateError, "64-bit"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_RESET.values(), ids=BAD_RESET)
def test_bad_resets_are_named(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        PLAIN.reset(**arguments)


def test_a_model_without_text_refuses_text():
    sim = simulator(text=None)
    with pytest.raises(TextError, match="without a text encoder"):
        sim.reset(text="a red ball")
    state, _ = sim.reset(text=[None, None])
    assert sim.step(state, np.array([0, 1])).frames.shape == (2, *SIZE, 3)


def test_a_model_that_must_be_refreshed_refuses_a_longer_context():
    sim = simulator(sampling=Sampling(cache="exact"))
    with pytest.raises(FramesError, match=f"at most {WINDOW}"):
        sim.reset(frames=pixels(WINDOW + 1))


BAD_STEP = {
    "too large": np.array([0, 3]),
    "one action": np.array([0]),
    "three actions": np.array([0, 1, 2]),
    "no axis": np.array(1),
    "halves": np.array([0.5, 1.0]),
    "NaN": np.array([np.nan, 1.0]),
    "words": np.array(["left", "right"]),
    "a mapping": {"go": 1},
}


@pytest.mark.parametrize("actions", BAD_STEP.values(), ids=BAD_STEP)
def test_bad_actions_are_named(actions):
    state, _ = PLAIN.reset(num_envs=2)
    with pytest.raises(ActionError):
        PLAIN.step(state, actions)


def test_a_world_without_actions_takes_none():
    sim = simulator(action_dim=0)
    state, _ = sim.reset()
    assert sim.step(state, None).frames.shape == (1, *SIZE, 3)
    for call in (lambda: sim.step(state, np.array([0])), lambda: sim.rollout(actions=[0, 1])):
        with pytest.raises(ActionError, match="takes None"):
            call()
    with pytest.raises(ActionError, match="takes None"):
        sim.reset(frames=pixels(2), actions=np.array([0]))


def test_what_is_no_state_device_or_video_is_named():
    with pytest.raises(StateError, match="a state of this model"):
        PLAIN.step(None, np.array([0]))
    with pytest.raises(FramesError, match="one video"):
        PLAIN.rollout(frames=pixels(2, 2), num_frames=1)
    for device in ("moon", "cuda:99"):
        with pytest.raises(ConfigError, match="a device that is here"):
            Simulator(PLAIN.checkpoint, device=device)


@pytest.mark.parametrize(
    "arguments", [{}, {"actions": np.array([0, 1]), "num_frames": 3}, {"num_frames": -1}, {"actions": np.array(1)}]
)
def test_bad_rollouts_are_named(arguments):
    with pytest.raises(ActionError):
        PLAIN.rollout(**arguments)


def test_states_of_other_models_or_guidance_are_refused():
    state, _ = simulator(seed=9).reset()
    for call in (lambda: PLAIN.step(state, np.array([0])), lambda: PLAIN.observe(state)):
        with pytest.raises(StateError, match="a state of this model"):
            call()
    text, action = (simulator(sampling=Sampling(**{k: 2.0})) for k in ("text_guidance", "action_guidance"))
    with pytest.raises(StateError, match="guidance"):
        text.step(action.reset()[0], np.array([0]))


def test_sinks_are_kept_with_the_state(tmp_path):
    sim = simulator(sampling=SINKS)
    state, _ = sim.reset(num_envs=2)
    assert State.load(state.save(tmp_path / "state.safetensors")).cache.sinks == 2
    with pytest.raises(StateError, match="2 attention sinks"):
        sim.step(PLAIN.reset(num_envs=2)[0], np.array([0, 0]))
    with pytest.raises(StateError, match="one model"):
        State.join([state, PLAIN.reset()[0]])
    with pytest.raises(ConfigError, match="fewer sinks than the window"):
        simulator(sampling=replace(SINKS, sinks=WINDOW))


def test_a_blank_state_has_nothing_to_observe():
    blank = PLAIN.dynamics.blank([0], [None], (4, 2), fingerprint=PLAIN.fingerprint)
    with pytest.raises(StateError, match="seen a frame"):
        PLAIN.observe(blank)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": 1.5},
        {"context_level": 1.0},
        {"damping": 0.0},
        {"first_steps": 0},
        {"sinks": -1},
        {"sinks": 1, "cache": "exact"},
        {"text_guidance": float("nan")},
        {"method": "magic"},
        {"cache": "none"},
    ],
)
def test_bad_sampling_is_refused(options):
    with pytest.raises(ConfigError):
        Sampling(**options)


def test_heun_is_refused_before_any_frame():
    with pytest.raises(ConfigError, match="DDIM"):
        simulator(path="variance_preserving", sampling=Sampling(method="heun"))


@pytest.mark.parametrize("options", [{"levels": ()}, {"levels": (0.0,)}, {"levels": (1.5,)}, {"draws": 0}])
def test_bad_surprise_is_refused(options):
    with pytest.raises(ConfigError, match="levels in"):
        PLAIN.surprise(pixels(2), **options)
