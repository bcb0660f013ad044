"""Clips of any size in one batch: packed equals one by one, on every backend."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_worlds import MODEL, WINDOW, model

from worldsim.errors import FramesError, TextError
from worldsim.nn.attention import Packing, attend_packed
from worldsim.nn.masks import causal_mask
from worldsim.transformer import Clip, Conditions

SHAPES = [(3, 4, 2), (6, 2, 2), (1, 2, 6), (6, 4, 2), (5, 6, 4)]  # frames, rows, columns


def _clip(shape, seed, *, device="cpu"):
    frames, rows, columns = shape
    generator = torch.Generator().manual_seed(seed)
    network = model()

    def draw(*size):
        return torch.randn(size, generator=generator).to(device)

    text = network.encode_text([["a red ball", None, "two boxes"][seed % 3]])
    known = (torch.rand(1, frames, generator=generator) < 0.7).to(device)
    return Clip(
        latents=draw(frames, MODEL.latent_channels, rows, columns),
        levels=torch.rand(frames, generator=generator).to(device),
        positions=torch.arange(frames, device=device) + seed,
        conditions=Conditions(actions=draw(1, frames, 3), has_action=known, text=text.to(device)),
    )


def _alone(clip, *, bidirectional, network=None):
    mask = None if bidirectional else causal_mask(len(clip.latents), WINDOW)
    out = (network or model())(
        clip.latents[None], clip.levels[None], clip.conditions, positions=clip.positions, mask=mask
    )
    return out.prediction[0], out.hidden[0]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_equals_one_by_one(bidirectional):
    clips = [_clip(shape, seed) for seed, shape in enumerate(SHAPES)]
    packed = model().forward_packed(clips, bidirectional=bidirectional)
    for clip, out in zip(clips, packed, strict=True):
        prediction, hidden = _alone(clip, bidirectional=bidirectional)
        torch.testing.assert_close(out.prediction, prediction, atol=1e-5, rtol=0)
        torch.testing.assert_close(out.hidden, hidden, atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{"text": None}, {"action_token": False}, {"modulation": "block"}], ids=str)
def test_every_shape_of_model_can_be_packed(changes):
    network = model(**changes)
    clips = [_clip(shape, seed) for seed, shape in enumerate(SHAPES[:3])]
    if "text" in changes:
        clips = [Clip(**(vars(c) | {"conditions": Conditions(actions=c.conditions.actions)})) for c in clips]
    for clip, out in zip(clips, network.forward_packed(clips), strict=True):
        prediction, _ = _alone(clip, bidirectional=False, network=network)
        torch.testing.assert_close(out.prediction, prediction, atol=1e-5, rtol=0)


def test_a_clip_of_a_pack_changes_nothing_in_the_others():
    clips = [_clip(shape, seed) for seed, shape in enumerate(SHAPES)]
    before = model().forward_packed(clips)
    clips[1].latents.add_(1.0)
    after = model().forward_packed(clips)
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        assert torch.equal(a.prediction, b.prediction) == (i != 1)


def test_gradients_of_a_pack_are_those_of_its_clips():
    network = model()
    weight = network.blocks[0].temporal.qkv.weight.requires_grad_(True)
    try:
        clips = [_clip(shape, seed) for seed, shape in enumerate(SHAPES[:3])]
        packed = sum(out.prediction.square().sum() for out in network.forward_packed(clips))
        alone = sum(_alone(clip, bidirectional=False)[0].square().sum() for clip in clips)
        got, expected = (torch.autograd.grad(loss, weight)[0] for loss in (packed, alone))
    finally:
        weight.requires_grad_(False)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_impossible_packs_are_named():
    network = model()
    with pytest.raises(FramesError, match="at least one clip"):
        network.forward_packed([])
    with pytest.raises(FramesError, match="divisible by the patch"):
        network.forward_packed([_clip((1, 3, 2), 0)])
    silent = Clip(**(vars(_clip((1, 2, 2), 1)) | {"conditions": Conditions()}))
    with pytest.raises(TextError, match="every clip or for none"):
        network.forward_packed([_clip((1, 2, 2), 0), silent])


@settings(max_examples=30)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.sampled_from([None, 1, 2, 4]))
def test_packed_attention_is_dense_attention_under_its_mask(lengths, window):
    packing = Packing.of_lengths(lengths, window=window)
    q, k, v = (torch.randn(sum(lengths), 2, 4, dtype=torch.float64) for _ in range(3))
    q_rows, k_rows, back = packing.order
    scores = torch.einsum("nhd,mhd->hnm", q[q_rows], k[k_rows]) / 2.0
    weights = scores.masked_fill(~packing.mask(), float("-inf")).softmax(-1)
    expected = torch.einsum("hnm,mhd->nhd", weights, v[k_rows])[back]
    torch.testing.assert_close(attend_packed(q, k, v, packing), expected)


BIASES = {
    "frames": ([4, 4, 9, 1], [4, 4, 9, 1], None),
    "frames and text": ([4, 4, 9], [7, 7, 12], None),
    "windows": ([5, 5, 2, 7, 1], [5, 5, 2, 7, 1], 3),
}


@pytest.mark.parametrize(("q_lengths", "k_lengths", "window"), BIASES.values(), ids=BIASES)
def test_the_mask_given_to_xformers_is_ours(q_lengths, k_lengths, window):
    pytest.importorskip("xformers.ops.fmha.attn_bias")
    packing = Packing.of_lengths(q_lengths, k_lengths, window)
    bias = packing.bias.materialize((sum(q_lengths), sum(k_lengths)))
    assert torch.equal(bias == 0, packing.mask())
    assert bool((bias[~packing.mask()] == float("-inf")).all())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_on_cuda_equals_packed_on_the_cpu(bidirectional):
    here = model().forward_packed([_clip(s, i) for i, s in enumerate(SHAPES)], bidirectional=bidirectional)
    clips = [_clip(s, i, device="cuda") for i, s in enumerate(SHAPES)]
    try:
        there = model().to("cuda").forward_packed(clips, bidirectional=bidirectional)
    finally:
        model().to("cpu")
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a.prediction, b.prediction.cpu(), atol=1e-4, rtol=0)
