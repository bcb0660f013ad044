from dataclasses import replace

import cv2
import numpy as np
import pytest
from geometry_scene import film, intrinsics, path, room, texture

from envs.room.violations import pair
from eval.clip import Clip
from eval.geometry.objects import MAX_ROOM_PX, creases, object_flow
from eval.geometry.shift import least_shift

KEYS = ("depth_m", "segmentation", "world_from_camera", "K", "world_from_object")


def wave(shift_px, *, period_px=9.0, side=45):
    """A stripe pattern float32 (side, side, 1) moved along x; one period fills a window."""
    x = np.arange(side) - shift_px
    return np.repeat((100 + 40 * np.cos(2 * np.pi * x / period_px))[None, :, None], side, axis=0).astype(np.float32)


@pytest.mark.parametrize("shift_px", [0.1, 0.5, 1.0])
def test_least_shift_of_a_wave_has_a_closed_form(shift_px):
    # Moved by s, a wave cos(kx) keeps the correlation cos(ks), which leaves sin(ks) of its deviation; central
    # differences see sin(k) of it as gradient. Smoothing weakens both alike. Measured is on the
    # stronger of the two pictures.
    k = 2 * np.pi / 9.0
    everywhere = np.ones((45, 45), bool)
    # Light that changes evenly, as gain and offset do, must not matter.
    found = least_shift(wave(0.0), 0.7 * wave(shift_px) + 30, everywhere, 0.1)[10:-10, 10:-10]
    np.testing.assert_allclose(found, np.sin(k * shift_px) / np.sin(k), rtol=0.03)


@pytest.mark.parametrize("shift_px", [0.25, 0.5, 1.0])
def test_least_shift_is_no_more_than_the_shift(shift_px):
    fine = texture(np.random.default_rng(3), cells=14, size=264)
    step = round(4 * shift_px)
    a, b = (fine[4:260, 4 + s : 260 + s].reshape(64, 4, 64, 4, 3).mean((1, 3)).astype(np.float32) for s in (0, step))
    found = least_shift(a, b, np.ones((64, 64), bool), 1.0)
    # Derivatives on a grid fall short of the true gradient by a few per cent.
    assert np.nanquantile(found, 0.95) < 1.15 * shift_px
    assert np.nanmedian(found) > 0.3 * shift_px


def test_white_noise_is_no_shift():
    rng = np.random.default_rng(4)
    fine = texture(rng, cells=14, size=256).reshape(64, 4, 64, 4, 3).mean((1, 3)).astype(np.float32)
    noisy = [fine + rng.normal(0, 6, fine.shape).astype(np.float32) for _ in range(2)]
    mask = np.ones((64, 64), bool)
    assert np.nanmedian(least_shift(*noisy, mask, 1.0)) < 0.05
    # Under the same noise, a shift of a pixel is still seen.
    moved = np.roll(noisy[1], 1, axis=1)
    assert np.nanmedian(least_shift(noisy[0], moved, mask, 1.0)) > 0.4


def test_only_the_mask_is_looked_at():
    mask = np.zeros((45, 45), bool)
    mask[10:30, 10:30] = True
    a, b = wave(0.0), wave(0.0)
    b[~mask] = 255
    found = least_shift(a, b, mask, 0.1)
    assert np.isnan(found[~mask]).all()
    assert np.nanmax(found) < 1e-2
    # Nothing to see on a plain face.
    assert np.isnan(least_shift(0 * a, 0 * b, mask, 0.1)).all()


def test_creases_are_found_on_boxes_and_not_on_balls():
    K = intrinsics(64)
    x = (np.arange(64) + 0.5 - 32) / K[0, 0]
    flat = np.full((64, 64), 2.0)
    assert not creases(flat, K).any()
    # Two walls that meet at right angles before the camera: z = 3 - |X|, so z = 3 / (1 + |x|).
    corner = np.repeat((3 / (1 + np.abs(x)))[None], 64, axis=0)
    assert creases(corner, K)[:, 31:33].all()
    assert not creases(corner, K)[:, :30].any()
    # A ball of 10 pixels' radius before a wall: its outline folds, its face does not.
    X, Y = np.meshgrid(x, x)
    centre, radius = 3.0, 10 * 3.0 / K[0, 0]
    b, c = centre / (1 + X**2 + Y**2), centre**2 - radius**2
    root = b**2 - c / (1 + X**2 + Y**2)
    ball = np.where(root > 0, b - np.sqrt(np.maximum(root, 0)), 6.0)
    folded = creases(ball, K)
    assert not folded[26:38, 26:38].any()
    assert folded[32, 20:24].any()


def made(name, seed, severity):
    lawful, violated = pair(name, seed, severity, num_frames=16)
    truth = {k: np.asarray(lawful.truth[k]) for k in KEYS}
    return tuple(Clip(frames=r.frames, fps=r.fps, truth=truth) for r in (lawful, violated))


@pytest.mark.parametrize("name", ["texture_swim_object", "object_popping"])
def test_true_objects_keep_their_texture_and_broken_ones_do_not(name):
    for seed in (50_000, 50_007):
        lawful, violated = (object_flow(clip) for clip in made(name, seed, 0.3))
        assert lawful.value < 0.02
        assert lawful.offending == ()
        assert violated.value > 0.05
        assert len(violated.offending) >= 2


def test_what_a_codec_does_to_the_room_too_is_no_slide():
    """JPEG as OpenCV writes it, at full colour resolution: what is true stays true, what swims is still seen."""
    how = [cv2.IMWRITE_JPEG_QUALITY, 97, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]

    def coded(clip):
        frames = [cv2.imdecode(cv2.imencode(".jpg", f[..., ::-1], how)[1], 1)[..., ::-1] for f in clip.frames]
        return object_flow(replace(clip, frames=np.stack(frames)))

    plain, swims = made("texture_swim_object", 50_000, 0.3)
    true, slid = coded(plain), coded(swims)
    assert true.details["room_px"] > 1.2 * object_flow(plain).details["room_px"]
    assert slid.details["room_px"] == pytest.approx(true.details["room_px"], rel=0.1)
    assert true.value < 0.01
    assert slid.value > 0.2


def test_a_room_that_is_broken_itself_excuses_no_more_than_its_limit():
    lawful, _ = made("texture_swim_object", 50_000, 0.3)
    shuffled = object_flow(replace(lawful, frames=lawful.frames[np.random.default_rng(0).permutation(16)]))
    assert shuffled.details["room_px"] == MAX_ROOM_PX
    assert shuffled.value > 0.5


def test_without_a_room_there_is_no_control():
    """Every pixel belongs to the object: nothing is taken off."""
    walk = film(room(0), path(6))
    everything = {**walk.truth, "segmentation": np.ones_like(walk.truth["segmentation"])}
    found = object_flow(replace(walk, truth=everything))
    assert found.details["room_px"] == 0.0
    assert found.value < 0.02


def test_slow_slides_show_between_frames_far_apart():
    _, violated = made("texture_swim_object", 50_000, 0.3)
    near, far = (object_flow(violated, gaps=(gap,)).value for gap in (1, 8))
    assert far > near + 0.2


def test_statuses_instead_of_numbers():
    walk = film(room(0), path(6))
    assert object_flow(walk).status == "ok"
    empty = {**walk.truth, "segmentation": np.zeros_like(walk.truth["segmentation"])}
    assert object_flow(replace(walk, truth=empty)).status == "insufficient"
    assert object_flow(replace(walk, frames=np.full_like(walk.frames, 128))).status == "insufficient"
    assert object_flow(film(room(0), np.repeat(path(1), 4, axis=0))).status == "inapplicable"
    assert object_flow(walk.window(0, 1)).status == "insufficient"
