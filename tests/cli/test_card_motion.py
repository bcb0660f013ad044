"""Residuals of gravity and collisions against paths in closed form."""

import numpy as np
import pytest

from worldsim.cli.bounce_reader import follow
from worldsim.cli.card_motion import residuals

GRAVITY = 0.1
TIME = np.arange(24.0)


def path(*, gravity=GRAVITY, kick=(-4.0, 0.0), at=12):
    """One body in free flight that is kicked at a frame, (T, 1, 2)."""
    row = 10.0 + 1.5 * TIME + 0.5 * gravity * TIME**2
    later = np.maximum(TIME - at, 0.0)
    return np.stack([row + kick[0] * later, 5.0 + 0.5 * TIME + kick[1] * later], axis=1)[:, None]


def test_a_dream_that_is_the_truth_leaves_nothing():
    flights, hits = residuals(path(), path(), GRAVITY)
    assert len(flights) == 2
    assert len(hits) == 1
    np.testing.assert_allclose([*flights, *hits], 0.0, atol=1e-9)


def test_a_body_that_stands_still_or_is_lost_misses_all_of_it():
    for dream in (np.full((24, 1, 2), 30.0), np.full((24, 1, 2), np.nan)):
        flights, hits = residuals(path(), dream, GRAVITY)
        np.testing.assert_allclose([*flights, *hits], 1.0)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.5])
def test_what_falls_and_rebounds_by_another_share_misses_the_rest(share):
    flights, _ = residuals(path(), path(gravity=share * GRAVITY), GRAVITY)
    np.testing.assert_allclose(flights, abs(1.0 - share), rtol=1e-6)
    _, hits = residuals(path(gravity=0.0), path(gravity=0.0, kick=(-4.0 * share, 0.0)), 1e-9)
    np.testing.assert_allclose(hits, abs(1.0 - share), rtol=1e-6)


def test_a_rebound_a_frame_late_is_forgiven_and_one_sideways_is_not():
    late = residuals(path(), path(at=13), GRAVITY)[1]
    sideways = residuals(path(), path(kick=(0.0, 4.0)), GRAVITY)[1]
    assert late == pytest.approx([0.0], abs=1e-9)
    assert sideways == pytest.approx([np.sqrt(2.0)], rel=0.1)


def test_a_colour_that_is_missing_or_there_twice_has_no_place():
    video = np.full((3, 32, 32, 3), 255, np.uint8)
    red = (214, 39, 40)
    video[:2, 4:12, 6:14] = red
    video[1, 20:28, 20:28] = red
    places = follow(video, ["red"], least_area_px=64.0)
    np.testing.assert_allclose(places[0, 0], (7.5, 9.5))
    assert np.isnan(places[1:]).all()
