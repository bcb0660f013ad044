"""What a run measures and keeps while it trains, against independent computations."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import worldsim
from worldsim.checkpoint import load_checkpoint
from worldsim.data import Dataset
from worldsim.sampling import Sampling
from worldsim.training import EvaluationConfig, TrainConfig, train
from worldsim.training.data import split_episodes
from worldsim.training.log import NOTICE
from worldsim.training.rollouts import Dreams, HeldOutClips, psnr
from worldsim.video import read_video

# What config.json held before there were further fields.
FIRST_FIELDS = {
    "": "data tokenizer model tokenizer_optimiser optimiser dynamics held_out seed precision compile device threads "
    "log_every save_minutes evaluate_every",
    "optimiser": "steps batch_size rate warmup decay weight_decay clip ema",
    "tokenizer_optimiser": "steps batch_size rate warmup decay weight_decay clip ema",
    "dynamics": "length level_mean level_std pure_noise weight_floor context_noise context_clean feedback drop_text "
    "drop_action bidirectional reward_weight termination_weight",
}


def lines_of(run: Path) -> list[dict[str, float | str]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def evaluations(run: Path) -> dict[int, dict[str, float]]:
    """Numbers of the transformer on held-out episodes, by update."""
    return {x["step"]: x for x in lines_of(run) if x["phase"] == "dynamics" and "held_denoising" in x}


@pytest.fixture(scope="session")
def evaluated(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory, session_config: TrainConfig) -> Path:
    """A finished run that evaluated its transformer after 4 and 8 updates."""
    path = tmp_path_factory.mktemp("evaluated")
    train(session_config, out=path, show_progress=False)
    return path


@given(offset=st.integers(1, 200))
@settings(max_examples=20, deadline=None)
def test_psnr_of_a_constant_error_is_its_closed_form(offset: int) -> None:
    truth = np.full((2, 3, 4, 4, 3), 20, np.uint8)
    expected = 20 * np.log10(255 / offset)
    np.testing.assert_allclose(psnr(truth + np.uint8(offset), truth), np.full((2, 3), expected), rtol=1e-5)


def test_numbers_are_those_of_the_frames_at_each_horizon() -> None:
    rng = np.random.default_rng(0)
    truth, dream = (rng.integers(0, 256, (3, 8, 8, 8, 3), dtype=np.uint8) for _ in range(2))
    numbers = Dreams(truth=truth, dream=dream, given=2, stride=1).numbers()

    def errors(a: np.ndarray, b: np.ndarray) -> float:
        return np.mean([20 * np.log10(255 / np.sqrt(((x - y) ** 2).mean())) for x, y in zip(a, b, strict=True)])

    true, made = truth.astype(float), dream.astype(float)
    assert numbers["psnr_1_db"] == pytest.approx(errors(made[:, 2], true[:, 2]), rel=1e-5)
    assert numbers["psnr_4_db"] == pytest.approx(errors(made[:, 5], true[:, 5]), rel=1e-5)
    assert numbers["still_4_db"] == pytest.approx(errors(true[:, 1], true[:, 5]), rel=1e-5)
    assert "psnr_16_db" not in numbers
    strided = Dreams(truth=truth[:, :6], dream=dream[:, :6], given=2, stride=4).numbers()
    assert strided["psnr_1_db"] == pytest.approx(errors(made[:, 5], true[:, 5]), rel=1e-5)
    assert Dreams(truth=truth, dream=truth, given=2, stride=1).numbers()["psnr_db"] == 60.0


def test_dreams_are_the_rollouts_of_the_simulator(dataset: Dataset, evaluated: Path, config: TrainConfig) -> None:
    world = load_checkpoint(evaluated / "checkpoint")
    config = replace(config, evaluation=EvaluationConfig(clips=3, given=3, horizon=5, steps=2))
    held = split_episodes(dataset, config.held_out)[1]
    clips = HeldOutClips(dataset, held, config)
    dreams = clips.dream(world)
    assert dreams.dream.shape == (3, 8, 32, 32, 3)
    simulator = worldsim.load(evaluated / "checkpoint", sampling=Sampling(steps=2))
    for row in range(3):
        episode = dataset.episode(int(clips._batch["episode"][row]))
        begin = int(clips._batch["start"][row])
        np.testing.assert_array_equal(dreams.truth[row], episode.frames[begin : begin + 8])
        actions = np.asarray(episode.actions)[begin : begin + 7]
        alone = simulator.rollout(
            frames=episode.frames[begin : begin + 3],
            past_actions=actions[:2],
            actions=actions[2:],
            text=episode.caption,
            seed=row,
        )
        np.testing.assert_allclose(dreams.dream[row].astype(int), alone.astype(int), atol=1)


def test_a_run_keeps_its_best_checkpoint_and_sample_videos(evaluated: Path, dataset: Dataset) -> None:
    measured = evaluations(evaluated)
    assert sorted(measured) == [4, 8]
    meta = load_checkpoint(evaluated / "checkpoint_best").meta
    best = max(measured.values(), key=lambda line: line["held_psnr_db"])
    assert meta["evaluation"]["step"] == best["step"]
    # What is kept are the weights that were measured.
    clips = HeldOutClips(dataset, split_episodes(dataset, 0.2)[1], TrainConfig.from_dict(meta["training"]))
    numbers = clips.dream(load_checkpoint(evaluated / "checkpoint_best")).numbers()
    assert numbers["psnr_db"] == pytest.approx(best["held_psnr_db"], abs=1e-3)
    frames, fps = read_video(evaluated / "samples" / "step-00000008.mp4")
    # Two clips beside each other, truth above dream, enlarged four times.
    assert frames.shape == (clips.given + clips.steps, 2 * 128, 2 * 128, 3)
    assert fps == dataset.fps


def test_event_files_carry_the_numbers_of_metrics_jsonl(evaluated: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(evaluated / "tensorboard"))
    events.Reload()
    found = {(e.step, round(e.value, 4)) for e in events.Scalars("dynamics/held_psnr_db")}
    assert found == {(x["step"], round(x["held_psnr_db"], 4)) for x in evaluations(evaluated).values()}


def test_without_tensorboard_one_line_says_so(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train(replace(config, tensorboard=True), out=tmp_path / "run", show_progress=False)
    assert capsys.readouterr().err.count(NOTICE) == 1
    assert lines_of(tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_without_rollouts_the_lowest_loss_is_best(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, evaluation=EvaluationConfig(clips=0)), out=tmp_path / "run", show_progress=False)
    losses = {step: x["held_denoising"] for step, x in evaluations(tmp_path / "run").items()}
    kept = load_checkpoint(tmp_path / "run" / "checkpoint_best").meta["evaluation"]
    assert losses[kept["step"]] == min(losses.values())
    assert not (tmp_path / "run" / "samples").exists()


def test_a_run_of_the_first_version_resumes(config: TrainConfig, tmp_path: Path) -> None:
    train(config, out=tmp_path / "run", show_progress=False)
    file = tmp_path / "run" / "config.json"
    data = json.loads(file.read_text())
    for place, names in FIRST_FIELDS.items():
        inside = data[place] if place else data
        for name in set(inside) - set(names.split()):
            del inside[name]
    file.write_text(json.dumps(data))
    longer = replace(config, optimiser=replace(config.optimiser, steps=9))
    train(longer, out=tmp_path / "run", resume=True, show_progress=False)
    assert (tmp_path / "run" / "dynamics" / "step-00000009").exists()
