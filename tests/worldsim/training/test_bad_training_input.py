"""What a run cannot work with is named before anything is trained, and a run that stops loses nothing."""

import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worldsim.config import ForecastConfig
from worldsim.data import Dataset, DatasetWriter
from worldsim.errors import ConfigError, DatasetError, TrainingError
from worldsim.training import DynamicsConfig, OptimiserConfig, TrainConfig, train
from worldsim.training.memory import keep_freed_memory


def written(path: Path, like: Dataset, lengths: list[int]) -> str:
    """A dataset of noise with as many steps in its episodes."""
    rng = np.random.default_rng(0)
    with DatasetWriter(path, action_space=like.action_space, fps=like.fps) as writer:
        for steps in lengths:
            frames = rng.integers(0, 255, (steps + 1, 32, 32, 3), np.uint8)
            writer.add_episode(frames, np.zeros(steps, np.int64))
    return str(path)


@pytest.mark.parametrize(
    ("lengths", "stride", "words"),
    [
        ([2, 3, 9], 1, "episodes 0 to 1 .* longest of 4"),  # only the episode held out is long enough
        ([9, 9, 3], 1, "episodes 2 to 2 .* longest of 4"),
        ([15, 15, 18], 4, "at least 17 frames"),
    ],
)
def test_short_episodes_are_refused_before_anything_is_trained(
    lengths: list[int], stride: int, words: str, dataset: Dataset, config: TrainConfig, tmp_path: Path
) -> None:
    data = written(tmp_path / "data", dataset, lengths)
    tokenizer = replace(config.tokenizer, temporal_stride=stride)
    with pytest.raises(DatasetError, match=words):
        train(replace(config, data=data, tokenizer=tokenizer), out=tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()


def test_episodes_too_short_for_the_forecast_are_refused(dataset: Dataset, config: TrainConfig, tmp_path: Path) -> None:
    data = written(tmp_path / "data", dataset, [9, 9, 4])
    model = replace(config.model, window=4, source="forecast", forecast=ForecastConfig(frames=4, width=8, depth=1))
    taught = OptimiserConfig(steps=2, batch_size=2)
    with pytest.raises(DatasetError, match="at least 6 frames, to train the forecast"):
        train(replace(config, data=data, model=model, forecast_optimiser=taught), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["banana", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device: str, config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=device):
        train(replace(config, device=device), out=tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()


def test_a_file_where_the_run_should_be_is_named_and_kept(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    for out in (tmp_path / "run", tmp_path / "run" / "inside"):
        with pytest.raises(TrainingError, match="a file in its place"):
            train(config, out=out, show_progress=False)
    assert (tmp_path / "run").read_text() == "mine"


def test_a_disk_that_is_full_from_the_first_line_is_named(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").symlink_to("/dev/full")  # which answers every writer as a full disk does
    with pytest.raises(TrainingError, match="space on the disk"):
        train(config, out=tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_what_is_damaged_in_a_run_is_named(saving: TrainConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    brief = replace(saving, optimiser=replace(saving.optimiser, steps=1))
    train(brief, out=out, show_progress=False)
    state = next(out.glob("dynamics/step-*/state.safetensors"))
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=r"damaged file.*step-00000001"):
        train(brief, out=out, resume=True, show_progress=False)
    (out / "config.json").write_text('{"seed": ')
    with pytest.raises(TrainingError, match="configuration of a run"):
        train(brief, out=out, resume=True, show_progress=False)


@pytest.mark.parametrize(
    "change",
    [
        {"length": 0},
        {"events": 1.5},
        {"feedback": -0.1},
        {"feedback_depth": 0},
        {"pure_noise": float("nan")},
        {"lengths": (4, 0)},
        {"reward_weight": -1.0},
    ],
    ids=str,
)
def test_objectives_out_of_range_are_named(change: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        DynamicsConfig(**change)


@pytest.mark.parametrize(
    "change", [{"log_every": 0}, {"evaluate_every": 0}, {"held_out": 1.5}, {"workers": -1}], ids=str
)
def test_runs_out_of_range_are_named(change: dict, config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(config, **change)


@pytest.mark.parametrize("change", [{"ema": 1.5}, {"clip": -1.0}, {"decay": float("nan")}], ids=str)
def test_optimisers_out_of_range_are_named(change: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        OptimiserConfig(steps=1, batch_size=1, **change)


def test_memory_that_is_freed_is_kept() -> None:
    if not keep_freed_memory():
        pytest.skip("not GNU's C library")

    def touch() -> None:
        np.empty(48 << 20, np.uint8).fill(1)  # above the largest size that the library would keep of itself

    touch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        touch()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 4 * (48 << 20) / 2**21 / 2  # not even half as many as there are large pages
