"""Training on the camera's motion: what windows carry, what is dropped, and a run from record to rollout."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

import worldsim
from worldsim.camera import motion_range, scaled_motion
from worldsim.config import ModelConfig
from worldsim.data import Dataset, DatasetWriter
from worldsim.errors import CameraError, DatasetError
from worldsim.training import DynamicsConfig, TrainConfig, train
from worldsim.training.batches import LatentBatch
from worldsim.training.corpus import Corpus
from worldsim.training.data import LatentSource
from worldsim.training.losses import dynamics_loss
from worldsim.transformer import VideoDiT

LENGTHS = (15, 12, 13, 14, 15)


def write(path, *, camera=True, moves=1.0):
    """Panning over noise: frames and motions that belong together."""
    wall = np.random.default_rng(0).integers(0, 256, (32, 400, 3), np.uint8)
    with DatasetWriter(path, action_space=spaces.Discrete(5), fps=10) as writer:
        for i, steps in enumerate(LENGTHS):
            rng = np.random.default_rng(i)
            speed = rng.integers(-8, 9, steps)
            at = 200 + np.concatenate([[0], np.cumsum(speed)])
            frames = np.stack([wall[:, x : x + 32] for x in at])
            motion = np.zeros((steps, 6))
            motion[:, 1] = moves * 0.02 * speed
            writer.add_episode(frames, rng.integers(0, 5, steps), camera=motion if camera else None)
    return Dataset.open(path)


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> Dataset:
    return write(tmp_path_factory.mktemp("camera") / "seen")


@pytest.mark.parametrize("stride", [1, 4])
def test_windows_carry_the_motions_that_led_to_each_frame(seen: Dataset, config: TrainConfig, stride: int) -> None:
    config = replace(
        config,
        tokenizer=replace(config.tokenizer, temporal_stride=stride),
        dynamics=replace(config.dynamics, length=3),
    )
    ranges = Corpus([seen]).camera_range()
    assert ranges == pytest.approx((0, 0.16, 0, 0, 0, 0))
    source = LatentSource(seen, np.zeros((seen.num_frames, 4, 4, 4), np.float16), config, 1.0, ranges)
    found, raw = source.batch(0, torch.device("cpu")).camera, source._train.batch(0)
    assert found.shape == (3, 3, 6 * stride)
    for row, episode, start in zip(found, raw["episode"], raw["start"], strict=True):
        run = seen.episode(int(episode)).camera[start : start + 2 * stride]
        np.testing.assert_allclose(row[1:].reshape(-1, 6), scaled_motion(run, ranges), atol=1e-6)
    assert LatentSource(seen, source.latents, config, 1.0).batch(0, torch.device("cpu")).camera is None


def test_datasets_share_one_unit_and_may_lack_the_camera(seen: Dataset, tmp_path) -> None:
    corpus = Corpus([write(tmp_path / "plain", camera=False), seen, write(tmp_path / "fast", moves=2.0)])
    assert corpus.has_camera
    assert corpus.camera_range() == pytest.approx((0, 0.32, 0, 0, 0, 0))
    assert not Corpus([corpus.datasets[0]]).has_camera


def small(**changes) -> tuple[VideoDiT, LatentBatch]:
    torch.manual_seed(0)
    model = VideoDiT(ModelConfig(latent_channels=4, width=16, depth=2, heads=2, window=3, camera_dim=6, **changes))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    b, f = 3, 5
    batch = LatentBatch(
        latents=torch.randn(b, f, 4, 4, 4),
        actions=None,
        rewards=torch.zeros(b, f),
        terminated=torch.zeros(b, f, dtype=torch.bool),
        known=torch.arange(f).expand(b, f) > 0,
        texts=[None] * b,
        camera=torch.randn(b, f, 6),
    )
    return model, batch


@pytest.mark.parametrize("bidirectional", [0.0, 1.0])
def test_the_motion_is_dropped_as_often_as_asked_for_and_never_known_of_the_first_frame(bidirectional: float) -> None:
    model, batch = small()

    def gradients(drop: float, **changes: object) -> list[torch.Tensor]:
        model.zero_grad()
        config = DynamicsConfig(bidirectional=bidirectional, drop_camera=drop)
        given = replace(batch, **changes)
        dynamics_loss(model, given, config, torch.Generator().manual_seed(0), feedback=False)[0].backward()
        return [model.camera.weight.grad, model.no_camera.grad]

    told, absent = gradients(0.0)
    assert told.abs().sum() > 0
    assert absent.abs().sum() > 0  # of the first frame
    first = batch.camera.clone()
    first[:, 0] += 5.0
    for a, b in zip((told, absent), gradients(0.0, camera=first), strict=True):
        torch.testing.assert_close(a, b)
    assert not gradients(1.0)[0].abs().sum() > 0
    assert gradients(0.0, camera=None)[0] is None  # windows of a dataset that does not know


def test_a_world_learns_to_take_the_camera_alone(seen: Dataset, config: TrainConfig, tmp_path) -> None:
    """Recorded with actions and motions, trained on motions: a world without actions that is stepped by its camera."""
    config = replace(config, data=str(seen.path), actions=False, optimiser=replace(config.optimiser, steps=2))
    sim = worldsim.load(train(config, out=tmp_path / "run", show_progress=False))
    assert sim.action_space is None
    assert sim.camera_range == pytest.approx(motion_range(seen.read("camera")))
    assert (sim.model.config.action_dim, sim.model.config.camera_dim) == (0, 6)
    assert sim.rollout(camera=np.zeros((2, 6))).shape == (3, 32, 32, 3)
    further = replace(config, start=str(tmp_path / "run" / "checkpoint"))
    plain = write(tmp_path / "plain", camera=False)
    with pytest.raises(DatasetError, match="--camera"):
        train(replace(further, data=str(plain.path)), out=tmp_path / "again", show_progress=False)
    away = replace(config, camera=False, actions=True, optimiser=replace(config.optimiser, steps=1))
    blind = worldsim.load(train(away, out=tmp_path / "blind", show_progress=False))
    assert (blind.camera_range, blind.action_space) == (None, seen.action_space)
    with pytest.raises(CameraError, match="takes none"):
        blind.rollout(camera=np.zeros((2, 6)))
