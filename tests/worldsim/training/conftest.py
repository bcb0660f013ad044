"""A tiny dataset and configuration that train in seconds."""

from dataclasses import replace

import pytest

import envs  # noqa: F401 - registers the worlds
from worldsim.config import ModelConfig, TextConfig, TokenizerConfig
from worldsim.data import Dataset, record
from worldsim.training import DynamicsConfig, EvaluationConfig, OptimiserConfig, TrainConfig


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("data") / "bounce"
    return record(
        "envs:Bounce-v0", episodes=5, seed=3, path=path, max_steps=15, truth=False, progress=False, size=(32, 32)
    )


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Frames of another size, in shorter episodes."""
    path = tmp_path_factory.mktemp("wide") / "bounce"
    return record(
        "envs:Bounce-v0", episodes=3, seed=8, path=path, max_steps=7, truth=False, progress=False, size=(16, 48)
    )


@pytest.fixture(scope="session")
def session_config(dataset: Dataset) -> TrainConfig:
    """Evaluates as real runs do."""
    return TrainConfig(
        data=str(dataset.path),
        tokenizer=TokenizerConfig(latent_channels=4, width=8, encoder_depth=1, decoder_depth=1),
        model=ModelConfig(
            latent_channels=4, width=16, depth=2, heads=2, window=3, text=TextConfig(buckets=32, slots=2)
        ),
        tokenizer_optimiser=OptimiserConfig(steps=6, batch_size=4, warmup=2),
        optimiser=OptimiserConfig(steps=8, batch_size=3, method="muon", warmup=2),
        dynamics=DynamicsConfig(length=5),
        held_out=0.2,
        log_every=2,
        evaluate_every=4,
        threads=1,
        device="cpu",
        evaluation=EvaluationConfig(clips=3, given=2, horizon=16, videos=2),
    )


@pytest.fixture
def config(session_config: TrainConfig) -> TrainConfig:
    """Rolls one short clip out, so that tests of other matters stay fast."""
    return replace(session_config, evaluation=EvaluationConfig(clips=1, horizon=2, videos=0), tensorboard=False)


@pytest.fixture
def saving(config: TrainConfig) -> TrainConfig:
    """Saves after every update."""
    return replace(config, save_minutes=0.0)
