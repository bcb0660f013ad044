"""What must never happen: a degenerate clip that wins, a crash on bad input, a number out of thin air."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from geometry_scene import film, path, pose, room, texture
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.clip import Clip
from eval.geometry import guards
from eval.geometry.convention import READINGS
from eval.geometry.following import camera_following
from eval.geometry.known_depth import residual_flow
from eval.geometry.known_pose import plane_sweep
from eval.geometry.memory import revisit, world_stability_score
from eval.geometry.objects import object_flow
from eval.geometry.permanence import object_permanence
from eval.geometry.photo_consistency import photo_consistency
from eval.geometry.pose import invert
from eval.geometry.structure import sfm
from eval.geometry.tsed import tsed
from eval.geometry.unknown import epipolar_magsac
from eval.score import EVALUATORS

FLIP = np.diag([1.0, -1, -1, 1])


def degenerate(frames):
    """Clips that must not win, by name."""
    rng = np.random.default_rng(0)

    def blurred(sigma, first):
        return np.stack([cv2.GaussianBlur(f, (0, 0), sigma) if i >= first else f for i, f in enumerate(frames)])

    return {
        "static": np.repeat(frames[:1], len(frames), axis=0),
        "blurred": blurred(frames.shape[1] / 64, 0),
        "much blurred": blurred(frames.shape[1] / 24, 0),
        "blurred after the first frame": blurred(frames.shape[1] / 64, 1),
        "noisy": np.clip(frames + rng.normal(0, 12, frames.shape), 0, 255).astype(np.uint8),
        "noise": rng.integers(0, 256, frames.shape).astype(np.uint8),
        "shuffled": frames[rng.permutation(len(frames))],
    }


@pytest.mark.parametrize(
    "measure",
    [residual_flow, object_flow, plane_sweep, photo_consistency, camera_following],
    ids=lambda m: m.name,
)
def test_degenerate_clips_never_beat_true_ones(walk, measure):
    true = measure(walk).value
    for name, frames in degenerate(walk.frames).items():
        score = measure(replace(walk, frames=frames))
        # Noise leaves the world in place and widens the margin that excuses flow: it may tie, within half a percent.
        slack = 0.005 if name == "noisy" else 0.0
        assert score.value is None or score.value >= true - slack, name


@pytest.mark.parametrize("measure", [epipolar_magsac, sfm, tsed], ids=lambda m: m.name)
def test_degenerate_clips_never_beat_true_ones_at_160_px(measure):
    clip = film(room(1), path(6, step=0.15, turn=0.03), size=160, supersample=2)
    clip = replace(clip, truth={k: clip.truth[k] for k in ("world_from_camera", "K")})
    true = measure(clip)
    assert true.status == "ok"
    clips = degenerate(clip.frames)
    for name in ("static", "blurred", "noise", "shuffled"):
        score = measure(replace(clip, frames=clips[name]))
        # Without any truth a soft picture, or frames in another order, are as rigid as the true ones: they may tie,
        # structure from motion to within a hundredth, as it drops other points.
        slack = 0.01 if measure is sfm else 0.0
        assert score.normalised is None or score.normalised <= true.normalised + slack, name


@pytest.mark.parametrize("measure", [residual_flow, plane_sweep], ids=lambda m: m.name)
@pytest.mark.parametrize(
    ("disguise", "name"),
    [
        (lambda poses: poses @ FLIP, "OpenGL/Blender camera-to-world"),
        (invert, "OpenCV world-to-camera"),
        (lambda poses: invert(poses @ FLIP), "OpenGL world-to-camera"),
    ],
    ids=["opengl", "world-to-camera", "view matrix"],
)
def test_wrong_conventions_are_named(measure, disguise, name):
    clip = film(room(0), path(6, step=0.12, turn=0.06))
    wrong = {**clip.truth, "world_from_camera": disguise(clip.truth["world_from_camera"])}
    score = measure(replace(clip, truth=wrong))
    assert score.status == "failed"
    assert name in score.reason


def test_broken_videos_are_not_taken_for_another_convention(walk):
    for frames in (np.repeat(walk.frames[:1], 10, axis=0), walk.frames[np.random.default_rng(0).permutation(10)]):
        assert residual_flow(replace(walk, frames=frames)).status == "ok"


def test_readings_undo_each_convention():
    poses = path(4)
    given = dict(zip(READINGS, (poses, poses @ FLIP, invert(poses), invert(poses @ FLIP)), strict=True))
    for name, read in READINGS.items():
        np.testing.assert_allclose(read(given[name]), poses, atol=1e-12)


def test_texture_energy_does_not_depend_on_size():
    fine = texture(np.random.default_rng(0), cells=12, size=256)
    small = cv2.resize(fine, (128, 128), interpolation=cv2.INTER_AREA)
    assert np.median(guards.texture_energy(small)) == pytest.approx(np.median(guards.texture_energy(fine)), rel=0.25)


def spoil(clip, **truth):
    return replace(clip, truth={**clip.truth, **truth})


ALL = [n for n, e in EVALUATORS.items() if e.suite == "geometry"]


@pytest.mark.parametrize("name", ALL)
def test_bad_input_gets_a_status(walk, name):
    walk = walk.window(0, 6)
    poses, depth = walk.truth["world_from_camera"], walk.truth["depth_m"]
    singular = poses.copy()
    singular[2, :3, :3] = 0
    bad = {
        "singular": spoil(walk, world_from_camera=singular),
        "nan poses": spoil(walk, world_from_camera=np.full_like(poses, np.nan)),
        "no depth": spoil(walk, depth_m=np.zeros_like(depth)),
        "infinite depth": spoil(walk, depth_m=np.full_like(depth, np.inf)),
        "bad K": spoil(walk, K=np.zeros((3, 3))),
        "zooming K": spoil(walk, K=walk.truth["K"] * np.linspace(1, 2, 6)[:, None, None]),
        "nothing": Clip(frames=walk.frames, fps=10),
        "one frame": walk.window(0, 1),
        "two pixels": Clip(frames=walk.frames[:, :2, :2], fps=10, truth={}),
        "black": replace(walk, frames=np.zeros_like(walk.frames)),
    }
    for what, clip in bad.items():
        score = EVALUATORS[name](clip)
        assert score.status != "ok" or np.isfinite(score.value), what
        assert score.reason or score.status == "ok", what
        if what in {"nothing", "one frame", "two pixels", "black"}:
            assert score.value is None, what


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 5), st.integers(8, 40), st.integers(8, 40), st.integers(0, 2**32 - 1))
def test_any_size_of_noise_gets_a_score_or_a_status(frames, height, width, seed):
    rng = np.random.default_rng(seed)
    K = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    poses = np.stack([pose(rng.normal(0, 0.2, 3), rng.normal(0, 0.2)) for _ in range(frames)])
    truth = {
        "depth_m": rng.uniform(0, 6, (frames, height, width)).astype(np.float32),
        "world_from_camera": poses,
        "K": K,
        "segmentation": rng.integers(0, 3, (frames, height, width)).astype(np.int16),
    }
    clip = Clip(frames=rng.integers(0, 256, (frames, height, width, 3)).astype(np.uint8), fps=10, truth=truth)
    for measure in (residual_flow, object_flow, plane_sweep, camera_following, revisit, object_permanence):
        score = measure(clip)
        assert (score.value is None) == (score.status != "ok")
    assert world_stability_score(clip).status in {"ok", "inapplicable", "insufficient"}
