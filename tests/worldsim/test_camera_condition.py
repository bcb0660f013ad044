"""Learned worlds that take the camera's motion: every entrance of the simulator against full recomputation."""

import re

import numpy as np
import pytest
import torch
from tiny_worlds import CAMERA_RANGE, MODEL, SIZE, WINDOW, checkpoint, model, pixels, simulator

from worldsim.camera import scaled_motion
from worldsim.checkpoint import load_checkpoint, save_checkpoint
from worldsim.errors import ActionError, CameraError, CheckpointError, ConfigError
from worldsim.generate import connect, edit, extend, text_to_video
from worldsim.nn.masks import causal_mask
from worldsim.noise import clean_from_prediction
from worldsim.sampler import level_grid, sample
from worldsim.sampling import Sampling
from worldsim.simulator import Simulator
from worldsim.state import State, frame_noise
from worldsim.transformer import Clip, Conditions
from worldsim.video import to_model

TOLERANCE = 1e-4
FRAMES = 2 * WINDOW + 1


def motions(*shape, seed=0):
    return np.random.default_rng(seed).normal(0.0, 1.0, (*shape, 6)) * np.array([0.05, 0.2, 0.05, 0.3, 0.1, 0.5])


def camera_world(**changes):
    return simulator(**{"camera_dim": 6, "sampling": Sampling(steps=1, first_steps=2), **changes})


SIM = camera_world()
PLAIN = simulator()


def stepped(sim, camera, *, actions=None, seed=3):
    """Latents (B, T+1, C, h, w) of a run with motions (T, B, 6), or None for one of unknown ones."""
    batch = next(len(m) for m in camera if m is not None)
    state, _ = sim.reset(text="a red ball", seed=seed, num_envs=batch)
    latents = [state.recent(1)[0][:, 0]]
    for i, motion in enumerate(camera):
        state = sim.step(state, None if actions is None else actions[i], camera=motion).state
        latents.append(state.recent(1)[0][:, 0])
    return torch.stack(latents, dim=1)


def recomputed(sim, camera, known, seed):
    """The latents (1, T+1, ...) of such a run of one environment without actions, by full passes."""
    network, rule, path = sim.model, sim.sampling, sim.model.path
    latents = torch.zeros(1, 0, MODEL.latent_channels, SIZE[0] // 8, SIZE[1] // 8)
    scaled = torch.from_numpy(scaled_motion(np.concatenate([np.zeros((1, 6)), camera]), CAMERA_RANGE))[None]
    has_camera = torch.tensor([[False, *known]])
    for i in range(len(camera) + 1):
        start = max(0, i - WINDOW + 1) if rule.cache == "exact" else 0
        positions, run = torch.arange(start, i + 1), slice(start, i + 1)

        def estimate(x, level, has, latents=latents, positions=positions, run=run):
            levels = torch.zeros(1, len(positions))
            levels[:, -1] = level
            conditions = Conditions(
                camera=scaled[:, run], has_camera=has[:, run], text=network.encode_text(["a red ball"])
            )
            out = network(
                torch.cat((latents[:, run.start :], x), dim=1),
                levels,
                conditions,
                positions=positions,
                mask=causal_mask(len(positions), WINDOW),
            )
            return clean_from_prediction(path, network.config.prediction, out.prediction[:, -1:], x, level)

        def denoise(x, level, estimate=estimate):
            full = estimate(x, level, has_camera)
            without = estimate(x, level, torch.zeros_like(has_camera))
            return full + (rule.camera_guidance - 1.0) * (full - without)

        x = frame_noise(torch.tensor([seed]), torch.tensor([i]), latents.shape[2:])[:, None]
        grid = level_grid(rule.steps if i else rule.first_steps, path)
        latents = torch.cat((latents, sample(denoise, x, grid, path)), dim=1)
    return latents


CASES = {
    "rolling": Sampling(steps=2, first_steps=2),
    "exact": Sampling(steps=1, first_steps=2, cache="exact"),
    "guided": Sampling(steps=1, first_steps=1, camera_guidance=1.8),
}


@pytest.mark.parametrize("rule", CASES.values(), ids=CASES)
def test_every_frame_equals_full_recomputation(rule):
    """Also where some motions are unknown, and across the slide of the window."""
    sim, camera = camera_world(sampling=rule), motions(FRAMES)
    known = [i % 4 != 2 for i in range(FRAMES)]
    found = stepped(sim, [m[None] if k else None for m, k in zip(camera, known, strict=True)])
    torch.testing.assert_close(found, recomputed(sim, camera, known, 3), atol=TOLERANCE, rtol=0)


def test_the_future_and_the_neighbour_change_nothing():
    camera = motions(6, 2)
    changed = camera.copy()
    changed[3:] *= -2.0
    changed[:3, 1] += 0.3
    a, b = stepped(SIM, camera), stepped(SIM, changed)
    assert torch.equal(a[0, :4], b[0, :4])
    assert not torch.isclose(a[0, 4:], b[0, 4:]).all()
    assert not torch.isclose(a[1, 1:4], b[1, 1:4]).all()


def test_an_unknown_motion_is_not_rest():
    still = stepped(SIM, np.zeros((2, 1, 6)))
    unknown = stepped(SIM, [None, np.zeros((1, 6))])
    assert torch.equal(still[:, 0], unknown[:, 0])
    assert not torch.isclose(still[:, 1], unknown[:, 1]).all()


def test_packed_clips_equal_each_alone():
    network, clips = model(camera_dim=6), []
    for seed, (frames, rows, columns) in enumerate([(3, 4, 2), (6, 2, 2), (1, 2, 6)]):
        torch.manual_seed(seed)
        conditions = Conditions(
            actions=torch.randn(1, frames, 3),
            text=network.encode_text([None]),
            camera=torch.randn(1, frames, 6) if seed else None,
            has_camera=torch.rand(1, frames) < 0.6 if seed else None,
        )
        clips.append(
            Clip(
                latents=torch.randn(frames, MODEL.latent_channels, rows, columns),
                levels=torch.rand(frames),
                positions=torch.arange(frames),
                conditions=conditions,
            )
        )
    for clip, found in zip(clips, network.forward_packed(clips), strict=True):
        mask = causal_mask(len(clip.latents), WINDOW)
        alone = network(
            clip.latents[None], clip.levels[None], clip.conditions, positions=clip.positions, mask=mask
        ).prediction[0]
        torch.testing.assert_close(found.prediction, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cache", ["rolling", "exact"])
def test_given_frames_are_as_good_as_frames_seen_one_by_one(cache):
    sim, given, camera = camera_world(sampling=Sampling(steps=1, cache=cache)), pixels(1, WINDOW), motions(WINDOW - 1)
    state, _ = sim.reset(frames=given, camera=camera, seed=1)
    with torch.inference_mode():
        controls = sim.inputs.of_past(None, camera[None], 1, WINDOW)
        slow = sim.dynamics.blank([1], [None], (4, 2), fingerprint=sim.fingerprint)
        for i, latent in enumerate(sim.tokenizer.encode(to_model(given)).split(1, dim=1)):
            slow = sim.dynamics.observe(slow, latent, controls.at(slice(i, i + 1)))
    for row in motions(2, 1, seed=5):
        state, slow = (sim.step(s, None, camera=row).state for s in (state, slow))
        torch.testing.assert_close(state.recent(1)[0], slow.recent(1)[0], atol=TOLERANCE, rtol=0)
    assert not np.array_equal(
        sim.rollout(frames=given[0], past_camera=camera, num_frames=1)[-1],
        sim.rollout(frames=given[0], num_frames=1)[-1],
    )


def test_a_saved_state_and_checkpoint_go_on_bit_for_bit(tmp_path):
    save_checkpoint(checkpoint(camera_dim=6), tmp_path / "world", card="A test.")
    loaded = Simulator(load_checkpoint(tmp_path / "world"), sampling=SIM.sampling)
    assert loaded.camera_range == CAMERA_RANGE
    state, _ = SIM.reset(num_envs=2)
    for row in motions(WINDOW, 2):
        state = SIM.step(state, np.array([0, 1]), camera=row).state
    again = State.load(state.save(tmp_path / "state.safetensors"))
    for row in motions(2, 2, seed=1):
        one, two = SIM.step(state, np.array([1, 2]), camera=row), loaded.step(again, np.array([1, 2]), camera=row)
        np.testing.assert_array_equal(one.frames, two.frames)
        state, again = one.state, two.state


@pytest.mark.parametrize("stride", [1, 4])
def test_a_rollout_is_reset_and_steps(stride):
    sim = camera_world(temporal_stride=stride)
    camera, actions = motions(2 * stride), np.arange(2 * stride) % 3
    video = sim.rollout(camera=camera, actions=actions, seed=4)
    assert video.shape == (1 + 2 * stride, *SIZE, 3)
    state, first = sim.reset(seed=4)
    made = [first]
    shape = (1, stride) if stride > 1 else (1,)
    for i in (0, stride):
        run = slice(i, i + stride)
        step = sim.step(state, actions[run].reshape(shape), camera=camera[run].reshape(*shape, 6))
        state = step.state
        made.append(step.frames.reshape(-1, *SIZE, 3))
    np.testing.assert_array_equal(video, np.concatenate(made))
    assert not np.array_equal(video[-1], sim.rollout(camera=2.0 * camera, actions=actions, seed=4)[-1])
    assert len(sim.rollout(camera=camera)) == len(video)  # motions alone tell the length


def test_surprise_is_that_of_the_true_motions():
    video, camera = pixels(5), motions(4)
    found = SIM.surprise(video, camera=camera, levels=(0.5,))
    both = SIM.surprise(np.stack([video, video]), camera=np.stack([camera, -camera]), levels=(0.5,))
    np.testing.assert_allclose(both[0], found, rtol=1e-3)
    assert not np.isclose(both[1, 1:], found[1:]).all()
    state, _ = SIM.reset(frames=video[:3], camera=camera[:2], seed=0)
    with torch.inference_mode():
        latent = SIM.tokenizer.encode(to_model(video[None, 3:4]))
        expected = SIM.dynamics.denoising_error(state, latent, SIM.inputs.of_step(None, camera[2:3], 1), (0.5,), 1)
    assert found[3] == pytest.approx(float(expected), rel=1e-3)


def test_all_that_one_model_does_listens_to_the_camera():
    """Where motions are given, the frames that they lead to change, and what was given stays."""
    given, camera = pixels(3), motions(2)

    def differ(make, keep):
        told, other, silent = make(camera), make(-camera), make(None)
        for a, b in ((told, other), (told, silent)):
            np.testing.assert_array_equal(a[keep], b[keep])
            assert not np.array_equal(a, b)
        np.testing.assert_array_equal(make(camera), told)

    differ(lambda c: text_to_video(SIM, "a red ball", num_frames=3, camera=c), slice(1))
    differ(lambda c: extend(SIM, given, num_frames=2, camera=c), slice(3))
    differ(lambda c: extend(SIM, given, num_frames=2, direction="backward", camera=c, steps=1), slice(2, None))
    differ(lambda c: connect(SIM, given, given, num_frames=1, camera=c, steps=1), slice(3))
    differ(lambda c: edit(SIM, given, "a red ball", camera=c, steps=1), slice(0))


def test_a_longer_past_is_led_to_by_its_own_motions(monkeypatch):
    """Backward windows take the motions of their own frames: the past is made from its end."""
    seen = []
    forward = SIM.model.forward

    def watch(*args, **kwargs):
        conditions = args[2]
        seen.append((conditions.camera.clone(), conditions.has_camera.clone()))
        return forward(*args, **kwargs)

    monkeypatch.setattr(SIM.model, "forward", watch)
    camera = motions(3)
    extend(SIM, pixels(2), num_frames=3, direction="backward", camera=camera, steps=1)
    scaled = torch.from_numpy(scaled_motion(camera, CAMERA_RANGE))
    (first, has_first), (second, has_second) = seen
    assert has_first.tolist() == [[False, True, True, False]]
    torch.testing.assert_close(first[0, 1:3], scaled[1:])
    assert has_second[0, :3].tolist() == [False, True, True]
    torch.testing.assert_close(second[0, 1:3], scaled[:2])


BAD_MOTION = {
    "five numbers": motions(2)[:, :5],
    "no batch": motions(2)[0],
    "three environments": motions(3),
    "NaN": np.full((2, 6), np.nan),
    "words": np.full((2, 6), "left"),
    "a list of lists": [[0.0] * 6, [0.0]],
}


@pytest.mark.parametrize("camera", BAD_MOTION.values(), ids=BAD_MOTION)
def test_bad_motions_are_named(camera):
    state, _ = SIM.reset(num_envs=2)
    with pytest.raises(CameraError, match="rotation vector in rad"):
        SIM.step(state, None, camera=camera)


def test_motions_that_do_not_fit_the_frames_are_named():
    for call in (
        lambda: SIM.reset(frames=pixels(3), camera=motions(3)),
        lambda: SIM.reset(frames=pixels(2, 3), camera=motions(3, 2)),
        lambda: SIM.surprise(pixels(3), camera=motions(3)),
        lambda: SIM.reset(camera=motions(1)),
        lambda: extend(SIM, pixels(2), num_frames=2, direction="backward", camera=motions(3)),
        lambda: connect(SIM, pixels(2), pixels(2), num_frames=1, camera=motions(1)),
        lambda: edit(SIM, pixels(3), "a red ball", camera=motions(3)),
        lambda: SIM.rollout(camera=motions(1)[0]),
    ):
        with pytest.raises(CameraError):
            call()
    with pytest.raises(ActionError, match="as many of each"):
        SIM.rollout(camera=motions(3), num_frames=2)


def test_a_world_without_a_camera_refuses_one():
    state, _ = PLAIN.reset()
    for call in (
        lambda: PLAIN.step(state, np.array([0]), camera=motions(1)),
        lambda: PLAIN.rollout(camera=motions(2)),
        lambda: PLAIN.reset(frames=pixels(2), camera=motions(1)),
        lambda: PLAIN.surprise(pixels(2), camera=motions(1)),
        lambda: extend(PLAIN, pixels(2), num_frames=1, direction="backward", camera=motions(1)),
    ):
        with pytest.raises(CameraError, match="takes none"):
            call()


def test_ranges_belong_to_models_with_a_camera(tmp_path):
    world = checkpoint(camera_dim=6)
    for change in ({"camera_range": None}, {"camera_range": (1.0,) * 5}, {"camera_range": (-1.0,) * 6}):
        with pytest.raises(ConfigError, match="camera_range"):
            type(world)(**{**vars(world), **change})
    path = save_checkpoint(world, tmp_path / "world", card="A test.")
    text = (path / "config.json").read_text()
    (path / "config.json").write_text(re.sub(r'"camera_range": \[[^]]*\]', '"camera_range": 3', text))
    with pytest.raises((CheckpointError, ConfigError)):
        load_checkpoint(path)
