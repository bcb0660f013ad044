import numpy as np
import pytest
from worlds import BLUE, RED, Ball, draw, simulate

from eval import Clip
from eval.physics.clearance import cleared
from eval.physics.flights import nearness
from eval.physics.tracks import track
from worldsim.cli import planted


def near_of(balls, positions):
    frames, labels = draw(balls, positions)
    tracks = track(Clip(frames=frames, fps=10, truth={"segmentation": labels}))
    near = nearness(tracks)
    return near, cleared(tracks, near)


def test_discs_that_pass_side_by_side_have_met_nothing():
    balls = [Ball(12, 20, 2.0, 0.0, r=5, colour=RED), Ball(50, 32.6, -2.0, 0.0, r=5, colour=BLUE)]
    positions, _ = simulate(balls, 20, walls=False)
    before, after = near_of(balls, positions)
    assert before.objects.any()
    assert not after.objects.any()
    assert after.free.all()


def test_discs_that_collide_stay_near_where_they_did():
    balls = [Ball(14, 30, 1.5, 0.1, r=5, colour=RED), Ball(48, 33, -1.0, 0.0, r=6, colour=BLUE)]
    positions, _ = simulate(balls, 24, walls=False)
    step = np.diff(positions, axis=0)
    turned = np.linalg.norm(np.diff(step, axis=0), axis=-1).max(axis=1).argmax()
    _, after = near_of(balls, positions)
    assert after.objects[turned : turned + 2, 0, 1].any()
    assert not after.free[turned : turned + 2].all()


@pytest.mark.parametrize("scenario", ["chain", "billiards", "collision", "parabola"])
def test_no_interval_with_a_true_contact_counts_as_free(scenario):
    """Against the contacts that the world itself tells."""
    judged = 0
    for seed in (31, 32):
        record = planted._recorded(scenario, seed, 64)
        tracks = track(planted._clip(record, "masks"))
        near = cleared(tracks, nearness(tracks))
        centres = record.truth["centroid_px"]
        for k in range(len(tracks)):
            slot = int(np.nanargmin(np.nanmedian(np.abs(tracks.centroid_px[:, k, None] - centres), axis=(0, 2))))
            for t in np.flatnonzero(near.free[:, k]):
                rows = record.truth["contacts"][t + 1]
                assert not (rows[rows[:, 0] >= 0][:, :2] == slot).any(), (seed, slot, t)
                judged += 1
    assert judged > 20
