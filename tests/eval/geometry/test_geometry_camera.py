import json

import numpy as np
import pytest
from geometry_scene import DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from eval.errors import MeasureError
from eval.geometry.camera import path_error

OUTPUTS = json.loads((DATA / "golden_geometry.json").read_text())["outputs"]["trajectory"]
CASES = {
    "noisy": "traj_noisy_c2w",
    "exact_rotation_translation_x3.7": "traj_exact_rotation_translation_x3.7_c2w",
    "identical": "traj_identical_c2w",
    "static_camera": "traj_static_camera_c2w",
    "half_turn_in_second_half": "traj_half_turn_in_second_half_c2w",
    "same_path_in_another_world_frame": "traj_same_path_in_another_world_frame_c2w",
}


@pytest.mark.parametrize("case", CASES)
def test_matches_the_published_code(golden, case):
    truth, estimate, expected = golden["traj_gt_c2w"], golden[CASES[case]], OUTPUTS[case]
    relative, absolute = path_error(truth, estimate), path_error(truth, estimate, scale="truth")
    assert relative.rot_err_rad == pytest.approx(expected["RotErr"], abs=1e-7)
    assert relative.trans_err == pytest.approx(expected["TransErr_rel"], abs=1e-7)
    assert relative.cam_mc == pytest.approx(expected["CamMC_rel"], abs=1e-7)
    assert absolute.trans_err == pytest.approx(expected["TransErr_abs"], abs=1e-7)
    assert absolute.cam_mc == pytest.approx(expected["CamMC_abs"], abs=1e-7)


def test_per_frame_angles_match_the_published_code(golden):
    got = path_error(golden["traj_gt_c2w"], golden["traj_noisy_c2w"])
    np.testing.assert_allclose(got.rot_rad, golden["traj_noisy_roterr_per_frame"], atol=1e-7)
    assert got.rot_rad[0] == 0


def test_static_truth_matches_relative_and_refuses_absolute(golden):
    truth, estimate = golden["traj_static_camera_c2w"], golden["traj_noisy_c2w"]
    expected = OUTPUTS["ground_truth_static__estimate_noisy"]
    assert path_error(truth, estimate).cam_mc == pytest.approx(expected["CamMC_rel"], abs=1e-7)
    # The published code divides by 1e-9 here and reports 1.6e10.
    with pytest.raises(MeasureError, match="moves"):
        path_error(truth, estimate, scale="truth")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20))
def test_scale_and_world_frame_do_not_matter(seed, scale):
    rng = np.random.default_rng(seed)
    truth = np.tile(np.eye(4), (6, 1, 1))
    truth[:, :3, :3] = Rotation.random(6, rng=rng).as_matrix()
    truth[:, :3, 3] = rng.normal(size=(6, 3))
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = Rotation.random(rng=rng).as_matrix(), rng.normal(size=3)
    estimate = world @ truth
    estimate[:, :3, 3] *= scale
    for how in ("own", "fit"):
        error = path_error(truth, estimate, scale=how)
        assert error.rot_err_rad < 1e-6
        assert error.trans_err < 1e-6
    assert path_error(truth, estimate, scale="fit").scale == pytest.approx(1 / scale, rel=1e-6)


def test_known_angle_and_distance():
    truth = np.tile(np.eye(4), (3, 1, 1))
    truth[:, 0, 3] = [0, 1, 2]
    estimate = truth.copy()
    estimate[1, :3, :3] = Rotation.from_euler("y", 0.3).as_matrix()
    estimate[2, 1, 3] = 0.5
    error = path_error(truth, estimate, scale="metric")
    assert error.rot_err_rad == pytest.approx(0.3)
    assert error.trans_err == pytest.approx(0.5)
    assert error.cam_mc == pytest.approx(np.sqrt(2 * (2 - 2 * np.cos(0.3))) + 0.5)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p[:, :3], "shape"),
        (lambda p: p * np.nan, "finite"),
        (lambda p: p * np.diag([2.0, 2, 2, 1]), "rotation"),
        (lambda p: p @ np.diag([-1.0, 1, 1, 1]), "right-handed"),
        (lambda p: p * 0, "bottom row"),
        (lambda p: p.transpose(0, 2, 1), "bottom row"),
    ],
)
def test_bad_poses_are_named(golden, spoil, words):
    with np.errstate(invalid="ignore"), pytest.raises(MeasureError, match=words):
        path_error(golden["traj_gt_c2w"], spoil(golden["traj_gt_c2w"]))
