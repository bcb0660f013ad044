from dataclasses import replace

import cv2
import numpy as np
import pytest
from geometry_scene import film, path, room
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import erf

from eval.geometry.following import camera_following
from eval.geometry.photo_consistency import photo_consistency
from eval.geometry.sharpness import BLURRED_PX, edge_blur_px, require_sharp
from eval.score import Unmeasurable


def step(sigma_px, angle_deg, contrast=120.0, size=64):
    """A straight step through the middle, blurred by a Gaussian: uint8 (size, size, 3)."""
    y, x = np.mgrid[:size, :size] - 0.49 * size
    across = x * np.cos(np.radians(angle_deg)) + y * np.sin(np.radians(angle_deg))
    grey = 120.0 + contrast / 2 * erf(across / sigma_px / np.sqrt(2))
    return np.repeat(np.round(grey)[..., None], 3, axis=2).astype(np.uint8)


def leaves(size=64, finer=4):
    """Discs of random colours over each other, averaged over the pixels' area: uint8 (size, size, 3)."""
    rng = np.random.default_rng(0)
    drawn = np.full((finer * size, finer * size, 3), 128, np.uint8)
    for _ in range(size):
        at, radius = rng.integers(0, finer * size, 2).tolist(), int(finer * rng.uniform(4, 12))
        cv2.circle(drawn, at, radius, rng.integers(0, 256, 3).tolist(), -1)
    return cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA)


def softened(frames, sigma_px):
    return np.stack([cv2.GaussianBlur(f, (0, 0), sigma_px) for f in frames])


@pytest.mark.parametrize("angle_deg", [0, 10, 30, 45, 77])
@pytest.mark.parametrize("sigma_px", [0.7, 1.0, 1.5, 2.0, 3.0])
def test_the_blur_of_a_known_edge_is_found(sigma_px, angle_deg):
    assert edge_blur_px(step(sigma_px, angle_deg)) == pytest.approx(sigma_px, rel=0.25)


def test_the_blur_of_an_edge_is_not_its_contrast():
    faint, strong = (edge_blur_px(step(1.5, 20, contrast)) for contrast in (40, 200))
    assert faint == pytest.approx(strong, rel=0.1)


@pytest.mark.parametrize("sigma_px", [1.0, 1.5, 2.0])
def test_blurs_add_up_in_quadrature(sigma_px):
    sharp = leaves()
    own = edge_blur_px(sharp)
    assert 0.3 < own < 0.7
    assert edge_blur_px(softened([sharp], sigma_px)[0]) == pytest.approx(np.hypot(own, sigma_px), rel=0.2)


def test_half_the_side_has_half_the_blur():
    large = softened([leaves(128)], 2.0)[0]
    small = cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA)
    assert edge_blur_px(small) == pytest.approx(0.5 * edge_blur_px(large), rel=0.2)


def test_blurred_clips_have_no_value(walk):
    blurred = replace(walk, frames=softened(walk.frames, 2.0))
    for measure in (camera_following, photo_consistency):
        assert measure(walk).status == "ok"
        found = measure(blurred)
        assert found.status == "insufficient"
        assert "blurred by" in found.reason


def test_a_blurred_clip_is_measured_at_the_size_that_it_shows():
    large = film(room(0), path(6), size=256, supersample=1)
    blurred = replace(large, frames=softened(large.frames, 2.0))
    with pytest.raises(Unmeasurable, match="of 256 a side"):
        require_sharp(blurred.frames)
    # Four of its pixels a side make one of the 64 that are tracked, sharp again.
    assert camera_following(blurred).normalised > 0.95


def test_more_than_half_of_the_frames_must_be_blurred(walk):
    soft = softened(walk.frames, 2.0)
    half = len(soft) // 2
    require_sharp(np.concatenate([walk.frames[:half], soft[half:]]))
    with pytest.raises(Unmeasurable, match="blurred"):
        require_sharp(np.concatenate([walk.frames[: half - 1], soft[half - 1 :]]))


def test_without_edges_nothing_can_be_told():
    plain = np.full((5, 64, 64, 3), 80, np.uint8)
    assert np.isnan(edge_blur_px(plain[0]))
    with pytest.raises(Unmeasurable, match="texture"):
        require_sharp(plain)


def test_noise_codec_and_light_blur_nothing():
    rng = np.random.default_rng(0)
    frame = leaves()
    own = edge_blur_px(frame)
    noisy = np.clip(frame + rng.normal(0, 12, frame.shape), 0, 255).astype(np.uint8)
    coded = np.asarray(cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR))
    assert edge_blur_px(noisy) < BLURRED_PX
    assert edge_blur_px(coded) == pytest.approx(own, abs=0.2)
    assert edge_blur_px((0.6 * frame).astype(np.uint8)) == pytest.approx(own, rel=0.05)


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3))))
def test_any_picture_has_a_blur_or_none(frame):
    found = edge_blur_px(frame)
    assert np.isnan(found) or 0 <= found < 100
