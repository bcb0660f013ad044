"""Room's violations: matched, graded from nothing, out of the law in the way that their names say."""

import numpy as np
import pytest

from envs.errors import SceneError, SeverityError, UnknownNameError
from envs.room.violations import RECIPES, VIOLATIONS, pair

SIZE = (48, 48)


def difference(first, second):
    return np.abs(first.frames.astype(int) - second.frames).mean(axis=(1, 2, 3))


@pytest.mark.parametrize("name", VIOLATIONS)
def test_severity_grades_a_violation_from_none(name):
    graded = [pair(name, 4, s, size=SIZE) for s in (0.0, 0.02, 0.3, 1.0)]
    lawful = graded[0][0]
    for other, _ in graded[1:]:
        np.testing.assert_array_equal(other.frames, lawful.frames)
    amounts = [difference(violated, lawful).mean() for _, violated in graded]
    assert amounts[0] == 0.0
    # Continuous: a fiftieth of the severity shows little; growing: more of it shows more.
    assert amounts[1] < 0.35 * amounts[3]
    assert amounts[1] < amounts[2] < amounts[3]


@pytest.mark.parametrize("name", VIOLATIONS)
def test_severity_is_continuous_at_none(name):
    """A tenth of a small severity changes the frames by about a tenth: nothing jumps where the violation begins."""
    small, smaller = (difference(*pair(name, 3, s, size=(32, 32))).mean() for s in (0.01, 0.001))
    assert small > 0
    assert smaller < 0.2 * small


@pytest.mark.parametrize("name", VIOLATIONS)
def test_pairs_are_matched(name):
    lawful, violated = pair(name, 11, 1.0, size=SIZE)
    assert violated.name == name
    assert lawful.name is None
    assert lawful.onset is None
    assert violated.frames.shape == lawful.frames.shape == (32, *SIZE, 3)
    assert violated.truth is lawful.truth
    assert violated.text == lawful.text
    np.testing.assert_array_equal(violated.actions, lawful.actions)
    changed = difference(lawful, violated) > 0
    assert changed[violated.onset :].any()
    assert not changed[: violated.onset].any()
    # Alike in pixel statistics: the same room in the same light.
    assert violated.frames.mean() == pytest.approx(lawful.frames.mean(), rel=0.12)
    assert violated.frames.std() == pytest.approx(lawful.frames.std(), rel=0.35)
    assert len(np.unique(violated.frames)) > 0.8 * len(np.unique(lawful.frames))


def test_severity_does_not_change_the_direction():
    """Half the wobble is in the same direction: frames of severity 0.5 lie between those of 0.4 and 0.6."""
    _, low = pair("camera_wobble", 0, 0.4, size=SIZE)
    _, mid = pair("camera_wobble", 0, 0.5, size=SIZE)
    _, high = pair("camera_wobble", 0, 0.6, size=SIZE)
    assert difference(low, mid).mean() < difference(low, high).mean()
    assert difference(mid, high).mean() < difference(low, high).mean()


def mask_of(record, colour_slot):
    return record.truth["segmentation"] == colour_slot + 1


def test_ignored_actions_leave_the_camera_still():
    _, violated = pair("ignored_actions", 3, 1.0, size=SIZE)
    # Solids settle on the floor by micrometres, which can round a grey value the other way.
    assert np.abs(violated.frames.astype(int) - violated.frames[0]).max() <= 1


@pytest.mark.parametrize("name", ["ignored_actions", "scale_drift"])
@pytest.mark.parametrize("path", ["loop", "random_walk"])
def test_cameras_that_go_another_way_stay_in_the_room(name, path):
    """The renderer refuses cameras outside; inside a solid, one would see its inner side from no distance at all."""
    lawful, violated = pair(name, 2, 0.5, size=SIZE, camera_path=path)
    shades = [[len(np.unique(frame)) for frame in clip.frames] for clip in (lawful, violated)]
    assert min(shades[1]) > 0.3 * min(shades[0])


def test_texture_swim_of_an_object_stays_on_it():
    lawful, violated = pair("texture_swim_object", 5, 1.0, size=SIZE)
    changed = (lawful.frames != violated.frames).any(axis=-1)
    # One solid, widened by the pixels that share its edge.
    inside = [mask_of(lawful, slot) for slot in range(1, lawful.truth["present"].shape[1])]
    widened = [np.any([np.roll(m, (dy, dx), (1, 2)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], axis=0) for m in inside]
    assert any(not (changed & ~m).any() for m in widened)


def test_the_world_is_forgotten_out_of_sight():
    lawful, violated = pair("world_forgotten", 2, 1.0, size=SIZE)
    seen = np.unique(lawful.truth["segmentation"][0])
    hidden = ~np.isin(lawful.truth["segmentation"][violated.onset], seen[seen > 0]).any()
    assert hidden
    assert difference(lawful, violated)[violated.onset :].max() > 2.0


def test_scale_drift_shows_in_the_way_covered():
    """The same pixels as a lawful camera that goes 1/1.6 of the way: nearer to the start at the end of a dolly."""
    lawful, violated = pair("scale_drift", 1, 1.0, size=SIZE, num_frames=12)
    camera = lawful.truth["world_from_camera"][:, :3, 3]
    way = np.linalg.norm(camera - camera[0], axis=1)
    at = int(np.argmin(np.abs(way - way[-1] / 1.6)))
    later = difference(lawful, violated)[-1]
    assert np.abs(lawful.frames[at].astype(int) - violated.frames[-1]).mean() < later


def test_popping_comes_and_goes():
    lawful, violated = pair("object_popping", 6, 1.0, size=SIZE)
    changed = difference(lawful, violated) > 0
    assert np.count_nonzero(np.diff(changed.astype(int))) >= 3


def test_any_frame_size_length_and_path():
    lawful, violated = pair("texture_swim_room", 0, 0.5, size=(20, 36), num_frames=7, camera_path="look_away")
    assert violated.frames.shape == (7, 20, 36, 3)
    assert len(lawful.actions) == 6


@pytest.mark.parametrize("severity", [-0.1, 1.1, float("nan"), "high"])
def test_severity_outside_the_unit_interval_is_refused(severity):
    with pytest.raises(SeverityError):
        pair("camera_wobble", 0, severity)


def test_unknown_violations_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="camera_wobble"):
        pair("camera_wobbel", 0, 0.5)


def test_clips_too_short_are_refused():
    with pytest.raises(SceneError):
        pair("camera_wobble", 0, 0.5, num_frames=3)


def test_every_violation_says_what_goes_wrong():
    assert all(recipe.meaning and recipe.paths for recipe in RECIPES.values())
