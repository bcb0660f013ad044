from dataclasses import replace

import cv2
import numpy as np
import pytest
from geometry_scene import film, path, pose, room, wobble

from eval.clip import Clip
from eval.geometry import guards
from eval.geometry.parallax import gric, two_view
from eval.geometry.unknown import epipolar_magsac


@pytest.fixture(scope="module")
def large():
    return film(room(1), path(8, step=0.12), size=256, supersample=2)


def test_true_world_beats_a_wobbling_one(large):
    true = epipolar_magsac(Clip(frames=large.frames, fps=10))
    bent = epipolar_magsac(Clip(frames=wobble(large.frames, np.random.default_rng(0)), fps=10))
    assert true.status == bent.status == "ok"
    assert true.value > 0.85
    assert bent.value < true.value - 0.2
    assert bent.details["sampson_all_median_px"] > 2 * true.details["sampson_all_median_px"]


def test_the_score_says_where_it_is_blind(large):
    assert "slide" in epipolar_magsac(Clip(frames=large.frames, fps=10)).details["blind_to"]
    small = epipolar_magsac(Clip(frames=large.frames[:, ::2, ::2], fps=10))
    assert small.value is None or "256 px" in small.details["blind_to"]


def test_shuffled_frames_have_no_value(large):
    order = np.random.default_rng(0).permutation(len(large.frames))
    true, shuffled, backwards = (
        epipolar_magsac(Clip(frames=large.frames[i], fps=10), gap_s=0.4)
        for i in (slice(None), order, slice(None, None, -1))
    )
    assert true.status == backwards.status == "ok"
    assert shuffled.status == "inapplicable"
    assert "no order" in shuffled.reason


def test_pure_rotation_has_no_parallax():
    turn = film(room(1), np.stack([pose([-2, -0.5, 1.4], 0.05 * i) for i in range(6)]), size=256, supersample=2)
    score = epipolar_magsac(Clip(frames=turn.frames, fps=10))
    assert score.status == "insufficient"
    assert "parallax" in score.reason


def test_statuses_instead_of_numbers(large):
    frozen = epipolar_magsac(replace(large, frames=np.repeat(large.frames[:1], 6, axis=0), truth={}))
    assert frozen.status == "inapplicable"
    blank = epipolar_magsac(Clip(frames=np.full((6, 256, 256, 3), 90, np.uint8), fps=10))
    assert blank.status == "insufficient"
    small = epipolar_magsac(Clip(frames=large.frames[:, ::4, ::4], fps=10))
    assert small.status == "insufficient"
    assert "128" in small.reason
    assert epipolar_magsac(Clip(frames=large.frames[:1], fps=10)).status == "insufficient"


def test_unmatched_pairs_stay_in_the_denominator(large):
    rng = np.random.default_rng(0)
    frames = large.frames.copy()
    frames[4] = rng.integers(0, 256, frames[4].shape)
    torn = epipolar_magsac(Clip(frames=frames, fps=10), gap_s=0.1)
    whole = epipolar_magsac(Clip(frames=large.frames, fps=10), gap_s=0.1)
    # Of seven pairs a frame apart and six of two frames, two each.
    assert torn.details["pairs_unmatched"] == 4
    assert torn.value == pytest.approx(whole.value * 9 / 13, abs=0.05)
    assert {4, 5} <= set(torn.offending)


def test_frames_that_lose_their_detail_count_as_unmatched(large):
    soft = np.stack([f if i < 4 else cv2.GaussianBlur(f, (0, 0), 2.5) for i, f in enumerate(large.frames)])
    greys = np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in soft])
    detail = guards.detail_kept(greys)
    assert (detail[:4] > 0.7).all()
    assert (detail[4:] < guards.MIN_DETAIL).all()
    score = epipolar_magsac(Clip(frames=soft, fps=10), gap_s=0.1)
    assert score.details["pairs_unmatched"] == 8
    assert score.value < epipolar_magsac(Clip(frames=large.frames, fps=10), gap_s=0.1).value


def test_matches_without_a_model_are_all_outliers():
    rng = np.random.default_rng(0)
    for count in (16, 17, 40):
        fit = two_view(rng.uniform(0, 100, (count, 2)), rng.uniform(0, 100, (count, 2)))
        assert fit is not None
        assert fit.inliers.mean() < 0.9
    # Degenerate on purpose: all partners coincide, which OpenCV answers with an exception or an empty matrix.
    same = two_view(rng.uniform(0, 100, (20, 2)), np.full((20, 2), 50.0))
    assert same is not None
    assert same.inliers.shape == (20,)


def test_gric_prefers_the_model_that_generated_the_matches():
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 256, (100, 2))
    H = np.array([[1.02, 0.03, 4.0], [-0.02, 0.98, -3.0], [1e-4, -5e-5, 1.0]])
    b = np.column_stack([a, np.ones(100)]) @ H.T
    plane = two_view(a, b[:, :2] / b[:, 2:] + rng.normal(0, 0.2, (100, 2)))
    assert plane is not None
    assert not plane.has_parallax
    assert plane.homography_share > 0.95
    assert two_view(a[:10], a[:10]) is None
    # Closed form: no errors leave only the model costs.
    assert gric(np.zeros(50), dimension=3, parameters=7) == pytest.approx(150 * np.log(4) + 7 * np.log(200))
