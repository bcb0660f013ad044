import numpy as np
import pytest

from worldsim import cli
from worldsim.data import Dataset
from worldsim.video import write_video


def record(*arguments):
    return cli.main(["record", *map(str, arguments), "--no-progress"])


def test_cart_pole(tmp_path, capsys):
    assert record("CartPole-v1", "--out", tmp_path / "d", "-n", 3, "--seed", 4, "--resize", 32, 48) == 0
    dataset = Dataset.open(tmp_path / "d")
    assert (len(dataset), dataset.frame_size, dataset.about["seed"]) == (3, (32, 48), 4)
    assert "3 episodes" in capsys.readouterr().out


def test_bounce_with_an_expert_and_with_held_actions(tmp_path):
    options = ("-n", 2, "--max-steps", 25, "--no-truth")
    assert record("envs:Bounce-v0", "--out", tmp_path / "a", *options, "--policy", "envs.policies:bounce_expert") == 0
    assert record("envs:Bounce-v0", "--out", tmp_path / "b", *options, "--hold", 8) == 0
    assert record("envs:Bounce-v0", "--out", tmp_path / "c", *options) == 0
    held, free = (Dataset.open(tmp_path / name) for name in "bc")
    changes = [sum((np.diff(e.actions) != 0).sum() for e in dataset) for dataset in (held, free)]
    assert changes[0] < 20 < changes[1]  # of 48: about 5 where actions are held, about 38 where not
    assert Dataset.open(tmp_path / "a").truth_keys == ()


def test_arguments_of_the_environment(tmp_path):
    assert (
        record("Pendulum-v1", "--out", tmp_path / "d", "-n", 1, "--max-steps", 3, "--resize", 16, 16, "--env", "g=3.5")
        == 0
    )
    assert Dataset.open(tmp_path / "d").about["env_kwargs"]["g"] == 3.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Bounce-v0"], "Did you mean 'envs:Bounce-v0'?"),
        (["CartPole-v7"], "CartPole-v1"),
        (["CartPole-v1", "--policy", "randm"], "Did you mean 'random'?"),
        (["CartPole-v1", "--policy", "os:nothing"], "a policy at os:nothing"),
        (["CartPole-v1", "--policy", "os:getcwd", "--hold", "2"], "--hold"),
        (["CartPole-v1", "--env", "gravity"], "NAME=VALUE"),
        (["CartPole-v1", "--env", "gravity=1"], "gravity"),
        (["CartPole-v1", "--env", "fps=1"], "got fps"),
        (["CartPole-v1", "-n", "0"], "episodes of at least 1"),
        (["CartPole-v1", "--hold", "0.5"], "hold of at least 1"),
    ],
)
def test_mistakes_are_told_exit_with_2_and_leave_nothing(arguments, message, tmp_path, capsys):
    assert record(*arguments, "--out", tmp_path / "d") == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_existing_path_is_told(tmp_path, capsys):
    assert record("CartPole-v1", "--out", tmp_path, "-n", 1) == 2
    assert "nothing is yet" in capsys.readouterr().err


def test_import_videos(tmp_path, capsys):
    write_video(tmp_path / "videos" / "a.mp4", np.full((5, 16, 16, 3), 90, np.uint8), 8)
    assert cli.main(["import-videos", str(tmp_path / "videos"), "--out", str(tmp_path / "d"), "--size", "8", "8"]) == 0
    assert Dataset.open(tmp_path / "d").frame_size == (8, 8)
    assert cli.main(["import-videos", str(tmp_path / "none"), "--out", str(tmp_path / "e")]) == 2
    assert "no such folder" in capsys.readouterr().err
