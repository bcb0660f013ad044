"""The reader of single frames against the scenes they were drawn from, and the figures built on it."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs  # noqa: F401 - registers the worlds
from envs.bounce.env import BounceEnv
from worldsim.cli import card_bounce
from worldsim.cli.bounce_reader import Body, agreement, read_bodies
from worldsim.cli.card_figures import untrained
from worldsim.simulator import load

LEAST = float(np.pi * (0.8 * 6.4) ** 2)


@pytest.fixture(scope="module")
def world() -> BounceEnv:
    made = gym.make("envs:Bounce-v0").unwrapped
    assert isinstance(made, BounceEnv)
    return made


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_true_frames_are_read_as_they_were_drawn(seed: int, world: BounceEnv) -> None:
    frame, _ = world.reset(seed=seed)
    asked = [(s.colour, s.shape) for s in world.scene.solids]
    seen = read_bodies(frame, least_area_px=LEAST)
    assert agreement(seen, asked) == {"count": 1.0, "colours": 1.0, "bodies": 1.0}
    places = sorted((10.0 - s.position_m[1], s.position_m[0]) for s in world.scene.solids)
    found = sorted(((b.centre_px[0] + 0.5) / 6.4, (b.centre_px[1] + 0.5) / 6.4) for b in seen)
    np.testing.assert_allclose(found, places, atol=0.15)


def test_what_is_lost_doubled_or_changed_counts() -> None:
    def body(colour: str, shape: str) -> Body:
        return Body(colour=colour, shape=shape, centre_px=(0.0, 0.0), area_px=90.0)

    asked = [("red", "disc"), ("blue", "box")]
    red, blue = body("red", "disc"), body("blue", "box")
    assert agreement([red, blue], asked) == {"count": 1.0, "colours": 1.0, "bodies": 1.0}
    assert agreement([red], asked) == {"count": 0.0, "colours": 0.5, "bodies": 0.5}
    assert agreement([red, blue, red], asked) == {"count": 0.0, "colours": 2 / 3, "bodies": 2 / 3}
    assert agreement([red, body("blue", "disc")], asked) == {"count": 1.0, "colours": 1.0, "bodies": 0.5}
    assert agreement([], []) == {"count": 1.0, "colours": 1.0, "bodies": 1.0}
    assert agreement([], asked) == {"count": 0.0, "colours": 0.0, "bodies": 0.0}


def test_an_empty_frame_shows_nobody() -> None:
    assert read_bodies(np.full((64, 64, 3), 255, np.uint8), least_area_px=LEAST) == []


def test_figures_lie_beside_their_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    """True frames are the ceiling of text-following; a world that knows nothing errs more than the tracker."""
    monkeypatch.setattr(card_bounce, "PRESENT_AFTER", (2, 8))
    monkeypatch.setattr(card_bounce, "OUT_OF_DISTRIBUTION_FRAMES", 8)
    monkeypatch.setattr(card_bounce, "splits", lambda _: ("train", "ood_gravity"))
    found = {f.name: f for f in card_bounce.bounce_figures(untrained(load("bounce")), cases=2, seed=3)}
    assert all(np.isfinite([f.value, f.low, f.high]).all() for f in found.values())
    for aspect in ("as many bodies as asked for", "colours as asked for", "colours and shapes"):
        assert found[f"text-following, {aspect}, true frame (ceiling)"].value == 1.0
    for after in (2, 8):
        assert found[f"bodies present after {after} frames, none lost or doubled, true frames (ceiling)"].value == 1.0
    axes = [n for n in found if n.startswith("PSNR ")]
    assert axes == ["PSNR in distribution, over 8 frames", "PSNR out of distribution in gravity, over 8 frames"]
    for name, figure in found.items():
        if name.endswith("tracking floor"):
            dream = found[name.replace("tracking floor", "dream")].value
            assert figure.value < dream
            multiple = found[name.replace("tracking floor", "dream as a multiple of the floor")].value
            assert multiple == pytest.approx(dream / figure.value)
