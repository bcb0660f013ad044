import gymnasium as gym
import numpy as np
import pytest
from counting_world import CountingWorld, Remembering, cycling, leaving
from hypothesis import given
from hypothesis import strategies as st

from worldsim.data import record
from worldsim.data.rollout import episode_seed
from worldsim.errors import ActionError, ConfigError, DatasetError, UnknownNameError, WorldsimError

COUNTING = "counting_world:Counting-v0"


def quiet(env, policy=None, **options):
    return record(env, policy, **{"episodes": 5, "seed": 7, "progress": False, **options})


def check_episode(episode):
    """What the pixels say must agree with every other column, row by row."""
    steps = len(episode)
    assert episode.frames[:, 0, 0, 0].tolist() == list(range(steps + 1))
    assert episode.frames[1:, 3, 2, 1].tolist() == episode.actions.tolist()
    assert (episode.frames[..., 2] == episode.seed % 251).all()
    expected = np.arange(1, steps + 1) + episode.actions / 10
    assert np.allclose(episode.rewards, expected)
    assert episode.terminated.tolist() == [a == 9 for a in episode.actions]
    assert episode.truth["step"][:, 0].tolist() == list(range(steps + 1))
    luck = np.random.Generator(np.random.PCG64(np.random.SeedSequence(episode.seed))).integers(1000)
    assert episode.caption == f"luck {luck}"
    assert np.allclose(episode.truth["luck"], luck + np.arange(steps + 1) / 100)


def test_every_column_agrees_with_the_world(tmp_path):
    dataset = quiet(COUNTING, path=tmp_path / "d", episodes=8)
    ends = set()
    for episode in dataset:
        check_episode(episode)
        assert bool(episode.terminated[-1]) != bool(episode.truncated[-1])
        assert not episode.truncated[:-1].any()
        ends.add(bool(episode.terminated[-1]))
    assert ends == {True, False}  # both kinds of end occur
    assert dataset.fps == 12
    assert len(set(dataset.seeds.tolist())) == 8
    assert dataset.about["env_id"] == "Counting-v0"


def test_blocks_of_any_size_give_the_same_dataset(tmp_path, monkeypatch):
    digest = quiet(COUNTING, path=tmp_path / "a").digest()
    assert quiet(COUNTING, path=tmp_path / "w", workers=2).digest() == digest
    for name, size in (("b", 1), ("c", 700)):
        monkeypatch.setattr("worldsim.data.rollout._BLOCK_BYTES", size)
        assert quiet(COUNTING, path=tmp_path / name).digest() == digest


@pytest.mark.parametrize(("policy", "workers"), [(cycling, 3), (Remembering(), 2)])
def test_result_does_not_depend_on_the_number_of_workers(policy, workers, tmp_path):
    one = quiet(COUNTING, policy, path=tmp_path / "one", workers=1)
    several = quiet(COUNTING, policy, path=tmp_path / "several", workers=workers)
    assert one.digest() == several.digest()
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(one, several, strict=True))
    for episode in several:
        check_episode(episode)


def test_seed_decides(tmp_path):
    digests = {
        name: quiet(COUNTING, path=tmp_path / name, seed=seed).digest()
        for name, seed in {"a": 1, "b": 1, "c": 2}.items()
    }
    assert digests["a"] == digests["b"] != digests["c"]


@given(st.integers(0, 2**40), st.integers(0, 10**6), st.integers(0, 10**6))
def test_episodes_of_a_recording_have_different_seeds(seed, i, j):
    a, b = episode_seed(seed, i), episode_seed(seed, j)
    assert (a == b) == (i == j)
    assert 0 <= a < 2**31


def test_first_episodes_do_not_depend_on_how_many_follow(tmp_path):
    few, many = quiet(COUNTING, path=tmp_path / "a", episodes=2), quiet(COUNTING, path=tmp_path / "b", episodes=4)
    assert np.array_equal(few.episode(1).frames, many.episode(1).frames)


def test_max_steps_truncates(tmp_path):
    dataset = quiet(COUNTING, cycling, path=tmp_path / "d", max_steps=6)
    assert dataset.lengths.tolist() == [7] * 5
    assert all(e.truncated.tolist() == [False] * 5 + [True] for e in dataset)
    assert not any(e.terminated.any() for e in dataset)


def test_made_environment_is_used_and_left_open(tmp_path):
    env = gym.make(COUNTING, steps=4)
    dataset = quiet(env, cycling, path=tmp_path / "d")
    assert dataset.lengths.tolist() == [5] * 5
    assert env.unwrapped.step_number == 4
    env.reset(seed=0)
    again = quiet(env, cycling, path=tmp_path / "e", workers=2)  # through its spec
    assert again.digest() == dataset.digest()


def test_environment_without_pixels_is_rendered_and_resized_by_area(tmp_path):
    dataset = quiet(COUNTING, path=tmp_path / "d", pixels=False, steps=3)
    assert dataset.frame_size == (6, 8)
    for episode in dataset:
        check_episode(episode)
    resized = quiet(COUNTING, path=tmp_path / "e", pixels=False, steps=3, resize=(3, 2))
    assert resized.frame_size == (3, 2)
    assert (resized.read("frames") == dataset.read("frames")[:, :3, :2]).all()  # flat pictures stay what they are


def test_truth_can_be_left_out_or_chosen(tmp_path):
    assert quiet(COUNTING, path=tmp_path / "a", truth=False).truth_keys == ()
    assert quiet(COUNTING, path=tmp_path / "b", truth=("luck",)).truth_keys == ("luck",)
    with pytest.raises(UnknownNameError, match="'luck'"):
        quiet(COUNTING, path=tmp_path / "c", truth=("lucky",))


@pytest.mark.parametrize(
    ("breakage", "error", "message", "workers"),
    [
        ("raise", RuntimeError, "the world broke", 1),
        ("raise", RuntimeError, "the world broke", 2),
        ("reward", DatasetError, "finite rewards", 1),
        ("truth", DatasetError, "a change in new", 1),
    ],
)
def test_what_breaks_is_raised_and_leaves_nothing(breakage, error, message, workers, tmp_path):
    with pytest.raises(error, match=message):
        quiet(COUNTING, cycling, path=tmp_path / "d", workers=workers, break_at=5, breakage=breakage)
    assert list(tmp_path.iterdir()) == []


def test_worker_that_dies_is_told(tmp_path):
    with pytest.raises(DatasetError, match="exit code 3"):
        quiet(COUNTING, cycling, path=tmp_path / "d", workers=2, break_at=5, breakage="exit")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_action_outside_the_space_is_told(workers, tmp_path):
    with pytest.raises(ActionError, match=r"Discrete\(10\); got 10"):
        quiet(COUNTING, leaving, path=tmp_path / "d", workers=workers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("CartPol-v1", "CartPole-v1"), ("envs:Bounc-v0", "envs:Bounce-v0"), ("counting_world:Countin-v0", COUNTING)],
)
def test_unknown_environments_suggest_the_nearest(name, suggestion, tmp_path):
    with pytest.raises(UnknownNameError, match=f"Did you mean '{suggestion}'"):
        quiet(name, path=tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_named_errors(tmp_path):
    path = tmp_path / "d"
    for options in (
        {"episodes": 0},
        {"workers": 0},
        {"max_steps": 0},
        {"seed": -1},
        {"resize": 0},
        {"resize": (3, 4, 5)},
        {"fps": 0},
    ):
        with pytest.raises(WorldsimError, match="expected"):
            quiet(COUNTING, path=path, **options)
    with pytest.raises(ConfigError, match="no_such_module"):
        quiet("no_such_module:World-v0", path=path)
    with pytest.raises(ConfigError, match="made already"):
        quiet(gym.make(COUNTING), path=path, steps=3)
    with pytest.raises(ConfigError, match="rgb_array"):
        quiet(gym.make(COUNTING, pixels=False), path=path)
    with pytest.raises(ConfigError, match="spec"):
        quiet(CountingWorld(), path=path, workers=2)
    assert list(tmp_path.iterdir()) == []


def test_environment_without_rate_needs_one(tmp_path, monkeypatch):
    monkeypatch.setattr(CountingWorld, "metadata", {"render_modes": ["rgb_array"]})
    with pytest.raises(ConfigError, match="frame rate"):
        quiet(COUNTING, path=tmp_path / "d")
    assert quiet(COUNTING, path=tmp_path / "d", fps=3).fps == 3


def test_cart_pole(tmp_path):
    dataset = quiet("CartPole-v1", path=tmp_path / "d", episodes=2, resize=64)
    assert dataset.frame_size == (64, 64)
    assert dataset.action_space == gym.spaces.Discrete(2)
    assert all(e.terminated[-1] for e in dataset)
    assert np.ptp(dataset.episode(0).frames.astype(int), axis=0).max() > 50  # the cart moves


def test_atari(tmp_path):
    pytest.importorskip("ale_py")
    dataset = quiet("ALE/Pong-v5", path=tmp_path / "d", episodes=2, max_steps=30, resize=(105, 80))
    assert dataset.frame_size == (105, 80)
    assert dataset.lengths.tolist() == [31, 31]


def test_bounce(tmp_path):
    dataset = quiet("envs:Bounce-v0", path=tmp_path / "d", episodes=2, max_steps=12)
    assert {"segmentation", "position_m"} <= set(dataset.truth_keys)
    assert all(e.caption for e in dataset)
