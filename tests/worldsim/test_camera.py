"""Camera motion: composed it gives the poses back, and small motions are velocities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldsim.camera import camera_motion, camera_poses, checked_motion, motion_range, read_camera, scaled_motion
from worldsim.errors import CameraError

NUMBERS = st.floats(-1.8, 1.8, allow_nan=False)  # |(1.8, 1.8, 1.8)| is below pi, where rotation vectors are unique
MOTIONS = st.lists(st.tuples(*[NUMBERS] * 6), max_size=5)


@given(MOTIONS)
def test_motions_and_poses_are_each_others_inverse(rows):
    motion = np.array(rows).reshape(-1, 6)
    poses = camera_poses(motion)
    np.testing.assert_allclose(camera_motion(poses), motion, atol=1e-7)
    again = camera_poses(camera_motion(poses), first=poses[0])
    np.testing.assert_allclose(again, poses, atol=1e-9)


def skew(w):
    x, y, z = w
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def test_a_short_motion_is_the_velocity_of_the_camera():
    """Finite differences of a smooth path: R' = R [w]x and p' = R v, so motion / dt tends to (w, v)."""
    dt = 1e-5

    def pose(t):
        a, b = 0.7 * t, 0.3 * t**2
        turn_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
        turn_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = turn_y @ turn_x, (np.sin(t), t**2, 2 * t)
        return out

    for t in (0.0, 0.8, 2.0):
        found = camera_motion(np.stack([pose(t), pose(t + dt)]))[0] / dt
        change = (pose(t + dt) - pose(t - dt)) / (2 * dt)
        turn = pose(t)[:3, :3]
        np.testing.assert_allclose(skew(found[:3]), turn.T @ change[:3, :3], atol=1e-4)
        np.testing.assert_allclose(found[3:], turn.T @ change[:3, 3], atol=1e-4)


def test_the_convention_is_that_of_opencv():
    """x right, y down, z forward: a step ahead is +z, a turn to the right a rotation about +y (down)."""
    ahead_then_right = camera_poses(np.array([[0, 0, 0, 0, 0, 1.0], [0, np.pi / 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1.0]]))
    np.testing.assert_allclose(ahead_then_right[-1, :3, 3], [1.0, 0.0, 1.0], atol=1e-12)


def test_the_whole_frame_of_the_world_does_not_matter():
    rng = np.random.default_rng(0)
    poses = camera_poses(rng.normal(0.0, 0.5, (6, 6)))
    elsewhere = camera_poses(rng.normal(0.0, 1.0, (1, 6)))[1]
    np.testing.assert_allclose(camera_motion(elsewhere @ poses), camera_motion(poses), atol=1e-9)


def test_units_keep_directions():
    motion = np.array([[0.1, -0.2, 0.0, 0.0, 0.5, 1.0], [0.0, 0.1, 1e-12, 0.0, -2.0, 0.3]])
    ranges = motion_range(motion)
    assert ranges == pytest.approx((0.1, 0.2, 0.0, 0.0, 2.0, 1.0))
    scaled = scaled_motion(motion, ranges)
    np.testing.assert_allclose(scaled[:, :3], motion[:, :3] / 0.2, atol=1e-6)
    np.testing.assert_allclose(scaled[:, 3:], motion[:, 3:] / 2.0, atol=1e-6)
    assert scaled_motion(np.zeros((1, 6)), motion_range(np.zeros((0, 6)))).tolist() == [[0.0] * 6]


def test_files_hold_motions_or_poses(tmp_path):
    motion = np.random.default_rng(0).normal(0.0, 0.3, (5, 6))
    np.save(tmp_path / "motion.npy", motion)
    np.save(tmp_path / "poses.npy", camera_poses(motion))
    for name in ("motion", "poses"):
        np.testing.assert_allclose(read_camera(tmp_path / f"{name}.npy"), motion, atol=1e-9)
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "flat.npy", np.zeros(6))
    np.save(tmp_path / "five.npy", np.zeros((3, 5)))
    for name in ("none", "text", "flat", "five"):
        with pytest.raises(CameraError):
            read_camera(tmp_path / f"{name}.npy")


@pytest.mark.parametrize(
    "motion", [np.zeros((2, 5)), np.zeros(6), [["a"] * 6], [[1.0] * 6, [1.0]], np.full((1, 6), np.nan), None]
)
def test_wrong_motions_are_named(motion):
    with pytest.raises(CameraError, match="rotation vector in rad"):
        checked_motion(motion, (1,))


@pytest.mark.parametrize(
    "poses",
    [
        np.zeros((2, 4, 4)),
        np.eye(4),
        np.eye(4)[None] * 2,
        np.diag([1.0, 1.0, -1.0, 1.0])[None],
        np.full((1, 4, 4), np.nan),
    ],
)
def test_what_is_no_pose_is_named(poses):
    with pytest.raises(CameraError):
        camera_motion(poses)
