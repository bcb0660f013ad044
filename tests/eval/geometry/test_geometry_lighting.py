from dataclasses import replace

import numpy as np
import pytest
from geometry_scene import texture

from envs.room.violations import pair
from eval.clip import Clip
from eval.geometry import known_depth
from eval.geometry.guards import structure_tensor, visible_flow
from eval.geometry.known_depth import residual_flow
from eval.geometry.lighting import Ball, may_be_shaded, moves, moving_balls, turned_m
from eval.geometry.objects import object_flow

KEYS = ("depth_m", "segmentation", "world_from_camera", "K", "world_from_object")


@pytest.fixture(scope="module")
def rolling():
    """Room with solids that fall and roll under a lamp."""
    record, _ = pair(
        "camera_wobble", 50_007, 0.0, num_frames=16, camera_path="dolly", env={"factors": {"motion": "mixed"}}
    )
    clip = Clip(frames=record.frames, fps=record.fps, truth={k: np.asarray(record.truth[k]) for k in KEYS})
    return clip.window(0, 10)


def test_moving_shadows_and_turning_solids_are_no_violation(rolling, monkeypatch):
    assert moves(rolling.truth["world_from_object"]).any()
    for measure in (residual_flow, object_flow):
        found = measure(rolling)
        assert found.value < 0.01, measure.name
        assert len(found.offending) <= 1
    assert residual_flow(rolling).coverage > 0.05
    # The same pixels, had the light not been thought of.
    monkeypatch.setattr(known_depth, "relit", lambda target, source, K: np.zeros(target.depth_m.shape, bool))
    blind = residual_flow(replace(rolling, fps=rolling.fps + 1))
    assert blind.value > 0.05


def test_a_broken_world_with_movers_is_still_seen(rolling):
    frozen = replace(rolling, frames=np.repeat(rolling.frames[:1], len(rolling), axis=0))
    assert residual_flow(frozen).value > 0.5


def test_shadow_falls_below_and_beside_but_not_above():
    ball = Ball(1, np.array([0.0, 0.0, 2.0]), 0.2)
    points = np.array([[0, 0, 0], [0.3, 0, 2.0], [0, 0, 3.0], [1.5, 0, 0.0], [4.0, 0, 1.9]]).T
    labels = np.zeros(5, int)
    assert may_be_shaded(points, labels, [ball]).tolist() == [True, True, False, True, False]
    assert not may_be_shaded(points, labels + 1, [ball]).any()
    assert not may_be_shaded(points, labels, []).any()


def test_ball_around_an_object_has_its_place_and_size():
    # A disc of radius 0.5 m, 2 m ahead of a camera that looks along z.
    K = np.array([[64.0, 0, 32], [0, 64.0, 32], [0, 0, 1]])
    y, x = np.mgrid[:64, :64] + 0.5
    disc = (x - 32) ** 2 + (y - 32) ** 2 <= 16**2
    depth = np.full((3, 64, 64), 2.0)
    segmentation = np.repeat(disc[None].astype(np.int16), 3, axis=0)
    poses = np.repeat(np.eye(4)[None], 3, axis=0)
    balls = moving_balls(depth, segmentation, poses, K, None)
    np.testing.assert_allclose(balls[0][0].centre_m, [0, 0, 2], atol=1e-9)
    assert balls[0][0].radius_m == pytest.approx(0.5, abs=0.03)
    still = np.repeat(np.eye(4)[None, None], 3, axis=0)
    assert moving_balls(depth, segmentation, poses, K, still) == [[], [], []]
    moving = still.copy()
    moving[:, 0, 0, 3] = [0.0, 0.1, 0.2]
    assert [round(b[0].centre_m[0], 3) for b in moving_balls(depth, segmentation, poses, K, moving)] == [0.0, 0.1, 0.2]


def test_turn_moves_the_rim_by_the_chord():
    then, now = np.eye(4)[None].copy(), np.eye(4)[None].copy()
    angle = 0.3
    now[0, :2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    now[0, :3, 3] = [5.0, 0.0, 0.0]
    points = np.array([[0.4, 0, 0], [0, 0, 0.4], [0.4, 0, 0]]).T
    moved = turned_m(points, np.array([1, 1, 0]), then, now)
    np.testing.assert_allclose(moved, [0.8 * np.sin(angle / 2), 0.0, 0.0], atol=1e-12)
    assert not turned_m(points, np.array([1, 1, 0]), None, now).any()


def test_flow_along_a_stripe_is_not_seen():
    stripes = np.repeat((127 + 100 * np.sin(np.arange(64) / 3))[None], 64, axis=0)
    stripes = np.repeat(stripes[..., None], 3, axis=2).astype(np.uint8)
    inner = np.s_[8:-8, 8:-8]
    across, along = np.zeros((64, 64, 2)), np.zeros((64, 64, 2))
    across[..., 0], along[..., 1] = 2.0, 2.0
    tensor = structure_tensor(stripes)
    np.testing.assert_allclose(visible_flow(across, tensor)[inner], 2.0, rtol=1e-5)
    np.testing.assert_allclose(visible_flow(along, tensor)[inner], 0.0, atol=1e-3)
    rich = structure_tensor(texture(np.random.default_rng(0), cells=16, size=64))
    assert np.median(visible_flow(along, rich)) > 1.0
