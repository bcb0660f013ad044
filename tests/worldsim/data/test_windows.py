from itertools import islice

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from worldsim.data import Dataset, DatasetWriter, Windows
from worldsim.data.windows import ShortEpisodesWarning
from worldsim.errors import ConfigError, DatasetError

pytestmark = pytest.mark.filterwarnings("ignore::worldsim.data.windows.ShortEpisodesWarning")

LENGTHS = (9, 4, 30, 12, 17)  # frames


def make(path, lengths=LENGTHS, space=None):
    """Each pixel tells the episode and the frame; each action tells the frame it leads on from."""
    space = space or spaces.Box(0, 1000, (2,), np.float64)
    with DatasetWriter(path, action_space=space, fps=10) as writer:
        for number, length in enumerate(lengths):
            frames = np.zeros((length, 3, 4, 3), np.uint8)
            frames[..., 0], frames[..., 1] = number, np.arange(length)[:, None, None]
            steps = np.arange(length - 1.0)
            actions = np.stack([np.full(length - 1, float(number)), steps], -1)
            if isinstance(space, spaces.Dict):
                actions = {"who": actions[:, :1], "when": steps.astype(np.int64)}
            ends = np.arange(length - 1) == length - 2
            writer.add_episode(frames, actions, rewards=steps * 2, terminated=ends, caption=f"scene {number}")
    return Dataset.open(path)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make(tmp_path_factory.mktemp("windows") / "d")


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@settings(max_examples=25)
@given(length=st.integers(1, 30), batch=st.integers(1, 9), seed=st.integers(0, 2**60), step=st.integers(0, 10**9))
def test_windows_are_runs_of_one_episode(length, batch, seed, step, dataset):
    found = Windows(dataset, length, batch_size=batch, seed=seed).batch(step)
    assert found["frames"].shape == (batch, length, 3, 4, 3)
    assert found["actions"].shape == (batch, length - 1, 2)
    for i, (episode, start) in enumerate(zip(found["episode"], found["start"], strict=True)):
        frames = found["frames"][i]
        assert (frames[..., 0] == episode).all()
        assert frames[:, 0, 0, 1].tolist() == list(range(start, start + length))
        steps = np.arange(start, start + length - 1)
        assert (found["actions"][i] == np.stack([np.full(length - 1, episode), steps], -1)).all()
        assert (found["rewards"][i] == steps * 2).all()
        assert (found["terminated"][i] == (steps == LENGTHS[episode] - 2)).all()
        assert found["captions"][i] == f"scene {episode}"


def test_every_window_is_drawn_and_all_alike(dataset):
    windows = Windows(dataset, 8, batch_size=500, seed=3)
    expected = {(e, s) for e, n in enumerate(LENGTHS) for s in range(n - 7)}
    batch = [windows.batch(step) for step in range(40)]
    drawn = np.stack([np.concatenate([b[k] for b in batch]) for k in ("episode", "start")], 1)
    kinds, counts = np.unique(drawn, axis=0, return_counts=True)
    assert {tuple(k) for k in kinds.tolist()} == expected
    assert windows.num_windows == len(expected)
    mean = 20_000 / len(expected)
    chi2 = ((counts - mean) ** 2 / mean).sum()
    assert chi2 < len(expected) + 4 * np.sqrt(2 * len(expected))  # four standard deviations


def test_weights_set_how_often_a_window_is_drawn(dataset):
    rng = np.random.default_rng(0)
    weights = rng.random(dataset.num_frames) * (rng.random(dataset.num_frames) < 0.3)
    windows = Windows(dataset, 5, batch_size=40_000, seed=1, weights=weights)
    batch = windows.batch(0)
    starts = dataset.starts[batch["episode"]] + batch["start"]
    counts = np.bincount(starts, minlength=dataset.num_frames) / 40_000
    expected = np.zeros(dataset.num_frames)
    for begin, n in zip(dataset.starts, dataset.lengths, strict=True):
        for s in range(begin, begin + n - 4):
            expected[s] = weights[s : s + 5].sum()
    expected /= expected.sum()
    assert np.abs(counts - expected).max() < 4 * np.sqrt(expected.max() / 40_000)
    assert counts[expected == 0].sum() == 0


def test_window_of_no_weight_at_either_end_is_never_drawn(dataset):
    weights = np.zeros(dataset.num_frames)
    weights[dataset.starts[2] + 12] = 1.0
    batch = Windows(dataset, 5, batch_size=3000, seed=0, weights=weights).batch(0)
    assert set(batch["episode"]) == {2}
    assert set(batch["start"]) == set(range(8, 13))


def test_rows_of_a_batch_are_those_of_the_whole(dataset):
    windows = Windows(dataset, 5, batch_size=6, seed=2)
    whole, some = windows.batch(3), windows.batch(3, slice(2, 5))
    for name in ("frames", "rewards", "episode", "start"):
        np.testing.assert_array_equal(some[name], whole[name][2:5])
    assert some["captions"] == whole["captions"][2:5]
    without = Windows(dataset, 5, batch_size=6, seed=2, frames=False).batch(3)
    assert "frames" not in without
    np.testing.assert_array_equal(without["start"], whole["start"])


def test_only_the_chosen_episodes_are_drawn(dataset):
    batch = Windows(dataset, 5, batch_size=2000, seed=0, episodes=[0, 3]).batch(0)
    assert set(batch["episode"]) == {0, 3}


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_iteration_is_the_same_from_memory_or_disk_with_any_workers(workers, memory_gib, dataset):
    expected = [Windows(dataset, 6, batch_size=4, seed=5).batch(i) for i in range(12)]
    windows = Windows(dataset, 6, batch_size=4, seed=5, workers=workers, memory_gib=memory_gib)
    for found, wanted in zip(islice(iter(windows), 12), expected, strict=True):
        assert same(found, wanted)


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_sees_what_it_would_have_seen(workers, dataset):
    first = Windows(dataset, 6, batch_size=4, seed=5, workers=workers)
    list(islice(iter(first), 7))
    state = first.state_dict()
    expected = list(islice(iter(first), 5))
    second = Windows(dataset, 6, batch_size=4, seed=5, workers=workers)
    second.load_state_dict(state)
    for found, wanted in zip(islice(iter(second), 5), expected, strict=True):
        assert same(found, wanted)


def test_different_seeds_and_steps_differ(dataset):
    batches = [Windows(dataset, 6, batch_size=16, seed=s).batch(i) for s, i in ((0, 0), (0, 1), (1, 0), (1, 1))]
    keys = {tuple(b["episode"].tolist() + b["start"].tolist()) for b in batches}
    assert len(keys) == 4


def test_state_of_other_windows_is_refused(dataset, tmp_path):
    windows = Windows(dataset, 6, batch_size=4, seed=5)
    state = windows.state_dict()
    for change in ({"length": 5}, {"batch_size": 3}, {"seed": 6}, {"episodes": [0, 2]}):
        other = Windows(dataset, **{"length": 6, "batch_size": 4, "seed": 5, **change})
        with pytest.raises(ConfigError, match="as in the run to resume"):
            other.load_state_dict(state)
    foreign = Windows(make(tmp_path / "d", (9, 9)), 6, batch_size=4, seed=5)
    with pytest.raises(DatasetError, match="the run began with"):
        foreign.load_state_dict(state)


def test_dict_actions_keep_their_shape(tmp_path):
    space = spaces.Dict({"who": spaces.Box(0, 10, (1,), np.float64), "when": spaces.Discrete(100)})
    batch = Windows(make(tmp_path / "d", space=space), 4, batch_size=3, seed=0).batch(0)
    assert set(batch["actions"]) == {"who", "when"}
    assert (batch["actions"]["when"] == batch["start"][:, None] + np.arange(3)).all()
    assert (batch["actions"]["who"][..., 0] == batch["episode"][:, None]).all()


def test_short_episodes_are_told(dataset):
    with pytest.warns(ShortEpisodesWarning, match="2 of 5 episodes are shorter than 10 frames"):
        Windows(dataset, 10, batch_size=1, seed=0)
    with pytest.raises(DatasetError, match="the longest has 30"):
        Windows(dataset, 31, batch_size=1, seed=0)


def test_bad_arguments_are_named_errors(dataset):
    good = {"length": 4, "batch_size": 2, "seed": 0}
    n = dataset.num_frames
    bad_weights = [np.ones(n - 1), -np.ones(n), np.full(n, np.nan), np.zeros(n)]
    for change in (
        {"length": 0},
        {"batch_size": 0},
        {"seed": -1},
        {"workers": -1},
        {"episodes": []},
        {"episodes": [5]},
        *({"weights": w} for w in bad_weights),
    ):
        with pytest.raises(ConfigError, match="expected"):
            Windows(dataset, **{**good, **change})
