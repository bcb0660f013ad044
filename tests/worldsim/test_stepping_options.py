"""Steps that are compiled, or of lower precision, against plain ones in float32."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_worlds import WINDOW, checkpoint

from worldsim.errors import ConfigError, StateError, UnknownNameError
from worldsim.nn.attention import attend, attend_past
from worldsim.nn.cache import RingCache
from worldsim.sampling import Sampling
from worldsim.simulator import Simulator
from worldsim.state import State

FRAMES = 2 * WINDOW + 1
COMPILED_TOLERANCE = 1e-5  # latents of unit variance, after nine frames
BFLOAT16_TOLERANCE = 0.1  # eight bits of precision in every product, over the same frames
SAMPLING = Sampling(steps=2, first_steps=2)


def _simulator(device="cpu", **options) -> Simulator:
    return Simulator(checkpoint(), sampling=options.pop("sampling", SAMPLING), device=device, **options)


def _latents(sim: Simulator, frames: int = FRAMES) -> torch.Tensor:
    """(2, frames, C, h, w) of two environments of which one is a frame older: the window fills, and slides."""
    state, _ = sim.reset(text="a red ball", seed=3, num_envs=2)
    older = sim.step(state, np.array([2, 2])).state
    state, seen = State.join([state.take([0]), older.take([1])]), []
    for i in range(frames):
        state = sim.step(state, np.array([i % 3, 1]), donate=True).state
        seen.append(state.recent(1)[0][:, 0].float().cpu())
    return torch.stack(seen, dim=1)


@pytest.fixture(scope="module")
def compiled() -> Simulator:
    return _simulator(compiled=True)


def test_compiled_steps_equal_plain_ones(compiled):
    torch.testing.assert_close(_latents(compiled), _latents(_simulator()), atol=COMPILED_TOLERANCE, rtol=0)


def test_one_compiled_block_serves_all_and_all_frames(compiled):
    """Neither another block, nor another frame, nor another slot of the ring compiles anything anew."""
    _latents(compiled, 1)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    _latents(compiled)
    assert before > 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


def test_compiled_and_plain_simulators_share_states(compiled, tmp_path):
    plain = _simulator()
    state, _ = plain.reset(text="a red ball", seed=3, num_envs=2)
    state.save(tmp_path / "state.safetensors")
    ours = compiled.step(State.load(tmp_path / "state.safetensors"), np.array([1, 0])).state
    theirs = plain.step(state, np.array([1, 0])).state
    torch.testing.assert_close(ours.latents, theirs.latents, atol=COMPILED_TOLERANCE, rtol=0)
    torch.testing.assert_close(ours.cache.keys, theirs.cache.keys, atol=COMPILED_TOLERANCE, rtol=0)


def test_bfloat16_stays_near_float32():
    low, full = _simulator(precision="bfloat16"), _simulator()
    state, _ = low.reset(text="a red ball", seed=3)
    assert (state.cache.keys.dtype, state.latents.dtype) == (torch.bfloat16, torch.float32)
    found, expected = _latents(low), _latents(full)
    error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert 0 < error < BFLOAT16_TOLERANCE
    assert full.model.dtype == torch.float32  # the checkpoint's own model is left alone


def test_bfloat16_repeats_and_survives_a_file(tmp_path):
    sim = _simulator(precision="bfloat16")
    state, _ = sim.reset(text="a red ball", seed=3)
    state.save(tmp_path / "state.safetensors")
    again = State.load(tmp_path / "state.safetensors")
    np.testing.assert_array_equal(sim.step(state, np.array([1])).frames, sim.step(again, np.array([1])).frames)


def test_states_of_another_precision_are_refused():
    state, _ = _simulator(precision="bfloat16").reset(text="a red ball")
    with pytest.raises(StateError, match="bfloat16"):
        _simulator().step(state, np.array([1]))


def test_what_cannot_be_is_refused():
    with pytest.raises(UnknownNameError, match="bfloat16"):
        _simulator(precision="bfloat61")
    with pytest.raises(ConfigError, match="sinks"):
        _simulator(compiled=True, sampling=replace(SAMPLING, sinks=1)).reset(text="a red ball")


@pytest.mark.parametrize("ages", [(0, 0), (2, 2), (1, 3), (5, 2), (9, 11)])
def test_attending_to_the_past_beside_a_frame_equals_attending_to_both(ages):
    """Against plain attention over exactly the frames that each sequence has seen, in float64."""
    generator = torch.Generator().manual_seed(0)
    cache = RingCache(*torch.randn(2, 1, 2, 3, 2, WINDOW, 4, generator=generator).double(), torch.tensor(ages))
    q, k, v = torch.randn(3, 2, 3, 2, 4, generator=generator).double()
    found = attend_past(q, k, v, cache.keys[0], cache.values[0], cache.past[:, None, None])
    for row, age in enumerate(ages):
        slots = [frame % WINDOW for frame in range(max(0, age - WINDOW + 1), age)]
        keys, values = (
            torch.cat((ring[0, row][:, :, slots], new[row][:, :, None]), dim=2).transpose(1, 2)
            for ring, new in ((cache.keys, k), (cache.values, v))
        )
        torch.testing.assert_close(found[row], attend(q[row][:, None], keys, values)[:, 0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", BFLOAT16_TOLERANCE)])
def test_cuda_graphs_equal_plain_steps(precision, tolerance):
    expected = _latents(_simulator())
    found = _latents(_simulator("cuda", precision=precision, compiled=True))
    assert (found - expected).square().mean().sqrt() < tolerance * expected.square().mean().sqrt()


def test_a_missing_compiler_is_named_before_anything_runs(monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="no-such-compiler"):
        _simulator(compiled=True)
