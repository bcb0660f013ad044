"""Figures of a world learned from Room: what is measured on the truth is known beforehand."""

import numpy as np
import pytest

import worldsim
from worldsim.cli import card_room
from worldsim.cli.card_figures import CEILING_DB
from worldsim.cli.demo_cases import GIVEN


@pytest.fixture(scope="module")
def figures(tiny_room):
    return {f.name: f for f in card_room.room_figures(worldsim.load(tiny_room), cases=2, seed=0)}


def test_truth_is_coherent_and_an_untrained_dream_is_not(figures):
    outliers = {k.split(", ")[1]: f.value for k, f in figures.items() if k.startswith("residual-flow")}
    # Frames of 32 px are enlarged eight times to measure flow: even true ones are not perfect.
    assert outliers["true frames"] < 0.1
    assert outliers["dream"] > 0.5
    avoided = {k.split(", ")[1]: f.value for k, f in figures.items() if k.startswith("camera error")}
    assert avoided["true frames"] > avoided["dream"] + 0.3


def test_a_dream_that_is_the_truth_returns_perfectly(tiny_room, monkeypatch):
    # Turning left and right again ends on the very frame it began with: nothing moves but the camera.
    simulator = worldsim.load(tiny_room)
    monkeypatch.setattr(card_room, "dream", lambda simulator, episodes, seed: np.stack([e.frames for e in episodes]))
    found = card_room.returning(simulator, cases=1, seed=0, rng=np.random.default_rng(0))
    values = {f.name.split(" by ")[0] + f.name.rsplit(",", 1)[1]: f.value for f in found}
    assert values["PSNR returned dream"] == CEILING_DB
    assert values["PSNR turned away dream"] == CEILING_DB
    assert values["PSNR turned away last frame repeated"] < 60
    turns = (simulator.checkpoint.model.config.window - GIVEN) // 2
    episode = card_room._film((32, 32), np.array([0] * (GIVEN - 1) + [5] * turns + [6] * turns), 3)
    assert np.array_equal(episode.frames[GIVEN - 1], episode.frames[-1])
    assert not np.array_equal(episode.frames[GIVEN - 1], episode.frames[GIVEN - 1 + turns])
