"""The simulator: seeds, batches, branches, states, and what a step returns."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny_worlds import FRAMES, SIZE, TOLERANCE, WINDOW, checkpoint, latents_of_run, pixels, randomised, simulator

from worldsim.checkpoint import save_checkpoint
from worldsim.nn.masks import causal_mask
from worldsim.noise import mix
from worldsim.sampling import Sampling
from worldsim.simulator import Simulator, load
from worldsim.state import State, frame_noise
from worldsim.transformer import Conditions
from worldsim.video import to_model


def test_a_run_repeats_bit_for_bit():
    sim = simulator()
    actions = [np.array([k % 3, 2]) for k in range(FRAMES)]
    first, second = (latents_of_run(sim, actions, envs=2) for _ in range(2))
    assert torch.equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_seeds_make_the_difference():
    sim, actions = simulator(), [np.array([0, 0])] * 2
    both, _ = latents_of_run(sim, actions, seed=[5, 6])
    assert not torch.isclose(both[0], both[1]).all()
    same, _ = latents_of_run(sim, actions, seed=[5, 5])
    assert torch.equal(same[0], same[1])


@pytest.mark.parametrize("rule", [Sampling(), Sampling(cache="exact", text_guidance=2.0)], ids=["rolling", "guided"])
def test_an_environment_of_a_batch_is_what_it_is_alone(rule):
    sim = simulator(sampling=rule)
    actions = [np.array([k % 3, 1, 2]) for k in range(FRAMES)]
    texts = ["a red ball", None, "two boxes"]
    together, pictures = latents_of_run(sim, actions, text=texts, seed=[4, 9, 2])
    for k in range(3):
        alone, alone_pictures = latents_of_run(
            sim, [a[k : k + 1] for a in actions], text=[texts[k]], seed=[[4, 9, 2][k]]
        )
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
    a, b = latents_of_run(sim, plain, envs=2)[0], latents_of_run(sim, changed, envs=2)[0]
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
