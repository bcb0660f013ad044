import cv2
import numpy as np
import pytest
from worlds import BLUE, Ball, draw, simulate

from eval import Clip
from eval.errors import MeasureError
from eval.optical_flow import flow
from eval.quality import (
    blur,
    dynamics,
    flicker,
    flicker_levels,
    frame_change,
    freeze,
    luminance,
    mid_frame,
    sharpness,
    warping,
)


@pytest.fixture(scope="module")
def texture():
    rng = np.random.default_rng(0)
    fine = cv2.GaussianBlur(rng.normal(0, 1, (160, 200)).astype(np.float32), (0, 0), 2.0)
    grey = np.clip(128 + 160 * fine / np.abs(fine).max(), 0, 255)
    return grey.astype(np.float32)


def pan(texture, speed=1.5, t=12, size=96):
    """A window that glides over the texture: true flow is (-speed, 0)."""
    grid_y, grid_x = np.mgrid[:size, :size].astype(np.float32)
    views = [cv2.remap(texture, grid_x + 20 + speed * i, grid_y + 20, cv2.INTER_CUBIC) for i in range(t)]
    return np.repeat(np.clip(np.round(views), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def clip(frames, fps=10):
    return Clip(frames=frames, fps=fps)


def test_luma_weights_sum_to_one():
    grey = np.full((1, 2, 2, 3), 77, np.uint8)
    np.testing.assert_allclose(luminance(grey), 77.0, atol=1e-4)
    with pytest.raises(MeasureError):
        luminance(grey[..., :2])


@pytest.mark.parametrize("amplitude", [2, 5, 12])
def test_flicker_is_the_amplitude_of_the_alternation(amplitude):
    sign = np.where(np.arange(20) % 2, 1, -1)
    frames = np.full((20, 8, 8, 3), 120, np.int64) + amplitude * sign[:, None, None, None]
    np.testing.assert_allclose(flicker_levels(frames.astype(np.uint8))[2:-2], amplitude)
    assert flicker(clip(frames.astype(np.uint8))).value == pytest.approx(amplitude)


def test_a_fade_is_no_flicker_but_a_flash_is():
    fade = np.full((20, 8, 8, 3), 40, np.int64) + 5 * np.arange(20)[:, None, None, None]
    assert flicker(clip(fade.astype(np.uint8))).value == pytest.approx(0.0, abs=1e-4)
    swell = 120 + 60 * np.sin(np.arange(20) / 2.5)
    slow = np.broadcast_to(swell[:, None, None, None], (20, 8, 8, 3))
    assert flicker(clip(np.rint(slow).astype(np.uint8))).value == 0.0
    fade[10] += 40
    found = flicker(clip(fade.astype(np.uint8)))
    assert 10 in found.offending
    assert found.normalised < 1.0


def test_freeze_counts_still_pairs(texture):
    frames = pan(texture, t=12)
    frames[6:10] = frames[5]
    found = freeze(clip(frames))
    assert found.value == pytest.approx(4 / 11)
    assert found.offending == (6, 7, 8, 9)
    assert freeze(clip(pan(texture))).value == 0.0


def test_a_rest_is_no_freeze(texture):
    view = pan(texture, t=12)
    stops = np.concatenate([view[:6], np.repeat(view[5:6], 4, axis=0), view[6:]])
    rests = np.concatenate([view, np.repeat(view[-1:], 4, axis=0)])
    for frames, resting in ((stops, 4 / 15), (rests, 4 / 15)):
        found = freeze(clip(frames))
        assert found.value == 0.0
        assert found.details["resting"] == pytest.approx(resting)


@pytest.mark.parametrize("measure", [flicker, freeze, blur, mid_frame, warping])
def test_a_still_video_is_judged_by_none(measure, texture):
    still = np.repeat(pan(texture)[:1], 8, axis=0)
    assert measure(clip(still)).status == "inapplicable"


def test_sharpness_falls_with_blur_and_not_with_contrast(texture):
    rng = np.random.default_rng(1)
    crisp = np.repeat(rng.integers(0, 256, (1, 64, 64, 1), dtype=np.uint8), 3, axis=-1)
    softer = [np.stack([cv2.GaussianBlur(crisp[0], (0, 0), s)]) for s in (0.7, 1.5, 3.0)]
    values = [float(sharpness(f)[0]) for f in [crisp, *softer]]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.6 > 0.2 > values[-1]
    pale = (100 + crisp.astype(float) / 4).astype(np.uint8)
    assert sharpness(pale)[0] == pytest.approx(values[0], abs=0.02)
    assert blur(clip(np.full((3, 20, 20, 3), 5, np.uint8))).status == "inapplicable"


@pytest.mark.parametrize("side", [64, 128])
def test_blur_is_nothing_on_crisp_edges_of_any_size_and_grows_with_softening(side):
    stripes = np.zeros((4, side, side, 3), np.uint8)
    for t, frame in enumerate(stripes):
        frame[:, side // 4 + t : side // 2 + t] = 200
    soft = [np.stack([cv2.GaussianBlur(f, (0, 0), s * side / 64) for f in stripes]) for s in (1.0, 2.0)]
    values = [blur(clip(frames)).value for frames in (stripes, *soft)]
    assert values[0] == 0.0
    assert 0.05 < values[1] < values[2] < 1.0


def test_flow_finds_a_known_shift(texture):
    frames = luminance(pan(texture, speed=2.0, t=2))
    found = flow(frames[0], frames[1])[16:-16, 16:-16]
    np.testing.assert_allclose(np.median(found, axis=(0, 1)), [-2.0, 0.0], atol=0.15)


def test_dynamics_measures_speed_and_a_still_video_has_none(texture):
    found = dynamics(clip(pan(texture, speed=2.0), fps=10))
    assert found.value == pytest.approx(2.0 * 10 / 96, rel=0.15)
    assert found.normalised is None
    assert dynamics(clip(np.repeat(pan(texture)[:1], 5, axis=0))).value == 0.0


@pytest.mark.parametrize("measure", [mid_frame, warping])
def test_motion_is_predictable_and_popping_is_not(measure, texture):
    smooth = pan(texture, speed=1.0, t=24)
    popping = smooth.copy()
    rng = np.random.default_rng(2)
    for t in (6, 16):
        popping[t, 30:60, 30:60] = rng.integers(0, 256, (30, 30, 1))
    good, bad = measure(clip(smooth)), measure(clip(popping))
    assert good.value < 3.0
    assert bad.value > 2.0 * good.value
    # How much of a true video its flow leaves unexplained is no defect of it.
    assert good.normalised is None
    assert {6, 16} <= set(bad.offending)
    # A still video cannot win: there is nothing to judge.
    assert measure(clip(np.repeat(smooth[:1], 5, axis=0))).status == "inapplicable"


def test_frame_change_of_a_known_step():
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    frames[1] = 10
    frames[2] = 30
    np.testing.assert_allclose(frame_change(frames), [10.0, 20.0], rtol=1e-5)


def test_a_moving_disc_at_64_px_is_judged():
    balls = [Ball(14, 20, 1.5, 0.5, r=6), Ball(45, 40, -1.0, 0.2, r=6, colour=BLUE)]
    frames, _ = draw(balls, simulate(balls, 12, walls=False)[0])
    for measure in (flicker, freeze, blur, dynamics, mid_frame, warping):
        found = measure(clip(frames))
        assert found.status == "ok", measure.name
        assert found.normalised is None or 0.0 <= found.normalised <= 1.0
