import json
from itertools import pairwise

import cv2
import numpy as np
import pytest
from geometry_scene import DATA
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.errors import MeasureError
from eval.geometry.epipolar import (
    fundamental_eight_point,
    fundamental_from_poses,
    point_line_distances,
    sampson_distance,
    symmetric_epipolar_distance,
    tsed,
)
from eval.geometry.matching import matched_points
from eval.geometry.pose import invert, project, relative_pose

OUTPUTS = json.loads((DATA / "golden_geometry.json").read_text())["outputs"]


@pytest.mark.parametrize("kind", ["exact", "noisy"])
def test_distances_match_kornia(golden, kind):
    a, b, F = golden[f"epi_{kind}_pts1"], golden[f"epi_{kind}_pts2"], golden["epi_F"]
    # The exact matches' distances are rounding noise (1e-26 px^2), where only an absolute comparison has a meaning.
    close = {"rtol": 1e-9, "atol": 1e-20}
    np.testing.assert_allclose(sampson_distance(a, b, F) ** 2, golden[f"epi_{kind}_f64_sampson_squared"], **close)
    in_b, in_a = point_line_distances(a, b, F)
    np.testing.assert_allclose(in_b**2 + in_a**2, golden[f"epi_{kind}_f64_symmetrical_squared"], **close)


def test_sampson_with_zero_gradient_is_infinite(golden):
    distances = sampson_distance(golden["epi_exact_pts1"], golden["epi_exact_pts2"], np.zeros((3, 3)))
    assert np.isposinf(distances).all()


def test_eight_point_matches_kornia(golden):
    a, b = golden["epi_noisy_pts1"], golden["epi_noisy_pts2"]
    error = np.sqrt(sampson_distance(a, b, fundamental_eight_point(a, b)) ** 2 + 1e-8)
    np.testing.assert_allclose(error.mean(), OUTPUTS["eightpoint"]["epipolar_error_mean_f64"], rtol=1e-3)
    np.testing.assert_allclose((error <= 5).mean(), OUTPUTS["eightpoint"]["inlier_rate_le_5_f64"])


def golden_fundamentals(golden):
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    poses = golden["sed_poses_c2w_blender"] @ flip
    focal = OUTPUTS["sed"]["focal_y"] * 256
    K = np.array([[focal, 0, 128], [0, focal, 128], [0, 0, 1.0]])
    return [fundamental_from_poses(relative_pose(poses[i], poses[i + 1]), K, K) for i in range(10)]


def golden_matches(golden):
    offsets = golden["sed_pair_offsets"]
    return [(golden["sed_pts1"][i:j], golden["sed_pts2"][i:j]) for i, j in pairwise(offsets)]


def test_sed_matches_the_published_code(golden):
    fundamentals, matches = golden_fundamentals(golden), golden_matches(golden)
    offsets = golden["sed_pair_offsets"]
    for i, ((a, b), F) in enumerate(zip(matches, fundamentals, strict=True)):
        expected = golden["sed_per_match"][offsets[i] : offsets[i + 1]]
        in_b, in_a = point_line_distances(a, b, F)
        # Zero baseline: the reference finds the line undefined in one image and rounding noise in the other.
        if np.isfinite(expected).all():
            np.testing.assert_allclose(np.column_stack([in_b, in_a]), expected[:, :2], atol=1e-8)
        np.testing.assert_allclose(symmetric_epipolar_distance(a, b, F), expected[:, 2], atol=1e-8, equal_nan=True)
    result = tsed(matches, fundamentals)
    reference = np.where(golden["sed_n_matches"] > 0, golden["sed_median"], np.nan)
    np.testing.assert_allclose(result.median_px, reference, atol=1e-8, equal_nan=True)
    np.testing.assert_array_equal(result.num_matches, golden["sed_n_matches"])


@pytest.mark.parametrize("setting", OUTPUTS["sed"]["tsed_consistent_pairs_of_pairs"])
def test_tsed_matches_the_published_code(golden, setting):
    consistent, total = OUTPUTS["sed"]["tsed_consistent_pairs_of_pairs"][setting]
    threshold, matches = setting.removeprefix("te=").split(",tm=")
    result = tsed(
        golden_matches(golden), golden_fundamentals(golden), threshold_px=float(threshold), min_matches=int(matches)
    )
    assert (result.consistent.sum(), len(result.consistent)) == (consistent, total)
    assert result.share == consistent / total


def test_own_matcher_reaches_the_published_decisions(golden):
    strip = cv2.imread(str(DATA / "golden_geometry_images.png"), cv2.IMREAD_GRAYSCALE)
    images = np.split(strip, 5, axis=1)
    # The reference's principal point counts pixel centres at +0.5 (COLMAP), as ours does.
    matches = [matched_points(images[i], images[i + 1]) for i in range(4)]
    result = tsed(matches, golden_fundamentals(golden)[:4])
    np.testing.assert_array_equal(result.consistent, [True, False, False, True])
    for pair in (0, 3):
        assert abs(result.median_px[pair] - golden["sed_median"][pair]) < 0.3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_projected_points_have_no_epipolar_distance(seed):
    rng = np.random.default_rng(seed)
    K = np.array([[80.0, 0, 32], [0, 90.0, 30], [0, 0, 1]])
    b_from_a = np.eye(4)
    b_from_a[:3, :3] = cv2.Rodrigues(rng.normal(0, 0.2, 3))[0]
    b_from_a[:3, 3] = rng.normal(0, 1, 3)
    points = rng.uniform([-2, -2, 6], [2, 2, 12], (30, 3)).T
    a, _ = project(points, K)
    b, _ = project(b_from_a[:3, :3] @ points + b_from_a[:3, 3:], K)
    F = fundamental_from_poses(b_from_a, K, K)
    assert np.abs(point_line_distances(a, b, F)).max() < 1e-6
    assert sampson_distance(a, b, F).max() < 1e-6
    # The other direction is the transpose.
    back = fundamental_from_poses(invert(b_from_a), K, K)
    cosine = abs((back.T * F).sum()) / np.linalg.norm(F) / np.linalg.norm(back)
    assert cosine == pytest.approx(1.0, abs=1e-9)


def test_bad_matches_are_refused(golden):
    F = golden["epi_F"]
    with pytest.raises(MeasureError, match="matched points"):
        sampson_distance(np.zeros((3, 2)), np.zeros((4, 2)), F)
    with pytest.raises(MeasureError, match="finite"):
        sampson_distance(np.full((3, 2), np.nan), np.zeros((3, 2)), F)
    with pytest.raises(MeasureError, match="8 matches"):
        fundamental_eight_point(np.zeros((7, 2)), np.zeros((7, 2)))
    with pytest.raises(MeasureError, match="coincide"):
        fundamental_eight_point(np.zeros((9, 2)), np.zeros((9, 2)))
    with pytest.raises(MeasureError, match="at least one pair"):
        tsed([], [])
