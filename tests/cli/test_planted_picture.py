from itertools import pairwise

import numpy as np
import pytest

from eval.cards import load_card
from eval.suite import load_evaluators
from worldsim.cli import planted_picture as picture
from worldsim.cli.validate import Options, run

FRAMES = np.random.default_rng(0).integers(60, 200, (24, 32, 32, 3), dtype=np.uint8)


def rng():
    return np.random.default_rng(3)


def test_what_is_planted_is_what_the_measures_claim():
    known = load_evaluators()
    for planted in (picture.DEFECTS, picture.DEPARTURES):
        for name, plants in planted.items():
            assert set(known[name].claims) == set(plants)
    judged = {n for n, e in known.items() if e.suite in {"quality", "fidelity"} and e.claims}
    assert judged == {*picture.DEFECTS, *picture.DEPARTURES}


def test_alternation_has_the_amplitude_that_it_states():
    change = picture.alternation(FRAMES, 0.5, rng()).astype(int) - FRAMES
    np.testing.assert_array_equal(np.abs(change), 5)
    np.testing.assert_array_equal(change[1:], -change[:-1])


@pytest.mark.parametrize("severity", [0.1, 0.5, 1.0])
def test_stutter_repeats_frames_and_catches_up(severity):
    made = picture.stutter(FRAMES, severity, rng())
    hung = np.array([np.array_equal(a, b) for a, b in pairwise(made)])
    # What does not hang is in its own place.
    np.testing.assert_array_equal(made[1:][~hung], FRAMES[1:][~hung])
    assert 0 < hung.sum() <= 0.5 * severity * len(FRAMES) + 3


def test_swapped_and_late_frames_are_the_same_frames():
    made = picture.swapped(FRAMES, 1.0, rng())
    order = [int(np.flatnonzero((f == FRAMES).all(axis=(1, 2, 3)))[0]) for f in made]
    assert sorted(order) == list(range(24))
    assert np.abs(np.array(order) - np.arange(24)).max() == 1
    np.testing.assert_array_equal(picture.late(FRAMES, 0.5, rng())[3:], FRAMES[:-3])


@pytest.mark.parametrize("plant", [picture.softening, picture.jitter, picture.grain, picture.fading])
def test_defects_grow_with_severity_from_none(plant):
    changes = [np.abs(plant(FRAMES, s, rng()).astype(int) - FRAMES).mean() for s in (0.02, 0.1, 0.3, 1.0)]
    assert changes == sorted(changes)
    assert changes[0] < 0.2 * changes[-1]


def test_departures_keep_the_true_video_as_reference():
    (case,) = picture.build(picture.Job("velocity_error", 5, 32))
    names = [v.name for v in case.variants]
    assert {"late", "impulse", "static", "shuffled", "size"} <= set(names)
    for variant in case.variants:
        assert variant.clip.reference is not None
        assert variant.clip.reference.frames.shape == variant.clip.frames.shape
    assert not np.array_equal(case.lawful.frames, case.lawful.reference.frames)


def test_the_command_writes_a_card(tmp_path):
    run(Options(world="quality", evaluators="flicker", pairs=3, size=32, first_seed=40, out=tmp_path))
    card = load_card("flicker", tmp_path)
    assert card.figures["violations"]["alternation"]["by_severity"]["1"]["auroc"][0] == 1.0
    assert card.figures["degenerate"]["static"]["beats_true"] == 0.0
    assert card.figures["other_modes"]["beyond"]["violations"]
