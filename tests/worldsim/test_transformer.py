"""Causality, windows and streams of the transformer."""

from dataclasses import replace

import pytest
import torch
from tiny_worlds import MODEL, WINDOW, model, randomised

from worldsim.errors import FramesError
from worldsim.nn.blocks import Block, DenseLayout, PackedLayout
from worldsim.nn.cache import RingCache
from worldsim.nn.ends import level_features
from worldsim.nn.masks import causal_mask, two_stream_mask
from worldsim.nn.rope import as_real, rotation_by
from worldsim.transformer import Conditions, VideoDiT

FRAMES, GRID = 7, (4, 2)


def _inputs(batch=2, frames=FRAMES, grid=GRID, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    network = model()
    latents = draw(batch, frames, MODEL.latent_channels, *grid)
    levels = torch.rand(batch, frames, generator=generator)
    has_action = torch.rand(batch, frames, generator=generator) < 0.7
    text = network.encode_text(["a red ball", None, "two boxes"][:batch])
    return latents, levels, Conditions(actions=draw(batch, frames, 3), has_action=has_action, text=text)


def _run(latents, levels, conditions, *, window=WINDOW, network=None, bidirectional=False):
    frames = latents.shape[1]
    mask = None if bidirectional else causal_mask(frames, window)
    network = network or model()
    return network(latents, levels, conditions, positions=torch.arange(frames), mask=mask)


def test_the_future_changes_nothing_in_the_past():
    latents, levels, conditions = _inputs()
    changed = [x.clone() for x in (latents, levels, conditions.actions, conditions.has_action)]
    changed[0][:, 4:] += 1.0
    changed[1][:, 4:] = 0.123
    changed[2][:, 4:] -= 2.0
    changed[3][:, 4:] = ~changed[3][:, 4:]
    before = _run(latents, levels, conditions)
    after = _run(changed[0], changed[1], Conditions(actions=changed[2], has_action=changed[3], text=conditions.text))
    assert torch.equal(before.prediction[:, :4], after.prediction[:, :4])
    assert torch.equal(before.hidden[:, :4], after.hidden[:, :4])
    assert not torch.isclose(before.prediction[:, 4:], after.prediction[:, 4:]).any(dim=-1).all()


def test_another_sequence_of_the_batch_changes_nothing():
    latents, levels, conditions = _inputs()
    before = _run(latents, levels, conditions)
    latents[1], levels[1], conditions.actions[1] = 5.0, 0.9, -3.0
    after = _run(latents, levels, conditions)
    assert torch.equal(before.prediction[0], after.prediction[0])
    assert not torch.equal(before.prediction[1], after.prediction[1])


def test_influence_ends_where_the_windows_of_all_blocks_end():
    network = model(window=2)
    latents, levels, conditions = _inputs(batch=1, frames=5)
    latents.requires_grad_(True)
    out = network(latents, levels, conditions, positions=torch.arange(5), mask=causal_mask(5, 2))
    out.prediction[:, 4].square().sum().backward()
    # Each of the two blocks looks one frame back.
    touched = latents.grad.abs().amax(dim=(0, 2, 3, 4)) > 0
    assert touched.tolist() == [False, False, True, True, True]


def test_bidirectional_time_sees_the_future_with_the_same_weights():
    latents, levels, conditions = _inputs()
    before = _run(latents, levels, conditions, bidirectional=True)
    latents[:, -1] += 1.0
    after = _run(latents, levels, conditions, bidirectional=True)
    assert not torch.isclose(before.prediction[:, 0], after.prediction[:, 0]).all()


def test_positions_are_relative():
    latents, levels, conditions = _inputs()
    here = model()(latents, levels, conditions, positions=torch.arange(FRAMES), mask=causal_mask(FRAMES, WINDOW))
    far = model()(latents, levels, conditions, positions=torch.arange(FRAMES) + 12345, mask=causal_mask(FRAMES, WINDOW))
    torch.testing.assert_close(here.prediction, far.prediction, atol=2e-5, rtol=0)


def test_a_cached_step_equals_the_windowed_pass_at_every_frame():
    """Clean frames one by one through the cache, well past the slide of the window."""
    latents, levels, conditions = _inputs(frames=3 * WINDOW)
    whole = _run(latents, levels, conditions)
    network, cache = model(), _empty_cache(2)
    keys = network.text_keys(conditions.text)
    for i in range(latents.shape[1]):
        now = Conditions(
            actions=conditions.actions[:, i : i + 1],
            has_action=conditions.has_action[:, i : i + 1],
            text=conditions.text,
        )
        plan = network.plan(levels[:, i : i + 1], now, cache, keys)
        prediction = network.step(latents[:, i : i + 1], plan, 0, cache)
        hidden = network.see(latents[:, i : i + 1], plan, 0, cache)
        torch.testing.assert_close(prediction[:, 0], whole.prediction[:, i], atol=2e-5, rtol=0)
        torch.testing.assert_close(hidden[:, 0], whole.hidden[:, i], atol=2e-5, rtol=0)
        cache = cache.advanced()


def test_the_two_streams_of_training_equal_the_cached_step():
    """Each noisy frame against the clean past, for all frames at once and one by one."""
    clean, levels, conditions = _inputs(frames=3 * WINDOW)
    frames, network = clean.shape[1], model()
    noisy = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    zero = torch.zeros_like(levels)
    both = network(
        torch.cat((clean, noisy), dim=1),
        torch.cat((zero, levels), dim=1),
        Conditions(
            actions=conditions.actions.repeat(1, 2, 1),
            has_action=conditions.has_action.repeat(1, 2),
            text=conditions.text,
        ),
        positions=torch.arange(frames).repeat(2),
        mask=two_stream_mask(frames, WINDOW),
    )
    cache, keys = _empty_cache(2), network.text_keys(conditions.text)
    for i in range(frames):
        now = Conditions(
            actions=conditions.actions[:, i : i + 1],
            has_action=conditions.has_action[:, i : i + 1],
            text=conditions.text,
        )
        plan = network.plan(torch.stack((levels[:, i], zero[:, i]), dim=1), now, cache, keys)
        denoised = network.step(noisy[:, i : i + 1], plan, 0, cache)
        hidden = network.see(clean[:, i : i + 1], plan, 1, cache)
        torch.testing.assert_close(denoised[:, 0], both.prediction[:, frames + i], atol=2e-5, rtol=0)
        torch.testing.assert_close(hidden[:, 0], both.hidden[:, i], atol=2e-5, rtol=0)
        cache = cache.advanced()


@pytest.mark.parametrize("qk_norm", [True, False])
def test_pairs_in_halves_change_nothing_but_their_order(qk_norm):
    torch.manual_seed(0)
    batch, frames, tokens, width, heads = 2, 5, 6, 16, 2
    block = Block(width, heads, mlp_ratio=2.0, qk_norm=qk_norm, shared_modulation=True, with_text=True)
    for parameter in block.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x, condition = torch.randn(batch, frames, tokens, width), torch.randn(batch, frames, 12, width)
    text, mask = torch.randn(batch, 3, width), causal_mask(frames, 3)
    grid, time = (as_real(rotation_by(6 * torch.rand(n, 4).double(), torch.float32)) for n in (tokens, frames))
    rows = [(batch, frames, tokens)]

    def run(packed, halved):
        block.zero_grad()
        if packed:
            layout = PackedLayout(rows, [grid], [time], window=3, text_tokens=3, halved=halved)
            out = block(x.flatten(0, 2), condition.flatten(0, 1), layout, block.text_keys(text)).view_as(x)
        else:
            out = block(x, condition, DenseLayout(grid, time, mask, halved=halved), block.text_keys(text))
        out.square().sum().backward()
        return [out.detach(), *(p.grad.clone() for p in block.parameters() if p.grad is not None)]

    expected = run(packed=False, halved=False)
    for packed in (False, True):
        for a, b in zip(expected, run(packed, halved=True), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


def test_masks_are_their_definitions():
    window = 3
    clean, both = causal_mask(5, window), two_stream_mask(5, window)
    for i in range(5):
        for j in range(5):
            assert clean[i, j] == (j <= i < j + window)
            assert both[i, j] == clean[i, j]
            assert not both[i, 5 + j]
            assert both[5 + i, j] == (j < i < j + window)
            assert both[5 + i, 5 + j] == (i == j)


@pytest.mark.parametrize("part", ["actions", "has_action", "text", "camera", "has_camera", "level"])
def test_every_condition_matters(part):
    network = model(camera_dim=2)
    latents, levels, conditions = _inputs(batch=1, frames=2)
    camera = torch.ones(1, 2, 2)
    known = torch.ones(1, 2, dtype=torch.bool)

    def run(**changes):
        given = {"actions": conditions.actions, "has_action": known, "text": conditions.text, "camera": camera}
        at = changes.pop("level", levels)
        return _run(latents, at, Conditions(**(given | changes)), network=network).prediction

    changes = {
        "actions": conditions.actions + 1,
        "has_action": ~known,
        "text": network.encode_text([None]),
        "camera": camera * 2,
        "has_camera": ~known,
        "level": levels * 0.5,
    }
    assert not torch.isclose(run(), run(**{part: changes[part]})).all()


def test_without_conditions_the_learned_absence_is_used():
    latents, levels, conditions = _inputs(batch=1)
    absent = torch.zeros(1, FRAMES, dtype=torch.bool)
    network, still = model(camera_dim=2), torch.zeros(1, FRAMES, 2)

    def run(**given):
        return _run(latents, levels, Conditions(text=conditions.text, **given), network=network).prediction

    told = {"actions": conditions.actions, "has_action": absent, "camera": still, "has_camera": absent}
    assert torch.equal(run(**told), run())
    assert not torch.isclose(run(camera=still), run()).all()  # a camera at rest is not an unknown one


def test_an_unknown_camera_differs_from_one_at_rest_before_any_training():
    network = VideoDiT(replace(MODEL, camera_dim=6))
    still = Conditions(camera=torch.zeros(1, 1, 6))
    levels = torch.zeros(1, 1)
    rest, unknown = (network.embed_condition(levels, c, None) for c in (still, Conditions()))
    assert (rest - unknown).abs().mean() > 1e-3


@pytest.mark.parametrize("grid", [(2, 2), (6, 4), (2, 10)])
def test_frames_of_any_size_divisible_by_the_patch(grid):
    latents, levels, conditions = _inputs(batch=1, grid=grid)
    assert _run(latents, levels, conditions).prediction.shape == latents.shape


def test_other_sizes_are_refused():
    latents, levels, conditions = _inputs(batch=1, grid=(3, 4))
    with pytest.raises(FramesError, match="multiples of the stride times the patch"):
        _run(latents, levels, conditions)


def test_patches_are_laid_out_where_they_were_read():
    """With attention and MLPs off, a change of one latent cell moves the prediction of its own patch alone."""
    network = randomised(VideoDiT(MODEL))
    for block in network.blocks:
        for part in (block.spatial.out, block.temporal.out, block.spatial_mlp[2], block.temporal_mlp[2]):
            part.weight.zero_()
            part.bias.zero_()
    latents, levels, conditions = _inputs(batch=1, frames=1)
    before = _run(latents, levels, conditions, network=network).prediction
    for y, x in ((0, 0), (1, 1), (3, 0)):
        moved = latents.clone()
        moved[0, 0, :, y, x] += 1.0
        change = (_run(moved, levels, conditions, network=network).prediction - before).abs().amax(dim=(0, 1, 2))
        touched = change.reshape(2, 2, 1, 2).amax(dim=(1, 3)) > 0
        assert touched.flatten().tolist() == [row == y // 2 for row in range(2)]


def test_level_features_are_the_published_sinusoids():
    features = level_features(torch.tensor([0.0, 14.0, 999.0]))
    i = torch.arange(128, dtype=torch.float64)
    angles = torch.tensor([[0.0], [14.0], [999.0]], dtype=torch.float64) * 10_000.0 ** (-i / 128)
    torch.testing.assert_close(features.double(), torch.cat((angles.cos(), angles.sin()), dim=-1), atol=2e-4, rtol=0)


def test_a_new_model_predicts_zero():
    latents, levels, conditions = _inputs(batch=1)
    assert not _run(latents, levels, Conditions(actions=conditions.actions), network=VideoDiT(MODEL)).prediction.any()


def _empty_cache(batch):
    patches = GRID[0] * GRID[1] // 4
    return RingCache.empty(
        batch,
        blocks=MODEL.depth,
        tokens=patches + 1,
        window=WINDOW,
        heads=MODEL.heads,
        head_dim=MODEL.width // MODEL.heads,
        like=torch.zeros(()),
    )


def test_a_model_that_was_stepped_can_be_trained():
    """Constants are kept between calls; made under inference mode they could not take part in a backward pass."""
    network = VideoDiT(MODEL)
    latents, levels, conditions = _inputs(batch=1, frames=3, grid=(6, 10))
    with torch.inference_mode():
        _run(latents, levels, conditions, network=network)
    known = Conditions(actions=conditions.actions, has_action=conditions.has_action, text=network.encode_text([None]))
    _run(latents, levels, known, network=network).prediction.sum().backward()
    assert network.unpatchify.weight.grad.abs().sum() > 0
