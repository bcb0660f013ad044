from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from eval import score
from eval.geometry import pictures
from eval.geometry.epipolar import fundamental_from_poses
from eval.geometry.known_depth import check_pair, views
from eval.geometry.pose import project, relative_pose
from eval.sections import forgetting_block, heat_block


def is_picture(array):
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3


def test_epipolar_lines_show_which_matches_fit(walk):
    seen, K = views(walk)
    b_from_a = relative_pose(seen[0].world_from_camera, seen[5].world_from_camera)
    points = np.random.default_rng(0).uniform([-1, -1, 3], [1, 1, 4], (12, 3)).T
    a, _ = project(points, K)
    b, _ = project(b_from_a[:3, :3] @ points + b_from_a[:3, 3:], K)
    F = fundamental_from_poses(b_from_a, K, K)
    good = pictures.epipolar_lines(walk.frames[0], walk.frames[5], a, b, F)
    bad = pictures.epipolar_lines(walk.frames[0], walk.frames[5], a, b + np.array([0, 9]), F)
    assert is_picture(good)
    red = np.array([210, 40, 40])
    assert not (good == red).all(axis=2).any()
    assert (bad == red).all(axis=2).any()


def test_heat_is_drawn_where_pixels_were_tested(walk):
    seen, K = views(walk)
    check = check_pair(seen[3], seen[2], K)
    picture = pictures.residual_heat(walk.frames[3], check)
    assert is_picture(picture)
    assert picture.shape == walk.frames[3].shape
    untested = picture[~check.tested]
    assert (untested == untested[:, :1]).all()
    spread = picture[check.tested].astype(int)
    assert (spread.max(axis=1) - spread.min(axis=1)).mean() > 20


def test_cloud_draws_points_and_cameras(walk):
    poses = walk.truth["world_from_camera"].copy()
    poses[3] = np.nan
    points = np.random.default_rng(0).uniform(-2, 2, (50, 3))
    colours = np.full((50, 3), (220, 30, 30), np.uint8)
    picture = pictures.sparse_cloud(points, colours, poses)
    assert is_picture(picture)
    assert (picture == (220, 30, 30)).all(axis=2).sum() > 30
    assert (picture == (38, 102, 178)).all(axis=2).any()
    empty = pictures.sparse_cloud(points, colours, np.full_like(poses, np.nan))
    assert is_picture(empty)
    assert not (empty == (38, 102, 178)).all(axis=2).any()


def test_depth_puts_every_pixel_where_the_room_is(walk):
    seen, K = views(walk)
    truth = walk.truth
    picture = pictures.depth_cloud(walk.frames, truth["depth_m"], truth["world_from_camera"], K)
    assert is_picture(picture)
    drawn = (picture != 255).any(axis=2).mean()
    # A picture of another depth is another place: nothing of it is taken from the frames alone.
    other = pictures.depth_cloud(walk.frames, 2.0 * truth["depth_m"], truth["world_from_camera"], K)
    assert drawn > 0.1
    assert not np.array_equal(picture, other)
    blind = pictures.depth_cloud(walk.frames, np.full_like(truth["depth_m"], np.nan), truth["world_from_camera"], K)
    assert (blind == (38, 102, 178)).all(axis=2).any()
    colours = {tuple(c) for c in blind.reshape(-1, 3)[::7]}
    assert len(colours) < len({tuple(c) for c in picture.reshape(-1, 3)[::7]})
    assert len(seen) == len(walk)


def test_report_shows_heat_where_flow_was_measured(walk):
    torn = walk.frames.copy()
    torn[6] = torn[0]
    clip = replace(walk, frames=torn)
    (block,) = heat_block(clip, score(clip, "residual_flow"))
    assert "frame 6" in block.caption
    assert block.image.shape[:2] == (256, 2 * 256 + block.image.shape[1] % 256)
    grey = replace(walk, frames=np.full_like(walk.frames, 90))
    assert heat_block(grey, score(grey, "residual_flow")) == []


def test_report_shows_what_is_forgotten():
    found = SimpleNamespace(value=0.5, details={"curve_away_frames": [8.0, 20.0], "curve_share": [0.9, 0.1]})
    (block,) = forgetting_block(SimpleNamespace(scores={"revisit": found}))
    assert "this video" in block.svg
    assert "the true video" not in block.svg
    found.details["curve_reference_share"] = [0.95, 0.9]
    (block,) = forgetting_block(SimpleNamespace(scores={"revisit": found}))
    assert "the true video" in block.svg
    assert forgetting_block(SimpleNamespace(scores={})) == []
