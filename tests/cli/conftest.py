"""Small untrained worlds: what is shown and written does not depend on how good a world is."""

import pytest
import torch
from gymnasium import spaces

from worldsim.checkpoint import Checkpoint, save_checkpoint
from worldsim.config import ModelConfig, TextConfig, TokenizerConfig
from worldsim.tokenizer import build_tokenizer
from worldsim.transformer import VideoDiT


def save_world(path, *, actions, size=(32, 32), window=6, camera=False):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(TokenizerConfig(latent_channels=4, width=8, encoder_depth=1, decoder_depth=1))
    config = ModelConfig(
        latent_channels=4,
        width=32,
        depth=2,
        heads=2,
        window=window,
        action_dim=actions,
        camera_dim=6 * camera,
        text=TextConfig(buckets=64, slots=4),
    )
    checkpoint = Checkpoint(
        tokenizer=tokenizer.eval(),
        model=VideoDiT(config).eval(),
        action_space=spaces.Discrete(actions),
        fps=10.0,
        frame_size=size,
        camera_range=(0.1, 0.1, 0.1, 0.2, 0.2, 0.2) if camera else None,
        meta={"data": {"episodes": 0}},
    )
    return save_checkpoint(checkpoint, path, card="# A tiny world\n\nUntrained.\n")


@pytest.fixture(scope="session")
def tiny_bounce(tmp_path_factory):
    return save_world(tmp_path_factory.mktemp("worlds") / "tiny_bounce", actions=5)


@pytest.fixture(scope="session")
def tiny_room(tmp_path_factory):
    return save_world(tmp_path_factory.mktemp("worlds") / "tiny_room", actions=9)
