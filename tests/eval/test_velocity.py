import numpy as np
import pytest

from eval.clip import Clip
from eval.physics.velocity import velocity_error
from eval.score import Score

FPS, SIZE = 10.0, 64
RED, BLUE = (210, 50, 50), (40, 80, 220)


def discs(paths, colours=(RED, BLUE), radius=5.0):
    """Anti-aliased discs on a plain ground; a NaN position hides a disc. paths: (T, N, 2)."""
    grid = np.arange(SIZE) + 0.5
    video, labels = [], []
    for positions in paths:
        frame, label = np.full((SIZE, SIZE, 3), 225.0), np.zeros((SIZE, SIZE), np.int16)
        for k, ((x, y), colour) in enumerate(zip(positions, colours, strict=True)):
            if np.isnan(x):
                continue
            distance = np.hypot(grid[None] - x, grid[:, None] - y)
            cover = np.clip(radius - distance + 0.5, 0, 1)[..., None]
            frame = frame * (1 - cover) + cover * np.array(colour)
            label[distance < radius] = k + 1
        video.append(np.round(frame).astype(np.uint8))
        labels.append(label)
    return np.stack(video), np.stack(labels)


def straight(velocities, starts=((12.0, 18.0), (50.0, 44.0)), frames=20):
    return np.array(starts) + np.arange(frames)[:, None, None] * np.array(velocities)


TRUE_PATHS = straight([(1.7, 0.4), (-1.3, 0.2)])


def judge(paths, *, segmentation=True, true_paths=TRUE_PATHS, **config) -> Score:
    frames, labels = discs(true_paths)
    truth = {"segmentation": labels} if segmentation else {}
    reference = Clip(frames=frames, fps=FPS, truth=truth)
    return velocity_error(Clip(frames=discs(paths)[0], fps=FPS, reference=reference), **config)


@pytest.mark.parametrize("segmentation", [True, False])
def test_error_of_a_wrong_velocity_is_its_closed_form(segmentation):
    wrong = np.array([(0.5, -0.3), (0.0, -0.9)])
    score = judge(straight(np.array([(1.7, 0.4), (-1.3, 0.2)]) + wrong), segmentation=segmentation)
    assert score.status == "ok", score.reason
    assert score.value == pytest.approx(np.linalg.norm(wrong, axis=1).mean() * FPS / SIZE, rel=0.03)
    assert score.details["missing"] == 0


def test_the_truth_itself_is_without_error_and_its_floor_is_small():
    score = judge(TRUE_PATHS)
    assert score.value == 0
    assert score.normalised == 1
    assert score.details["floor"] < 0.05 * FPS / SIZE


def test_a_still_video_earns_nothing():
    score = judge(np.repeat(TRUE_PATHS[:1], 20, axis=0))
    speed = np.linalg.norm([(1.7, 0.4), (-1.3, 0.2)], axis=1).mean() * FPS / SIZE
    assert score.value == pytest.approx(speed, rel=0.01)
    assert score.normalised == pytest.approx(0, abs=0.01)


def test_a_vanished_body_is_charged_and_located():
    paths = TRUE_PATHS.copy()
    paths[12:, 0] = np.nan
    score = judge(paths)
    # 8 of 19 pairs of one of two bodies at 0.4 sides a second, the rest exact.
    assert score.value == pytest.approx(8 / 19 / 2 * 0.4, rel=0.02)
    assert score.offending == tuple(range(12, 20))
    assert score.details["missing"] == pytest.approx(8 / 19 / 2)
    stuck = TRUE_PATHS.copy()
    stuck[12:, 0] = stuck[12, 0]
    assert score.value > judge(stuck).value > 0


def test_bodies_of_one_colour_are_followed_together():
    frames, labels = discs(TRUE_PATHS, (RED, RED))
    reference = Clip(frames=frames, fps=FPS, truth={"segmentation": labels})
    score = velocity_error(Clip(frames=frames, fps=FPS, reference=reference))
    assert score.details["followed_together"] == [2]
    assert score.value == 0


def test_frames_that_were_given_do_not_count():
    late = TRUE_PATHS.copy()
    late[:6, 0] = np.nan
    assert judge(late).value > 0.05
    assert judge(late, context=7).value == 0


def test_what_cannot_be_judged_has_a_reason():
    still = np.repeat(TRUE_PATHS[:1], 20, axis=0)
    assert judge(TRUE_PATHS, true_paths=still).status == "inapplicable"
    frames = discs(TRUE_PATHS)[0]
    assert velocity_error(Clip(frames=frames, fps=FPS)).status == "missing"
    short = Clip(frames=frames[:2], fps=FPS, reference=Clip(frames=frames[:2], fps=FPS))
    assert velocity_error(short).status == "insufficient"
