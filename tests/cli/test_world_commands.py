"""The commands that train and run learned worlds, from a dataset to videos, through the command line."""

import importlib
import json
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import tyro

import envs  # noqa: F401 - registers the worlds
from worldsim.checkpoint import load_checkpoint
from worldsim.cli import COMMANDS, main
from worldsim.data import record
from worldsim.video import read_video, write_video

CHANGES = [
    "tokenizer_optimiser.steps=3",
    "optimiser.steps=3",
    "optimiser.batch_size=2",
    "model.width=16",
    "model.window=3",
    "model.text.max_tokens=64",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    record(
        "envs:Bounce-v0",
        episodes=3,
        seed=0,
        path=root / "data",
        max_steps=10,
        truth=False,
        progress=False,
        size=(32, 32),
    )
    arguments = ["train", "tiny", "--data", str(root / "data"), "--out", str(root / "run"), "--no-progress"]
    assert main([*arguments, "--set", *CHANGES]) == 0
    return root / "run" / "checkpoint"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.npz"
    write_video(path, np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), np.uint8), 10.0)
    return path


def test_changes_on_the_command_line_reach_the_checkpoint(world: Path) -> None:
    config = load_checkpoint(world).model.config
    assert (config.width, config.window, config.text.max_tokens) == (16, 3, 64)


def test_show_prints_the_configuration_and_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", "tiny", "--data", "nowhere", "--out", str(out), "--show", "--set", "seed=7"]) == 0
    assert '"seed": 7' in capsys.readouterr().out
    assert not out.exists()


def test_an_option_that_is_given_again_adds_to_what_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["--set", "seed=7", "optimiser.steps=3", "--set", "model.width=64", "-s", "seed=8"]
    assert main(["train", "tiny", "--data", "nowhere", "--show", *changes]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["seed"], shown["optimiser"]["steps"], shown["model"]["width"]) == (8, 3, 64)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_no_command_forgets_earlier_values_of_an_option(name: str) -> None:
    options = importlib.import_module(COMMANDS[name][0]).Options
    for field, hint in get_type_hints(options, include_extras=True).items():
        plain = get_type_hints(options)[field]
        if get_args(plain)[1:] != (Ellipsis,):
            continue  # one value, or a fixed number of them
        marks = {mark for layer in (hint, *get_args(hint)) for mark in getattr(layer, "__metadata__", ())}
        assert {tyro.conf.UseAppendAction, tyro.conf.Positional[int].__metadata__[0]} & marks, field


def test_rollout_writes_what_was_asked_for(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.npz"
    assert (
        main(["rollout", str(world), "--frames", "5", "--actions", "1,2,0", "--text", "a ball", "--out", str(out)]) == 0
    )
    frames, fps = read_video(out)
    assert frames.shape == (6, 32, 32, 3)
    assert fps == 10.0
    again = tmp_path / "b.npz"
    main(["rollout", str(world), "--frames", "5", "--actions", "1,2,0", "--text", "a ball", "--out", str(again)])
    np.testing.assert_array_equal(read_video(again)[0], frames)


def test_rollout_goes_on_from_a_video(world: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "on.npz"
    assert main(["rollout", str(world), "--frames", "4", "--start", str(clip), "--out", str(out)]) == 0
    frames, _ = read_video(out)
    np.testing.assert_array_equal(frames[:3], read_video(clip)[0][-3:])  # the window's worth


def test_generate_extend_connect_and_edit(world: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    for command, count in (
        (["generate", "a red ball", "--frames", "4"], 4),
        (["extend", str(clip), "--frames", "3"], 9),
        (["extend", str(clip), "--frames", "3", "--backward"], 9),
        (["connect", str(clip), str(clip), "--frames", "2"], 14),
        (["edit", str(clip), "--text", "a blue box"], 6),
        (["edit", str(clip), "--text", "a blue box", "--guidance", "2", "--steps", "3"], 6),
    ):
        assert main([*command, "--checkpoint", str(world), "--out", str(out)]) == 0, command
        assert len(read_video(out)[0]) == count, command
        out.unlink()


def test_info_describes_everything(world: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for what, said in (([], "1b"), ([str(world)], "Discrete(5)"), ([str(clip)], "(6, 32, 32, 3)")):
        assert main(["info", *what]) == 0
        assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["train", "tinny", "--data", "x"], "'tiny'"),
        (["train", "tiny", "--data", "x", "--set", "optimizer.steps=3"], "'optimiser'"),
        (["train", "tiny", "--data", "x", "--set", "seed"], "FIELD=VALUE"),
        (["train", "tiny", "--data", "/nowhere/at/all"], "dataset"),
        (["rollout", "/nowhere/at/all"], "checkpoint"),
        (["info", "/nowhere/at/all"], "checkpoint"),
    ],
)
def test_mistakes_exit_with_two_and_leave_nothing(
    arguments: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert hint in capsys.readouterr().err
    assert not list(tmp_path.rglob("*"))


def test_an_action_outside_the_space_is_refused_before_anything_is_written(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.mp4"
    assert main(["rollout", str(world), "--frames", "3", "--actions", "9", "--out", str(out)]) == 2
    assert "action" in capsys.readouterr().err
    assert not out.exists()
