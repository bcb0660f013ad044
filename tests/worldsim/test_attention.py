"""Attention and rotary positions against their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldsim.nn.attention import Packing, attend, attend_packed
from worldsim.nn.rope import grid_rotation, rotate, rotation_by, temporal_rotation


def _draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _by_definition(q, k, v, mask=None):
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = torch.where(mask, scores, torch.tensor(float("-inf"), dtype=scores.dtype))
    return torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_its_definition(masked):
    q, k, v = _draw(2, 5, 3, 8), _draw(2, 7, 3, 8, seed=1), _draw(2, 7, 3, 8, seed=2)
    mask = (_draw(2, 1, 5, 7, seed=3) > 0) if masked else None
    if mask is not None:
        mask[..., 0] = True
    torch.testing.assert_close(attend(q, k, v, mask), _by_definition(q, k, v, mask))


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_bfloat16_agrees_to_its_precision(masked):
    q, k, v = (_draw(2, 6, 2, 8, seed=s) for s in range(3))
    mask = torch.ones(6, 6, dtype=torch.bool).tril() if masked else None
    low = attend(*(x.bfloat16() for x in (q, k, v)), mask)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), _by_definition(q, k, v, mask), atol=0.04, rtol=0)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=6))
def test_packed_attention_equals_one_sequence_at_a_time(lengths):
    q_lengths, k_lengths = zip(*lengths, strict=True)
    q = _draw(sum(q_lengths), 2, 4)
    k, v = _draw(sum(k_lengths), 2, 4, seed=1), _draw(sum(k_lengths), 2, 4, seed=2)
    alone = [
        _by_definition(a[None], b[None], c[None])[0]
        for a, b, c in zip(q.split(q_lengths), k.split(k_lengths), v.split(k_lengths), strict=True)
    ]
    torch.testing.assert_close(attend_packed(q, k, v, Packing.of_lengths(q_lengths, k_lengths)), torch.cat(alone))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_rotation_turns_pairs_and_keeps_their_length(dtype):
    x, angle = _draw(4, 6), _draw(4, 2, seed=1)
    turned = rotate(x.to(dtype), rotation_by(angle, dtype))
    assert turned.dtype == dtype
    cos, sin = angle.cos(), angle.sin()
    expected = x.clone()
    expected[:, 0:4:2] = x[:, 0:4:2] * cos - x[:, 1:4:2] * sin
    expected[:, 1:4:2] = x[:, 0:4:2] * sin + x[:, 1:4:2] * cos
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 0.03}[dtype]
    torch.testing.assert_close(turned.double(), expected, atol=tolerance, rtol=0)
    assert torch.equal(turned[:, 4:], x[:, 4:].to(dtype))


@given(st.integers(0, 10**6), st.integers(0, 100), st.integers(0, 2**31))
def test_only_the_difference_of_positions_matters(start, gap, seed):
    q, k = _draw(8, seed=seed), _draw(8, seed=seed + 1)

    def product(at):
        turn = temporal_rotation(torch.tensor([at, at + gap]), 8, dtype=torch.float64)
        return rotate(q, turn[0]) @ rotate(k, turn[1])

    torch.testing.assert_close(product(start), product(0), atol=1e-8, rtol=0)


def test_positions_keep_their_precision_far_from_the_start():
    # In float32 the fastest pair would be wrong by 6 % of a turn at ten million frames.
    far = temporal_rotation(torch.tensor([10_000_019]), 4, dtype=torch.float32)
    exact = torch.tensor(10_000_019 % (2 * torch.pi), dtype=torch.float64)
    assert abs(far[0, 0].real - exact.cos()) < 1e-6
    assert abs(far[0, 0].imag - exact.sin()) < 1e-6


def test_axial_positions_do_not_depend_on_the_size_of_the_frame():
    small = grid_rotation(2, 3, 16, "axial", torch.float64, torch.device("cpu")).reshape(2, 3, 8)
    large = grid_rotation(5, 7, 16, "axial", torch.float64, torch.device("cpu")).reshape(5, 7, 8)
    assert torch.equal(large[:2, :3], small)
    # Half of the pairs turn with the row, half with the column.
    assert torch.equal(large[2, 3, :4], large[2, 6, :4])
    assert torch.equal(large[2, 3, 4:], large[4, 3, 4:])
    assert not torch.equal(large[2, 3], large[3, 3])


def test_tokens_beside_the_patches_stay_where_they_are():
    turn = grid_rotation(2, 3, 16, "axial", torch.float64, torch.device("cpu"), beside=2)
    assert turn.shape == (8, 8)
    x = _draw(2, 16)
    assert torch.equal(rotate(x, turn[6:]), x)


def test_pixel_positions_run_from_minus_one_to_one():
    turn = grid_rotation(3, 2, 8, "pixel", torch.float64, torch.device("cpu")).reshape(3, 2, 4)
    angle = torch.tensor([1.0, 128.0], dtype=torch.float64) * torch.pi
    torch.testing.assert_close(turn[0, 0].imag, torch.cat((-angle, -angle)).sin(), atol=1e-9, rtol=0)
    torch.testing.assert_close(turn[1, 1].real, torch.cat((0 * angle, angle)).cos(), atol=1e-9, rtol=0)
