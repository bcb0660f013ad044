from dataclasses import replace

import numpy as np
import pytest
from geometry_scene import film, path, room, wobble

from eval.clip import Clip
from eval.errors import MeasureError
from eval.geometry.camera import path_error
from eval.geometry.sfm import reconstruct
from eval.geometry.structure import scale_drift, sfm

pytest.importorskip("pycolmap")


@pytest.fixture(scope="module")
def large():
    return film(room(1), path(7, step=0.18, turn=0.03), size=192, supersample=2)


@pytest.fixture(scope="module")
def model(large):
    return reconstruct(large.frames, K=large.truth["K"])


def test_model_finds_cameras_and_points(large, model):
    assert model.registered.all()
    error = path_error(large.truth["world_from_camera"], model.world_from_camera, scale="fit")
    assert error.rot_rad.max() < 0.005
    assert error.trans.max() < 0.02
    assert model.errors_px.mean() < 0.5
    # Observations, and matches too narrow to be triangulated, are nearly all that was matched.
    assert 0.95 < model.explained_share(1.0) < 1
    assert len(model.errors_px) + len(model.untriangulated_px) == model.num_matched.sum()
    assert 0 < len(model.untriangulated_px) < len(model.errors_px)
    assert model.track_lengths.mean() > 3
    # Points lie on the surfaces: in the box of 6 x 6 x 3 m once scale and frame are undone.
    truth, estimate = large.truth["world_from_camera"], model.world_from_camera
    world = truth[0] @ np.diag([error.scale] * 3 + [1.0]) @ np.linalg.inv(estimate[0])
    points = model.points @ world[:3, :3].T + world[:3, 3]
    inside = (np.abs(points - [0, 0, 1.5]) < [3.1, 3.1, 1.6]).all(axis=1)
    assert inside.mean() > 0.9


def test_equal_seeds_give_equal_models(large, model):
    again = reconstruct(large.frames, K=large.truth["K"])
    np.testing.assert_array_equal(again.world_from_camera, model.world_from_camera)
    assert len(again.points) == len(model.points)


def test_scale_drift_is_the_log_ratio_of_the_halves():
    truth = path(9)
    drifting = truth.copy()
    drifting[5:, :3, 3] = truth[4, :3, 3] + 1.5 * (truth[5:, :3, 3] - truth[4, :3, 3])
    larger = truth.copy()
    larger[:, :3, 3] *= 3.0
    assert scale_drift(truth, larger) == pytest.approx(0, abs=1e-9)
    assert scale_drift(truth, drifting) == pytest.approx(np.log(1.5))
    assert np.isnan(scale_drift(np.repeat(truth[:1], 9, axis=0), drifting))


def test_true_world_beats_broken_ones(large):
    bare = Clip(frames=large.frames, fps=10)
    true = sfm(bare)
    assert true.status == "ok"
    assert true.value > 0.95
    assert true.details["frames_registered"] == 7
    bent = wobble(large.frames, np.random.default_rng(0))
    torn = large.frames.copy()
    torn[::2] = film(room(9), path(7, step=0.18, turn=0.03), size=192, supersample=2).frames[::2]
    for frames in (bent, torn):
        score = sfm(replace(bare, frames=frames))
        assert score.value is None or score.value < true.value - 0.2


def test_noise_is_no_violation(large):
    def noisy(levels):
        grain = np.random.default_rng(0).normal(0, levels, large.frames.shape)
        return Clip(frames=np.clip(large.frames + grain, 0, 255).astype(np.uint8), fps=10)

    score = sfm(noisy(3))
    assert score.details["threshold_px"] > 1.1
    assert score.value > 0.95
    refused = sfm(noisy(10))
    assert refused.status == "insufficient"
    assert "noise" in refused.reason


def test_sfm_statuses(large):
    frozen = Clip(frames=np.repeat(large.frames[:1], 6, axis=0), fps=10)
    assert sfm(frozen).status == "inapplicable"
    assert sfm(Clip(frames=large.frames[:3], fps=10)).status == "insufficient"
    assert sfm(Clip(frames=np.zeros_like(large.frames), fps=10)).status == "insufficient"
    with pytest.raises(MeasureError, match="3 frames"):
        reconstruct(large.frames[:2])


def test_frames_without_texture_give_an_empty_model():
    empty = reconstruct(np.full((4, 128, 128, 3), 80, np.uint8))
    assert not empty.registered.any()
    assert empty.explained_share(1.0) == 0
    assert empty.points.shape == (0, 3)
