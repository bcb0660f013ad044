"""The ring cache against a plain list of frames."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldsim.nn.blocks import StepLayout
from worldsim.nn.cache import RingCache
from worldsim.nn.rope import rotate, temporal_rotation

BLOCKS, TOKENS, HEADS, DIM = 2, 3, 2, 4


def _empty(batch, window):
    return RingCache.empty(
        batch, blocks=BLOCKS, tokens=TOKENS, window=window, heads=HEADS, head_dim=DIM, like=torch.zeros(())
    )


def _frames(batch, count, seed=0):
    shape = (2, BLOCKS, batch, count, TOKENS, HEADS, DIM)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _seen(keys, values, mask, row):
    """Keys and values that a row's mask lets through, as a set of rows."""
    seen = mask.expand(len(keys) * TOKENS, 1, 1, -1).reshape(len(keys), TOKENS, -1)[row] if mask is not None else None
    if seen is None:
        seen = torch.ones(TOKENS, keys.shape[2], dtype=torch.bool)
    both = torch.cat((keys[row], values[row]), dim=-1).flatten(2)
    return [sorted(both[n][seen[n]].tolist()) for n in range(TOKENS)]


@settings(max_examples=30)
@given(st.integers(1, 4), st.lists(st.integers(0, 9), min_size=1, max_size=3), st.integers(1, 6))
def test_a_step_sees_the_last_frames_of_its_own_sequence(window, ages, steps):
    """Rows of different ages, prefilled and then stepped, see what a list of frames would hold."""
    batch = len(ages)
    k, v = _frames(batch, max(ages) + steps)
    cache = _empty(batch, window)
    for row, age in enumerate(ages):
        one = _empty(1, window)
        if age:
            for block in range(BLOCKS):
                one.fill(block, k[block, row : row + 1, :age], v[block, row : row + 1, :age], torch.arange(age)[None])
        cache.keys[:, row], cache.values[:, row] = one.keys[:, 0], one.values[:, 0]
    cache = RingCache(cache.keys, cache.values, torch.tensor(ages))
    for _ in range(steps):
        now = cache.frame.tolist()
        for block in range(BLOCKS):
            new_k = torch.stack([k[block, row, t] for row, t in enumerate(now)])
            new_v = torch.stack([v[block, row, t] for row, t in enumerate(now)])
            keys, values, mask = cache.put(block, new_k, new_v)
            for row, t in enumerate(now):
                past = range(max(0, t - window + 1), t + 1)
                expected = [
                    sorted(
                        torch.cat((k[block, row, i, n], v[block, row, i, n]), dim=-1).flatten().tolist() for i in past
                    )
                    for n in range(TOKENS)
                ]
                assert _seen(keys, values, mask, row) == expected
        cache = cache.advanced()


@pytest.mark.parametrize(("window", "sinks"), [(4, 1), (4, 3), (3, 0), (5, 2)])
def test_attention_over_sinks_and_the_latest_frames_is_its_definition(window, sinks):
    """The first frames and the latest ones, placed one after another as in a window that has just filled."""
    frames, heads, dim = 3 * window, 2, 4
    generator = torch.Generator().manual_seed(window + sinks)
    q, k, v = torch.randn(3, frames, TOKENS, heads, dim, dtype=torch.float64, generator=generator)
    cache = RingCache.empty(
        1, blocks=1, tokens=TOKENS, window=window, heads=heads, head_dim=dim, like=q.new_zeros(()), sinks=sinks
    )

    def turned(x, positions):
        return rotate(x, temporal_rotation(torch.as_tensor(positions), dim, dtype=torch.float64)[..., None, None, :])

    for t in range(frames):
        time, near = (
            temporal_rotation(torch.tensor([[at]]), dim, dtype=torch.float64) for at in (t, min(t, window - 1))
        )
        layout = StepLayout(torch.zeros(TOKENS, 0), time, cache, near if sinks else None)
        found = layout.temporal(torch.stack((q[t], k[t]), dim=-3)[None, None], v[t][None, None])[0, 0]
        seen = [*range(min(sinks, t + 1)), *range(max(sinks, t - (window - sinks) + 1), t + 1)]
        places = range(len(seen))
        scores = torch.einsum("nhd,mnhd->nhm", turned(q[t], len(seen) - 1), turned(k[seen], places)) / dim**0.5
        expected = torch.einsum("nhm,mnhd->nhd", scores.softmax(-1), v[seen])
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
        cache = cache.advanced()


def test_frames_before_the_first_are_not_written():
    cache = _empty(1, 4)
    k, v = _frames(1, 3)
    cache.fill(0, k[0], v[0], torch.tensor([[-2, -1, 0]]))
    assert torch.equal(cache.keys[0, 0, :, :, 0], k[0, 0, 2])
    assert not cache.keys[0, 0, :, :, 1:].any()


def test_rows_and_clones_share_no_memory():
    cache = _empty(2, 3)
    k, v = _frames(2, 1)
    for copy in (cache.clone(), cache.rows(torch.tensor([1, 0, 1]))):
        cache.put(0, k[0, :, 0], v[0, :, 0])
        assert not copy.keys.any()
        assert not copy.values.any()
        cache.keys.zero_()
        cache.values.zero_()
