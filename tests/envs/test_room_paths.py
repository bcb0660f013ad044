"""Scripted camera paths: shapes in closed form, inside the room, followed exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import SceneError, UnknownNameError
from envs.room.env import RoomEnv
from envs.room.moves import ACTIONS, MOVES, STEP_M, TURN_RAD, commanded_poses
from envs.room.paths import PATHS, script
from envs.room.policies import follow_path

ROOM = (5.0, 5.6, 2.8)


def yaw_of(poses):
    return np.arctan2(poses[..., 1, 2], poses[..., 0, 2])


def made(name, seed=0, steps=120):
    return script(name, ROOM, np.random.default_rng(seed), steps)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(PATHS), seed=st.integers(0, 2**31 - 1))
def test_paths_stay_inside_the_room(name, seed):
    path = made(name, seed, 90)
    track = path.poses()[:, :3, 3]
    assert (np.abs(track[:, :2]) < np.array(ROOM[:2]) / 2 - 0.3).all()
    assert path.actions.shape == (90,)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_orbit_is_a_closed_circle_that_looks_inwards(seed):
    poses = made("orbit", seed).poses()
    np.testing.assert_allclose(poses[-1], poses[0], atol=1e-9)
    centre = poses[:-1, :2, 3].mean(axis=0)
    radius = np.linalg.norm(poses[:, :2, 3] - centre, axis=1)
    # Three side steps to two turns make a circle of 1.5 step / turn.
    np.testing.assert_allclose(radius, 1.5 * STEP_M / TURN_RAD, atol=0.02)
    inwards = (centre - poses[:, :2, 3]) / radius[:, None]
    axis = poses[:, :2, 2] / np.linalg.norm(poses[:, :2, 2], axis=1)[:, None]
    assert ((inwards * axis).sum(axis=1) > np.cos(np.radians(11))).all()


def test_loop_is_a_closed_square():
    path = made("loop", 2)
    side = int(np.argmax(path.actions != ACTIONS.index("forward")))
    cycle = 4 * (side + 12)
    poses = commanded_poses(
        path.start_m, path.yaw_rad, path.pitch_rad, MOVES[np.resize(path.actions[: side + 12], cycle)]
    )
    np.testing.assert_allclose(poses[-1], poses[0], atol=1e-9)
    corners = poses[[0, side, side + 12 + side, 2 * (side + 12) + side], :2, 3]
    edges = np.diff(corners, axis=0)
    np.testing.assert_allclose(np.linalg.norm(edges, axis=1), side * STEP_M, atol=1e-9)
    np.testing.assert_allclose((edges[1:] * edges[:-1]).sum(axis=1), 0.0, atol=1e-9)


def test_dolly_moves_along_its_gaze_and_returns():
    poses = made("dolly").poses()
    way = poses[:, :2, 3] - poses[0, :2, 3]
    gaze = poses[0, :2, 2] / np.linalg.norm(poses[0, :2, 2])
    np.testing.assert_allclose(way @ [-gaze[1], gaze[0]], 0.0, atol=1e-9)
    along = way @ gaze
    assert along.max() + 1e-9 >= 10 * STEP_M
    assert along.min() == pytest.approx(0.0, abs=1e-9)
    assert np.ptp(yaw_of(poses)) == pytest.approx(0.0)


def test_look_away_turns_out_of_sight_and_returns_exactly():
    path = made("look_away", 1)
    poses = path.poses()
    cosine = poses[:, :2, 2] @ poses[0, :2, 2] / np.linalg.norm(poses[0, :2, 2]) ** 2
    assert cosine.min() <= np.cos(np.radians(90)) + 1e-9
    back = np.flatnonzero(cosine > 1 - 1e-12)
    assert len(back) > 4
    np.testing.assert_allclose(poses[back], np.broadcast_to(poses[0], poses[back].shape), atol=1e-9)
    np.testing.assert_array_equal(poses[:, :3, 3], np.broadcast_to(poses[0, :3, 3], (len(poses), 3)))


def test_random_walks_differ_and_get_around():
    walks = [made("random_walk", seed).poses()[:, :2, 3] for seed in range(6)]
    assert len({w[-1].tobytes() for w in walks}) == 6
    assert np.median([np.ptp(w, axis=0).sum() for w in walks]) > 1.5


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("name", PATHS)
def test_following_a_path_gives_the_commanded_poses(name, continuous):
    """Among solids at rest, the scene leaves the path free: the true camera is the commanded one, exactly."""
    env = RoomEnv((4, 4), camera_path=name, continuous=continuous, episode_frames=60, factors={"motion": "rest"})
    frame, info = env.reset(seed=5)
    state = env.get_state()
    true, moves = [info["truth"]["world_from_camera"]], []
    for _ in range(60):
        action = follow_path(frame, info, np.random.default_rng(0))
        moves.append(action if continuous else MOVES[action])
        frame, *_, info = env.step(action)
        true.append(info["truth"]["world_from_camera"])
    scene = state.scene
    expected = commanded_poses(scene.start_m, scene.yaw_rad, scene.pitch_rad, np.array(moves))
    np.testing.assert_allclose(true, expected, atol=1e-9)


def test_paths_can_be_chosen_at_reset():
    env = RoomEnv((4, 4))
    _, info = env.reset(seed=0)
    assert "scripted_action" not in info
    _, info = env.reset(seed=0, options={"camera_path": "look_away"})
    assert info["scripted_action"] == ACTIONS.index("stay")


def test_unknown_paths_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="look_away"):
        made("look-away")
    with pytest.raises(UnknownNameError, match="orbit"):
        RoomEnv((4, 4), camera_path="orbits")


def test_rooms_too_small_for_a_path_are_refused():
    with pytest.raises(SceneError, match="orbit"):
        script("orbit", (3.0, 3.0, 2.5), np.random.default_rng(0), 120)
