"""The state as a value: branched, reordered, joined, saved, and refused where it does not belong."""

import re
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_worlds import pixels, simulator

from worldsim.controls import Controls
from worldsim.errors import StateError
from worldsim.sampling import Sampling
from worldsim.state import State, frame_noise

SIM = simulator(camera_dim=6)
GUIDED = simulator(sampling=Sampling(steps=1, text_guidance=2.0, action_guidance=1.5))


def _state(sim=SIM, envs=3, frames=2):
    texts = [None, "a red ball", "two boxes"][:envs]
    return sim.reset(frames=pixels(envs, frames), text=texts, seed=list(range(7, 7 + envs)))[0]


def _assert_same(a: State, b: State):
    for field in fields(State):
        if field.name == "cache":
            for part in ("keys", "values", "frame"):
                assert torch.equal(getattr(a.cache, part), getattr(b.cache, part)), part
        else:
            x, y = getattr(a, field.name), getattr(b, field.name)
            if isinstance(x, Controls):
                for name, part in x.tensors().items():
                    assert torch.equal(part, getattr(y, name)), name
                continue
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, field.name


@pytest.mark.parametrize("sim", [SIM, GUIDED], ids=["plain", "guided"])
def test_taking_apart_and_joining_is_the_identity(sim):
    state = _state(sim)
    _assert_same(State.join([state.take([k]) for k in range(3)]), state)
    _assert_same(State.join([state.take([0, 1]), state.take([2])]), state)


@settings(max_examples=15)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=5), st.data())
def test_take_composes(first, data):
    state = _state()
    second = data.draw(st.lists(st.integers(0, len(first) - 1), min_size=1, max_size=4))
    _assert_same(state.take(first).take(second), state.take([first[i] for i in second]))


@pytest.mark.parametrize("sim", [SIM, GUIDED], ids=["plain", "guided"])
def test_scatter_replaces_rows(sim):
    state, other = _state(sim), _state(sim, envs=2, frames=3)
    mixed = state.scatter([2, 0], other)
    _assert_same(mixed.take([1]), state.take([1]))
    _assert_same(mixed.take([2]), other.take([0]))
    _assert_same(mixed.take([0]), other.take([1]))
    assert mixed.frame.tolist() == [3, 2, 3]


@pytest.mark.parametrize("sim", [SIM, GUIDED], ids=["plain", "guided"])
def test_saving_and_loading_is_the_identity(sim, tmp_path):
    state = _state(sim)
    _assert_same(State.load(state.save(tmp_path / "deep" / "state.safetensors")), state)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["state.safetensors"]


def test_a_clone_shares_nothing_that_a_step_writes():
    state = _state()
    copy = state.clone()
    before = state.clone()
    SIM.step(copy, np.zeros(3, int), donate=True)
    _assert_same(state, before)


def test_branching():
    state = _state().take([1])
    many = state.branch(3)
    for k in range(3):
        _assert_same(many.take([k]), state)
    seeded = state.branch(2, seeds=[5, 6])
    assert seeded.seeds.tolist() == [5, 6]


def test_recent_frames_come_in_order():
    sim = simulator()
    state, _ = sim.reset(frames=pixels(3))
    latents = [state.recent(1)[0][:, 0]]
    for action in (0, 2, 1, 1):
        state = sim.step(state, np.array([action])).state
        latents.append(state.recent(1)[0][:, 0])
    found, controls = state.recent(3)
    assert torch.equal(found, torch.stack(latents[-3:], dim=1))
    assert controls.actions[0].argmax(-1).tolist() == [2, 1, 1]
    assert controls.has_action.all()


BAD = {
    "take below": (lambda s: s.take([-1]), "0 to 2"),
    "take above": (lambda s: s.take([3]), "0 to 2"),
    "take none": (lambda s: s.take([]), "0 to 2"),
    "take words": (lambda s: s.take(["a"]), "environment numbers"),
    "take mask": (lambda s: s.take(torch.tensor([True, False, True])), "0 to 2"),
    "take halves": (lambda s: s.take(torch.tensor([0.5])), "0 to 2"),
    "branch many": (lambda s: s.branch(2), "take"),
    "branch words": (lambda s: s.take([0]).branch("two"), "at least one copy"),
    "branch none": (lambda s: s.take([0]).branch(0), "at least one copy"),
    "branch seeds": (lambda s: s.take([0]).branch(2, seeds=[1]), "as many seeds"),
    "join none": (lambda s: State.join([]), "none"),
    "join others": (lambda s: State.join([s, 3]), "int"),
    "join models": (lambda s: State.join([s, replace(s, fingerprint="other")]), "one model"),
    "join guidance": (lambda s: State.join([s, _state(GUIDED)]), "guidance"),
    "join sizes": (lambda s: State.join([s, SIM.reset(frame_size=(16, 16))[0]]), "frame size"),
    "scatter above": (lambda s: s.scatter([3], s.take([0])), "0 to 2"),
    "scatter words": (lambda s: s.scatter(["a"], s.take([0])), "0 to 2"),
    "scatter twice": (lambda s: s.scatter([1, 1], s.take([0, 1])), "different"),
    "scatter count": (lambda s: s.scatter([1], s.take([0, 1])), "2 different"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_misuse_is_named(call, message):
    with pytest.raises(StateError, match=re.escape(message)):
        call(_state())


def _damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def _damage_foreign(path):
    save_file({"x": torch.zeros(1)}, path)


def _damage_text(path):
    path.write_text("not a state")


def _damage_missing(path):
    path.unlink()


def _damage_tensors(**changes):
    def damage(path):
        state = State.load(path)
        tensors = {k: v for k, v in (state._tensors() | changes).items() if v is not None}
        meta = {"format": "worldsim-state", "fingerprint": state.fingerprint, "variants": '["full"]'}
        save_file(tensors, path, metadata=meta)

    return damage


DAMAGE = {
    "truncated": _damage_truncate,
    "foreign": _damage_foreign,
    "text": _damage_text,
    "missing": _damage_missing,
    "fewer rows": _damage_tensors(latents=torch.zeros(1, 4, 4, 4, 2)),
    "no seeds": _damage_tensors(seeds=None),
    "no cache": _damage_tensors(**{"cache.keys": None}),
    "unknown part": _damage_tensors(mood=torch.zeros(1)),
    "half a camera": _damage_tensors(has_camera=torch.zeros(3, 2, dtype=torch.bool)),
    "not finite": _damage_tensors(actions=torch.full((3, 4, 3), float("nan"))),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_named(damage, tmp_path):
    path = _state().save(tmp_path / "state.safetensors")
    damage(path)
    with pytest.raises(StateError, match="a saved state at"):
        State.load(path)


def test_states_saved_before_there_was_a_camera_or_captions_were_kept_are_read(tmp_path):
    sim = simulator()
    state, path = _state(sim), tmp_path / "state.safetensors"
    tensors = {k: v for k, v in state._tensors().items() if "camera" not in k}
    save_file(tensors, path, {"format": "worldsim-state", "fingerprint": state.fingerprint, "variants": '["full"]'})
    _assert_same(State.load(path), replace(state, captions=(None,) * 3))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="to write"):
        _state().save(tmp_path / "file" / "state.safetensors")


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9)), min_size=1, max_size=5))
def test_the_noise_of_an_environment_is_what_it_would_get_alone(rows):
    seeds, frames = (torch.tensor(x, dtype=torch.int64) for x in zip(*rows, strict=True))
    shape = torch.Size((2, 3))
    together = frame_noise(seeds, frames, shape)
    for k in range(len(rows)):
        assert torch.equal(frame_noise(seeds[k : k + 1], frames[k : k + 1], shape)[0], together[k])


def test_noise_is_standard_and_differs_between_frames_seeds_and_streams():
    seeds, frames = torch.arange(100).repeat_interleave(100), torch.arange(100).repeat(100)
    noise = frame_noise(seeds, frames, torch.Size((8,)))
    other = frame_noise(seeds, frames, torch.Size((8,)), stream=1)
    count = noise.numel()
    assert abs(noise.mean()) < 5 / count**0.5
    assert abs(noise.var() - 1) < 5 * (2 / count) ** 0.5
    assert abs((noise * other).mean()) < 5 / count**0.5
    # Neighbouring frames and neighbouring seeds are uncorrelated.
    grid = noise.reshape(100, 100, 8)
    for a, b in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        assert abs((a * b).mean()) < 5 / a.numel() ** 0.5
    assert len({tuple(row) for row in noise.tolist()}) == 10_000
