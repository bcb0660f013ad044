import cv2
import numpy as np
import pytest

from eval import Clip, Unmeasurable
from eval.physics.laws import LAWS
from eval.physics.points import camera_motion, point_tracks, stabilised
from eval.physics.tracks import track


@pytest.fixture(scope="module")
def ground():
    rng = np.random.default_rng(0)
    return np.clip(cv2.GaussianBlur(rng.normal(128, 200, (300, 400)).astype(np.float32), (0, 0), 2.5), 0, 255)


def view(ground, homography, size=(120, 160)):
    picture = cv2.warpPerspective(ground, homography, size[::-1], flags=cv2.INTER_CUBIC)
    return np.repeat(np.clip(np.round(picture), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def moving_camera(ground, t=10):
    """A camera that pans and rolls: frames, and the true homographies from frame 0 (pixel centres at +0.5)."""
    frames, true = [], []
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    for i in range(t):
        c, s = np.cos(0.01 * i), np.sin(0.01 * i)
        move = np.array([[c, -s, -100 - 1.3 * i], [s, c, -80 + 0.6 * i], [0, 0, 1]])
        frames.append(view(ground, move))
        true.append(half @ move @ np.linalg.inv(half))
    return np.stack(frames), np.array([m @ np.linalg.inv(true[0]) for m in true])


def test_points_follow_a_known_pan(ground):
    moves = [np.array([[1, 0, -100 - 1.5 * i], [0, 1, -80 + 0.75 * i], [0, 0, 1.0]]) for i in range(6)]
    found = point_tracks(np.stack([view(ground, m) for m in moves]))
    step = np.diff(found.position_px, axis=0)
    known = np.isfinite(step[..., 0])
    assert known.sum() > 500
    np.testing.assert_allclose(np.median(step[known], axis=0), [-1.5, 0.75], atol=0.05)
    assert np.percentile(np.abs(step[known] - [-1.5, 0.75]), 95) < 0.1
    assert np.nanmax(found.error_px) <= 0.5


def test_the_camera_is_recovered_and_taken_out(ground):
    frames, true = moving_camera(ground)
    found = camera_motion(point_tracks(frames))
    corners = np.array([[20, 20, 1], [140, 20, 1], [140, 100, 1], [20, 100, 1.0]]).T
    for a, b in zip(found, true, strict=True):
        there, here = a @ corners, b @ corners
        np.testing.assert_allclose(there[:2] / there[2], here[:2] / here[2], atol=1.0)
    still = stabilised(frames)[0][:, 30:-30, 40:-40].astype(float)
    moved = frames[:, 30:-30, 40:-40].astype(float)
    assert np.abs(still - still[5]).mean() < 0.15 * np.abs(moved - moved[5]).mean()


def test_an_object_under_a_moving_camera_is_found_but_not_judged(ground):
    frames, _ = moving_camera(ground, t=12)
    frames = frames.copy()
    for i, frame in enumerate(frames):
        cv2.circle(frame, (40 + 6 * i, 60), 9, (250, 30, 30), -1)
    clip = Clip(frames=frames, fps=10)
    tracks = track(clip)
    assert tracks.source == "motion"
    assert tracks.seen.any(axis=1).mean() > 0.6
    for law in LAWS:
        found = law(clip)
        assert (found.status, found.value) == ("insufficient", None), law.name
        assert "textured" in found.reason


def test_frames_without_corners_have_no_camera_motion():
    blank = np.full((4, 32, 32, 3), 90, np.uint8)
    assert point_tracks(blank).position_px.shape == (4, 0, 2)
    with pytest.raises(Unmeasurable, match="share 0 points"):
        camera_motion(point_tracks(blank))
    rng = np.random.default_rng(0)
    with pytest.raises(Unmeasurable):
        camera_motion(point_tracks(rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)))
