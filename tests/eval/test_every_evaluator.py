"""What every evaluator must do with whatever clip it is given."""

import json

import numpy as np
import pytest
from worlds import BLUE, RED, Ball, draw, simulate

from eval import Clip
from eval.physics.motion import clear_cache
from eval.score import Score
from eval.suite import load_evaluators

EVERY = load_evaluators()
SUITES = {"physics", "geometry", "fidelity", "control", "quality"}


def truth_of(frames, moving=True):
    """Everything that a world could tell, in the right shapes; the camera pans where `moving`."""
    t, h, w = frames.shape[:3]
    pose = np.tile(np.eye(4), (t, 1, 1))
    pose[:, 0, 3] = 0.05 * np.arange(t) * moving
    K = np.array([[float(w), 0, w / 2], [0, float(w), h / 2], [0, 0, 1]])
    return {
        "segmentation": np.zeros((t, h, w), np.int16),
        "depth_m": np.full((t, h, w), 4.0, np.float32),
        "normals": np.tile(np.float32([0, 0, -1]), (t, h, w, 1)),
        "world_from_camera": pose,
        "K": K,
        "position_m": np.zeros((t, 2, 3)),
        "world_from_object": np.tile(np.eye(4), (t, 2, 1, 1)),
        "object_velocity": np.zeros((t, 2, 6)),
        "present": np.ones((t, 2), bool),
    }


def noise(t, h, w, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (t, h, w, 3), dtype=np.uint8)


def world():
    balls = [Ball(14, 20, 1.4, 0.2, r=5, colour=RED), Ball(44, 30, -1.0, 0.4, r=6, colour=BLUE)]
    positions, _ = simulate(balls, 14, gravity=(0, 0.05))
    return draw(balls, positions)


def clips():
    frames, labels = world()
    full = {"actions": np.zeros(13, int), "text": "two balls"}
    reference = Clip(frames=frames, fps=10)
    return {
        "bare": Clip(frames=frames, fps=10),
        "masks": Clip(frames=frames, fps=10, truth={"segmentation": labels}),
        "everything": Clip(
            frames=frames, fps=10, truth={**truth_of(frames), "segmentation": labels}, reference=reference, **full
        ),
        "one frame": Clip(frames=frames[:1], fps=10, truth=truth_of(frames[:1]), reference=reference.window(0, 1)),
        "two frames": Clip(frames=frames[:2], fps=10, truth=truth_of(frames[:2]), reference=reference.window(0, 2)),
        "static": Clip(
            frames=np.repeat(frames[:1], 14, axis=0),
            fps=10,
            truth=truth_of(frames, moving=False),
            reference=reference,
            **full,
        ),
        "static with moving camera": Clip(frames=np.repeat(frames[:1], 14, axis=0), fps=10, truth=truth_of(frames)),
        "black": Clip(frames=np.zeros((9, 32, 32, 3), np.uint8), fps=10, truth=truth_of(np.zeros((9, 32, 32, 3)))),
        "noise": Clip(
            frames=noise(9, 40, 40),
            fps=10,
            truth=truth_of(noise(9, 40, 40)),
            reference=Clip(frames=noise(9, 40, 40, 1), fps=10),
        ),
        "odd size": Clip(frames=noise(8, 37, 23), fps=7.5, truth=truth_of(noise(8, 37, 23))),
        "tiny": Clip(
            frames=noise(8, 3, 2), fps=10, truth=truth_of(noise(8, 3, 2)), reference=Clip(frames=noise(8, 3, 2), fps=10)
        ),
        "one pixel": Clip(frames=noise(5, 1, 1), fps=10, truth=truth_of(noise(5, 1, 1))),
        "unknown truth": Clip(
            frames=frames,
            fps=10,
            truth={
                **truth_of(frames),
                "depth_m": np.full((14, 64, 64), np.nan, np.float32),
                "world_from_camera": np.full((14, 4, 4), np.nan),
            },
        ),
    }


CLIPS = clips()


def check(found: Score, clip: Clip):
    """A value with its evidence, or none with its reason; never a number out of thin air."""
    if found.value is None:
        assert found.status != "ok"
        assert found.reason
        assert (found.normalised, found.uncertainty, found.coverage, found.per_frame) == (None, None, 0.0, None)
        return
    assert found.status == "ok"
    assert found.reason is None
    assert np.isfinite(found.value)
    assert found.normalised is None or 0.0 <= found.normalised <= 1.0
    assert found.uncertainty is None or (np.isfinite(found.uncertainty) and found.uncertainty >= 0.0)
    assert 0.0 < found.coverage <= 1.0
    if found.per_frame is not None:
        assert found.per_frame.shape == (len(clip),)
    assert all(0 <= t < len(clip) for t in found.offending)


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("name", EVERY)
def test_any_clip_gives_a_score_or_a_reason(name, kind):
    clip = CLIPS[kind]
    before = clip.frames.copy()
    found = EVERY[name](clip)
    check(found, clip)
    np.testing.assert_array_equal(clip.frames, before)
    json.dumps(found.to_json(), allow_nan=False)
    if clip.missing(EVERY[name].needs):
        assert found.status == "missing"


@pytest.mark.parametrize("name", EVERY)
def test_the_same_clip_gives_the_same_score(name):
    first = EVERY[name](CLIPS["everything"]).to_json()
    clear_cache()
    assert EVERY[name](CLIPS["everything"]).to_json() == first


@pytest.mark.parametrize("name", EVERY)
def test_a_static_clip_does_not_win(name):
    """Where nothing moves there is nothing to praise: no value, or no better than what moves lawfully."""
    if EVERY[name].suite not in {"physics", "geometry"}:
        pytest.skip("fidelity and quality compare with something else")
    static = EVERY[name](CLIPS["static with moving camera"])
    moving = EVERY[name](CLIPS["bare"])
    if static.normalised is not None and moving.normalised is not None:
        assert static.normalised <= moving.normalised + 1e-9


@pytest.mark.parametrize("name", EVERY)
def test_declarations(name):
    made = EVERY[name]
    assert made.suite in SUITES
    assert made.name == made.name.lower()
    assert " " not in made.name
    assert made.unit
    assert made.better in {"lower", "higher", "neither"}
    assert made.summary.endswith((".", "?", ")")) or len(made.summary) > 10
    assert made.version >= 1
