from dataclasses import replace

import cv2
import numpy as np
import pytest
from geometry_scene import film, path, pose, room

from eval.geometry.camera import path_error, path_extent
from eval.geometry.following import _by_depth, _error_bars, _unit, camera_following
from eval.geometry.pose import pixel_grid, relative_pose
from eval.geometry.surface import splat_depth
from eval.geometry.tracking import _adjoint, _small_motion, fit_motion


def filmed(clip, poses):
    """The clip's commands with frames filmed along another path."""
    return replace(clip, frames=film(room(0), poses).frames)


def test_motion_is_found_from_the_identity(walk):
    poses, K = walk.truth["world_from_camera"], walk.truth["K"]
    found = fit_motion(walk.frames[2], walk.frames[0], walk.truth["depth_m"][0], K, np.eye(4))
    error = path_error(
        np.stack([np.eye(4), relative_pose(poses[0], poses[2])]),
        np.stack([np.eye(4), found.target_from_source]),
        scale="metric",
    )
    assert error.rot_err_rad < 0.004
    assert error.trans_err < 0.01
    assert found.coverage > 0.7


@pytest.mark.parametrize(("share", "skill"), [(1.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
def test_skill_is_the_share_of_the_commanded_motion(walk, share, skill):
    score = camera_following(filmed(walk, path(10, step=0.06 * share, turn=0.02 * share)))
    assert score.status == "ok"
    assert score.details["method"] == "direct"
    assert score.normalised == pytest.approx(skill, abs=0.04)


def test_opposite_motion_is_worse_than_standing_still(walk):
    score = camera_following(filmed(walk, path(10, step=-0.06, turn=-0.02)))
    assert score.value == pytest.approx(2 * score.details["cam_mc_standing"], rel=0.1)
    assert score.normalised == 0


def test_turning_camera_is_followed():
    turn = film(room(0), np.stack([pose([-2, -0.5, 1.4], 0.05 * i) for i in range(6)]))
    assert camera_following(turn).normalised > 0.95
    frozen = camera_following(replace(turn, frames=np.repeat(turn.frames[:1], 6, axis=0)))
    assert frozen.normalised < 0.05
    # The sum over frames of 0.05 i radians.
    assert frozen.details["rot_err_rad"] == pytest.approx(0.75, abs=0.02)


def test_following_by_structure_from_motion():
    clip = film(room(1), path(8, step=0.15, turn=0.03), size=224, supersample=2)
    known = {k: clip.truth[k] for k in ("world_from_camera", "K")}
    true = camera_following(replace(clip, truth=known))
    assert true.details["method"] == "sfm"
    assert true.normalised > 0.95
    other = path(8, step=0.15, turn=-0.03)
    wrong = camera_following(replace(clip, truth={**known, "world_from_camera": other}))
    assert wrong.normalised < 0.6


def test_splat_sees_the_front_surface():
    y, x = np.mgrid[-2:2:200j, -2:2:200j]
    wall = np.stack([x.ravel(), y.ravel(), np.full(x.size, 3.0)])
    card = np.stack([0.2 * x.ravel(), 0.2 * y.ravel(), np.full(x.size, 1.5)])
    K = np.array([[32.0, 0, 32], [0, 32.0, 32], [0, 0, 1]])
    depth = splat_depth(np.concatenate([wall, card], axis=1), np.eye(4), K, (64, 64))
    inner = depth[14:50, 14:50]
    assert depth[32, 32] == pytest.approx(1.5)
    assert set(np.unique(inner)) <= {1.5, 3.0, np.float32(0)}
    assert (inner == 1.5).sum() == pytest.approx((0.8 * 32 / 1.5) ** 2, rel=0.2)
    assert depth[0, 0] == 0


def test_following_statuses(walk):
    still = film(room(0), np.repeat(path(1), 5, axis=0))
    assert camera_following(still).status == "inapplicable"
    known = {k: walk.truth[k] for k in ("world_from_camera", "K")}
    assert camera_following(replace(walk, truth=known)).status == "insufficient"
    assert camera_following(replace(walk, frames=np.full_like(walk.frames, 7))).status == "insufficient"
    assert camera_following(walk.window(0, 2)).status == "insufficient"


def test_blur_and_noise_never_beat_the_truth(walk):
    true = camera_following(walk).value
    blurred = np.stack([cv2.GaussianBlur(f, (0, 0), 3) for f in walk.frames])
    noise = np.random.default_rng(0).integers(0, 256, walk.frames.shape).astype(np.uint8)
    for frames in (blurred, noise):
        score = camera_following(replace(walk, frames=frames))
        assert score.value is None or score.value > true


def test_noise_widens_the_error_bars_and_is_no_disobedience(walk):
    rng = np.random.default_rng(0)
    noisy = replace(walk, frames=np.clip(walk.frames + rng.normal(0, 12, walk.frames.shape), 0, 255).astype(np.uint8))
    plain, found = camera_following(walk), camera_following(noisy)
    assert found.details["cam_mc_error_bar"] > 2 * plain.details["cam_mc_error_bar"] > 0
    assert found.normalised > 0.98


def test_errors_are_carried_along_as_rigid_motions_are():
    carrier = _small_motion(np.array([0.3, -0.2, 0.5, 0.4, -0.6, 0.2]))
    step = 1e-6 * np.array([1.0, 2.0, -1.0, 0.5, -0.5, 1.5])
    after = carrier @ _small_motion(step) @ np.linalg.inv(carrier)
    assert after == pytest.approx(_small_motion(_adjoint(carrier) @ step), abs=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_frames_that_no_camera_explains_are_never_followed(walk, seed):
    order = np.random.default_rng(seed).permutation(len(walk.frames))
    score = camera_following(replace(walk, frames=walk.frames[order]))
    # Wide error bars are no evidence of following: no value, or a bad one.
    assert score.status == "insufficient" or score.normalised < 0.6


def test_splat_of_slanted_planes_is_not_biased_towards_the_camera():
    K = np.array([[32.0, 0, 32], [0, 32.0, 32], [0, 0, 1]])
    pixels = np.stack(np.meshgrid(np.arange(0, 64, 0.25) + 0.125, np.arange(0, 64, 0.25) + 0.125), -1).reshape(-1, 2)
    rays = np.linalg.inv(K) @ np.column_stack([pixels, np.ones(len(pixels))]).T
    # The plane 0.4 x + y + 0.3 z = 1.5 under the camera: its inverse depth is linear over the picture.
    normal = np.array([0.4, 1.0, 0.3])
    hit = normal @ rays > 0.15
    cloud = rays[:, hit] * (1.5 / (normal @ rays[:, hit]))
    centres = np.linalg.inv(K) @ pixel_grid(64, 64)
    inverse = (normal @ centres / 1.5).reshape(64, 64)
    found = splat_depth(cloud, np.eye(4), K, (64, 64))
    inner = inverse > 0.5
    inner[:, [0, -1]] = inner[[0, -1]] = False
    # The nearest point of each pixel would be wrong by half a pixel's slope, up to 2 %.
    assert np.abs(found[inner] * inverse[inner] - 1).max() < 2e-3


def wobbling(poses, share):
    """A path off its course by 4 cm and 3 degrees (standard deviations), times `share`, anew at each frame."""
    turns, shifts = np.random.default_rng(0).normal(size=(2, len(poses), 3))
    offs = share * np.concatenate([0.04 * shifts, np.radians(3) * turns], axis=1)
    offs[0] = 0.0
    return poses @ np.stack([_small_motion(off) for off in offs])


def test_error_of_a_wobbling_camera_grows_with_the_wobble(walk):
    values = []
    for share in (0.0, 0.1, 0.3, 1.0):
        score = camera_following(filmed(walk, wobbling(walk.truth["world_from_camera"], share)))
        # A frame of the strongest wobble is rightly uncertain.
        assert score.coverage > 0.85
        values.append((score.value, score.details["cam_mc"]))
    assert values[0][0] < 1e-3
    assert values == sorted(values)
    # Errors are proportional to the wobble.
    assert values[3][1] / values[2][1] == pytest.approx(1 / 0.3, rel=0.1)


def test_error_bars_cover_the_errors_of_a_camera_that_leaves_its_path(walk):
    commanded, inside = walk.truth["world_from_camera"], []
    for share in (0.3, 1.0):
        poses = wobbling(commanded, share)
        found, _, covariance = _by_depth(filmed(walk, poses), commanded, walk.truth["K"])
        extent = path_extent(commanded)
        error = path_error(_unit(poses, extent), _unit(found, extent), scale="metric").mc
        inside.append((error < 3.0 * _error_bars(covariance, extent))[1:])
    # Scatter alone covers four of five: flow, fitted smoothly, errs by more than it scatters.
    assert np.mean(inside) > 0.9


def test_movers_are_no_part_of_the_camera(walk):
    rng = np.random.default_rng(1)
    frames, segmentation = walk.frames.copy(), np.zeros(walk.frames.shape[:3], np.int32)
    side = frames.shape[1]
    patch = rng.integers(0, 256, (side // 3, side // 3, 3)).astype(np.uint8)
    for t in range(len(frames)):
        left = side // 8 + 2 * t
        window = np.s_[side // 3 : side // 3 + len(patch), left : left + len(patch)]
        frames[t][window], segmentation[t][window] = patch[:, : frames[t][window].shape[1]], 1
    masked = camera_following(replace(walk, frames=frames, truth={**walk.truth, "segmentation": segmentation}))
    unmasked = camera_following(replace(walk, frames=frames))
    assert masked.value < 1e-3
    assert unmasked.value < 2e-3
