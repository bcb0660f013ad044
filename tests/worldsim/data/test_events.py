import numpy as np
import pytest
from gymnasium import spaces

from worldsim.data import Dataset, DatasetWriter, Windows, abrupt_change, event_frames, event_weights
from worldsim.errors import ConfigError


def make(path, contacts=None, rewards=None, terminated=None):
    """Two episodes of 11 frames; what is given belongs to the second."""
    with DatasetWriter(path, action_space=spaces.Discrete(2), fps=10) as writer:
        for second in (False, True):
            truth = {"contacts": np.full((11, 3, 2), np.nan)}
            for frame, slots in (contacts or {}).items():
                truth["contacts"][frame, : len(slots), 0] = slots if second else np.nan
            writer.add_episode(
                np.zeros((11, 4, 4, 3), np.uint8),
                np.zeros(10, int),
                rewards=rewards if second else None,
                terminated=terminated if second else None,
                truth=truth,
            )
    return Dataset.open(path)


def test_new_contacts_are_events_and_lasting_ones_are_not(tmp_path):
    dataset = make(tmp_path / "d", contacts={0: [1], 1: [1], 4: [0], 5: [0, 2], 6: [2], 7: [-1]})
    assert np.flatnonzero(event_frames(dataset)).tolist() == [11 + 4, 11 + 5]


def test_rare_rewards_and_terminations_are_events_of_the_frame_that_shows_them(tmp_path):
    rewards = np.where(np.arange(10) == 3, 1.0, -0.1)
    dataset = make(tmp_path / "d", rewards=rewards, terminated=np.arange(10) == 9)
    assert np.flatnonzero(event_frames(dataset)).tolist() == [11 + 4, 11 + 10]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_events_have_their_share_of_the_weight(share, tmp_path):
    dataset = make(tmp_path / "d", contacts={4: [0], 8: [1]})
    weights, happened = event_weights(dataset, share=share), event_frames(dataset)
    extra = (weights - 1)[happened].sum()
    assert extra / weights.sum() == pytest.approx(share)
    assert np.ptp(weights[~happened]) == 0


def test_windows_with_events_are_drawn_more_often(tmp_path):
    dataset = make(tmp_path / "d", contacts={5: [0]})
    drawn = {}
    for name, weights in (("plain", None), ("rich", event_weights(dataset, share=0.8))):
        batch = Windows(dataset, 4, batch_size=4000, seed=0, weights=weights).batch(0)
        drawn[name] = np.mean((batch["episode"] == 1) & (batch["start"] >= 2) & (batch["start"] <= 5))
    # Four of sixteen windows hold the event. Weighted, each of them has 88 + 4 of a total of 4 * 88 + 16 * 4.
    assert drawn["plain"] == pytest.approx(4 / 16, abs=0.03)
    assert drawn["rich"] == pytest.approx(4 * 92 / (4 * 88 + 16 * 4), abs=0.03)


def test_without_events_all_frames_weigh_alike(tmp_path):
    assert event_weights(make(tmp_path / "d")).tolist() == [1.0] * 22


def test_a_bounce_is_an_abrupt_change_and_steady_motion_is_none(tmp_path):
    dataset = make(tmp_path / "d")
    bounce = np.array([0, 1, 2, 3, 4, 3, 2, 1, 0, -1, -2.0])  # turns at frame 4, seen in frame 5
    values = np.concatenate([3.0 * np.arange(11), bounce])[:, None] * np.ones((1, 6))
    change = abrupt_change(dataset, values)
    assert np.flatnonzero(change).tolist() == [11 + 5]
    assert change[11 + 5] == 4.0  # (-1 - 1)^2
    assert np.flatnonzero(event_frames(dataset, change=change)).tolist() == [11 + 5]
    with pytest.raises(ConfigError, match="change"):
        event_frames(dataset, change=change[:5])


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_shares_out_of_range_are_refused(share, tmp_path):
    with pytest.raises(ConfigError, match="share"):
        event_weights(make(tmp_path / "d"), share=share)
