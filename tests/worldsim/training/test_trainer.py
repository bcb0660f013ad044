"""Whole runs: they learn, resume exactly after a kill, and stop with a named error when they must."""

import errno
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

import worldsim
from worldsim.config import ForecastConfig
from worldsim.data import Dataset, record
from worldsim.errors import DatasetError, FramesError, TrainingError
from worldsim.training import OptimiserConfig, TrainConfig, dynamics_phase, read_metrics, train
from worldsim.training import data as data_module
from worldsim.training import learner as learner_module
from worldsim.training.checks import check_same_data
from worldsim.training.corpus import Corpus
from worldsim.training.data import LatentSource
from worldsim.training.learner import Learner
from worldsim.training.log import METRICS, Log
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


def killed_at(state: str, command: list[str], out: Path) -> None:
    """Runs the command until it has saved such a state, and kills it, most likely while it saves another."""
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(out.glob(state)):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "checkpoint").exists()


def test_a_killed_run_resumes_bit_for_bit(saving: TrainConfig, tmp_path: Path) -> None:
    saving = replace(
        saving,
        model=replace(saving.model, source="forecast", forecast=ForecastConfig(frames=2, width=8, depth=1)),
        forecast_optimiser=OptimiserConfig(steps=8, batch_size=4, warmup=2),
    )
    whole = weights(train(saving, out=tmp_path / "whole", show_progress=False))
    out = tmp_path / "killed"
    argument = json.dumps(saving.to_dict())
    command = [sys.executable, "-c", RESUME, argument, str(out)]
    killed_at("forecast/step-0000000[2-6]", command, out)
    killed_at("dynamics/step-0000000[2-6]", command, out)
    with (out / "metrics.jsonl").open("a") as stream:
        stream.write('{"phase": "dynamics", "st')  # killed while it logs
    assert weights(train(saving, out=out, resume=True, show_progress=False)) == whole
    last = [line["step"] for line in read_metrics(out) if line["phase"] == "dynamics"][-1]
    assert last == saving.optimiser.steps


@given(st.integers(0, 120))
@settings(max_examples=40, deadline=None)
def test_a_line_of_metrics_cut_short_is_neither_read_nor_glued_to_the_next(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        lines = [{"phase": "dynamics", "step": step, "loss": step / 7} for step in range(3)]
        with Log(run, tensorboard=False) as log:
            for line in lines:
                log(**line)
        written = (run / METRICS).read_bytes()
        (run / METRICS).write_bytes(written[:cut])
        left = lines[: written[:cut].count(b"\n")]
        assert read_metrics(run) == left
        with Log(run, tensorboard=False) as log:
            log(**lines[-1])
        assert read_metrics(run) == [*left, lines[-1]]


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
    saving: TrainConfig, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = dynamics_phase.dynamics_loss
    count = 0

    def breaks_at_the_fourth(*args: object, **kwargs: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        nonlocal count
        count += 1
        loss, parts = honest(*args, **kwargs)
        return (loss * float("nan") if count == 4 else loss), parts

    monkeypatch.setattr(dynamics_phase, "dynamics_loss", breaks_at_the_fourth)
    raw = LatentSource(dataset, np.zeros((dataset.num_frames, 4, 4, 4), np.float16), saving, 1.0)._train.batch(3)
    which = f"{raw['episode'][0]}:{raw['start'][0]}, {raw['episode'][1]}:{raw['start'][1]}"
    with pytest.raises(TrainingError, match=f"update 3.*{which}"):
        train(saving, out=tmp_path / "run", show_progress=False)
    assert [p.name for p in (tmp_path / "run" / "dynamics").iterdir()] == ["step-00000003"]


def test_gradients_that_are_not_finite_change_nothing(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 1)
    settings = OptimiserConfig(steps=3, batch_size=1, warmup=0)
    alone = Team(device=torch.device("cpu"))
    learner = Learner(network, lambda net, x: (net(x).sum(), {}), settings, tmp_path, alone)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    learner.objective(torch.tensor([[float("inf"), 1.0]]))[0].backward()
    with pytest.raises(TrainingError, match="update 0"):
        learner.update()
    assert learner.step == 0
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        # What safetensors raises on a full file system.
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["system", "safetensors"],
)
def test_a_full_disk_is_named_and_the_last_state_stays(
    saving: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    honest = learner_module.save_file

    def full_at_the_third(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if int(tensors["step"]) == 3:
            path.write_bytes(b"half a file")
            raise error
        honest(tensors, path)

    monkeypatch.setattr(learner_module, "save_file", full_at_the_third)
    with pytest.raises(TrainingError, match="space on the disk"):
        train(saving, out=tmp_path / "run", show_progress=False)
    assert [p.name for p in (tmp_path / "run" / "tokenizer").iterdir()] == ["step-00000002"]


def test_space_for_latents_is_taken_before_they_are_written(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(data_module.os, "posix_fallocate", full)
    brief = replace(config, tokenizer_optimiser=replace(config.tokenizer_optimiser, steps=1))
    with pytest.raises(TrainingError, match="space on the disk"):
        train(brief, out=tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run" / "latents.npy").exists()


def test_a_run_does_not_go_on_with_other_data(dataset: Dataset, tmp_path: Path) -> None:
    other = record("envs:Bounce-v0", episodes=2, seed=1, path=tmp_path / "other", max_steps=8, truth=False)
    (tmp_path / "run").mkdir()
    for _ in range(2):
        check_same_data(tmp_path / "run", Corpus([dataset]))
    with pytest.raises(DatasetError, match="began with"):
        check_same_data(tmp_path / "run", Corpus([other]))
    with pytest.raises(DatasetError, match="began with"):
        check_same_data(tmp_path / "run", Corpus([dataset, other]))


def test_a_batch_that_cannot_be_shared_is_refused_before_training(config: TrainConfig, tmp_path: Path) -> None:
    odd = replace(config, optimiser=replace(config.optimiser, batch_size=3, accumulate=2))
    with pytest.raises(TrainingError, match="multiple of 2"):
        train(odd, out=tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run" / "tokenizer").exists()


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
