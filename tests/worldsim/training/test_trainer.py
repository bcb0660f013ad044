"""Whole runs: they learn, resume exactly after a kill, and stop with a named error when they must."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import worldsim
from worldsim.data import Dataset, record
from worldsim.errors import DatasetError, FramesError, TrainingError
from worldsim.training import TrainConfig, train
from worldsim.training import trainer as trainer_module
from worldsim.training.run import open_run
from worldsim.training.team import Team


def weights(checkpoint: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in checkpoint.glob("*.safetensors")}


RESUME = """
import json, sys
from worldsim.training import TrainConfig, train
train(TrainConfig.from_dict(json.loads(sys.argv[1])), out=sys.argv[2], resume=True, show_progress=False)
"""


def test_training_ends_in_a_loadable_world(config: TrainConfig, tmp_path: Path) -> None:
    checkpoint = train(config, out=tmp_path / "run", show_progress=False)
    simulator = worldsim.load(checkpoint)
    assert simulator.frame_size == (32, 32)
    assert simulator.rollout(actions=[0, 1, 2, 3, 4], text="a red ball", seed=1).shape == (6, 32, 32, 3)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {line["phase"] for line in lines} == {"tokenizer", "dynamics"}
    assert all(np.isfinite(v) for line in lines for v in line.values() if isinstance(v, float))


def test_training_improves_held_out_reconstructions(config: TrainConfig, tmp_path: Path) -> None:
    longer = replace(
        config, tokenizer_optimiser=replace(config.tokenizer_optimiser, steps=60, rate=3e-3), evaluate_every=20
    )
    train(longer, out=tmp_path / "run", show_progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    psnr = [line["held_psnr_db"] for line in lines if "held_psnr_db" in line]
    assert psnr[-1] > psnr[0] + 1.0


def test_two_runs_are_equal_bit_for_bit(config: TrainConfig, tmp_path: Path) -> None:
    first, second = (weights(train(config, out=tmp_path / name, show_progress=False)) for name in ("a", "b"))
    assert first == second


def test_a_killed_run_resumes_bit_for_bit(saving: TrainConfig, tmp_path: Path) -> None:
    whole = weights(train(saving, out=tmp_path / "whole", show_progress=False))
    out = tmp_path / "killed"
    argument = json.dumps(saving.to_dict())
    command = [sys.executable, "-c", RESUME, argument, str(out)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    # Killed somewhere in the middle of the dynamics phase, most likely while it saves.
    while time.monotonic() < deadline and not any(out.glob("dynamics/step-0000000[2-6]")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "checkpoint").exists()
    assert weights(train(saving, out=out, resume=True, show_progress=False)) == whole


def test_a_run_directory_is_not_overwritten(config: TrainConfig, tmp_path: Path) -> None:
    train(config, out=tmp_path / "run", show_progress=False)
    with pytest.raises(TrainingError, match="resume"):
        train(config, out=tmp_path / "run", show_progress=False)


def test_resuming_with_another_configuration_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    train(config, out=tmp_path / "run", show_progress=False)
    with pytest.raises(TrainingError, match="seed"):
        train(replace(config, seed=9), out=tmp_path / "run", resume=True, show_progress=False)


def test_a_run_can_be_prolonged(config: TrainConfig, tmp_path: Path) -> None:
    train(config, out=tmp_path / "run", show_progress=False)
    longer = replace(config, optimiser=replace(config.optimiser, steps=10))
    train(longer, out=tmp_path / "run", resume=True, show_progress=False)
    assert (tmp_path / "run" / "dynamics" / "step-00000010").exists()


def test_a_directory_in_use_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    with (
        open_run(tmp_path / "run", config, Team(device=torch.device("cpu")), resume=False),
        pytest.raises(TrainingError, match="another process"),
    ):
        train(config, out=tmp_path / "run", resume=True, show_progress=False)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    saving: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = trainer_module.dynamics_loss
    count = 0

    def breaks_at_the_fourth(*args: object, **kwargs: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        nonlocal count
        count += 1
        loss, parts = honest(*args, **kwargs)
        return (loss * float("nan") if count == 4 else loss), parts

    monkeypatch.setattr(trainer_module, "dynamics_loss", breaks_at_the_fourth)
    with pytest.raises(TrainingError, match="update 3"):
        train(saving, out=tmp_path / "run", show_progress=False)
    assert [p.name for p in (tmp_path / "run" / "dynamics").iterdir()] == ["step-00000003"]


def test_frames_that_do_not_fit_the_stride_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    odd = record(
        "envs:Bounce-v0",
        episodes=2,
        seed=0,
        path=tmp_path / "odd",
        max_steps=8,
        truth=False,
        progress=False,
        size=(24, 24),
    )
    with pytest.raises(FramesError, match="multiples of 16"):
        train(replace(config, data=str(odd.path)), out=tmp_path / "run", show_progress=False)


def test_a_missing_or_too_small_dataset_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        train(replace(config, data=str(tmp_path / "nowhere")), out=tmp_path / "run", show_progress=False)
    single = record(
        "envs:Bounce-v0",
        episodes=1,
        seed=0,
        path=tmp_path / "one",
        max_steps=8,
        truth=False,
        progress=False,
        size=(32, 32),
    )
    with pytest.raises(DatasetError, match="two episodes"):
        train(replace(config, data=str(single.path)), out=tmp_path / "run2", show_progress=False)


def test_temporal_stride_four_trains_and_steps(dataset: Dataset, config: TrainConfig, tmp_path: Path) -> None:
    strided = replace(
        config,
        tokenizer=replace(config.tokenizer, temporal_stride=4),
        dynamics=replace(config.dynamics, length=3),
    )
    simulator = worldsim.load(train(strided, out=tmp_path / "run", show_progress=False))
    frames = dataset.episode(0).frames[:5]
    assert simulator.rollout(frames=frames, actions=[1] * 8).shape == (13, 32, 32, 3)
