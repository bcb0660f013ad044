"""Bad input gets a status or a named error from every geometry evaluator and public function: no crash, no number."""

import warnings
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from geometry_scene import film, path, room
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.clip import Clip
from eval.errors import EvalError
from eval.geometry import camera, depth, epipolar, guards, matching, parallax, planesweep, pose, revisit, sfm, structure
from eval.score import EVALUATORS
from eval.suite import load_evaluators

load_evaluators()
ALL = [n for n, e in EVALUATORS.items() if e.suite == "geometry"]
RNG = np.random.default_rng(0)
POINTS = RNG.uniform(0, 60, (20, 2))
FRAME = RNG.integers(0, 256, (48, 64, 3), np.uint8)
ALL_PIXELS = np.ones((48, 64), bool)
DEPTH_M = np.full((48, 64), 2.0)
K = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])
POSES = path(5)
STEP = pose.relative_pose(POSES[0], POSES[1])


def with_first(array, value):
    spoilt = np.array(array, np.float64)
    spoilt.flat[0] = value
    return spoilt


def view(frame=FRAME, depth_m=DEPTH_M, at=POSES[0]):
    return depth.View(frame=frame, depth_m=depth_m, world_from_camera=at)


CALLS = {
    "F of NaN poses": (lambda: epipolar.fundamental_from_poses(with_first(STEP, np.nan), K, K), "finite poses"),
    "F of 3x3 poses": (lambda: epipolar.fundamental_from_poses(np.eye(3), K, K), "shape"),
    "F of scaled poses": (lambda: epipolar.fundamental_from_poses(np.diag([2.0, 2, 2, 1]), K, K), "rotation"),
    "F of singular K": (lambda: epipolar.fundamental_from_poses(STEP, np.zeros((3, 3)), K), "positive focal"),
    "F of no K": (lambda: epipolar.fundamental_from_poses(STEP, None, K), "3x3 K"),
    "Sampson of NaN": (lambda: epipolar.sampson_distance(with_first(POINTS, np.nan), POINTS, np.eye(3)), "finite"),
    "SED of unequal": (lambda: epipolar.symmetric_epipolar_distance(POINTS, POINTS[:5], np.eye(3)), "matched points"),
    "lines of a 2x2 F": (lambda: epipolar.point_line_distances(POINTS, POINTS, np.eye(2)), "shape"),
    "TSED of nothing": (lambda: epipolar.tsed([], []), "at least one pair"),
    "eight points of seven": (lambda: epipolar.fundamental_eight_point(POINTS[:7], POINTS[:7]), "at least 8"),
    "eight equal points": (lambda: epipolar.fundamental_eight_point(POINTS * 0, POINTS * 0), "distinct"),
    "no path": (lambda: camera.path_error(POSES[:0], POSES[:0]), "two poses"),
    "a path of one pose": (lambda: camera.path_error(POSES[:1], POSES[:1]), "two poses"),
    "an infinite path": (lambda: camera.path_error(POSES, with_first(POSES, np.inf)), "finite"),
    "transposed poses": (lambda: camera.path_error(np.swapaxes(POSES, 1, 2), POSES), "Transpose"),
    "mirrored poses": (lambda: camera.path_error(POSES @ np.diag([1, 1, -1.0, 1]), POSES), "mirrored"),
    "an unknown scale": (lambda: camera.path_error(POSES, POSES, scale="unit"), "own, truth, fit, metric"),
    "no depth map's shape": (lambda: depth.correspond(view(depth_m=DEPTH_M[:4]), view(), K), "shape"),
    "views of two sizes": (lambda: depth.warp(view(FRAME[:20], DEPTH_M[:20]), view(), K), "one size"),
    "a NaN pose": (lambda: depth.correspond(view(at=with_first(np.eye(4), np.nan)), view(), K), "finite poses"),
    "a singular pose": (lambda: depth.correspond(view(at=np.zeros((4, 4))), view(), K), "bottom row"),
    "a singular K": (lambda: depth.correspond(view(), view(), np.zeros((3, 3))), "focal"),
    "a NaN tolerance": (lambda: depth.correspond(view(), view(), K, tolerance=np.nan), "tolerance"),
    "flow of two sizes": (lambda: depth.dense_flow(FRAME, FRAME[:9]), "one size"),
    "flow of floats": (lambda: depth.dense_flow(FRAME / 255, FRAME / 255), "uint8"),
    "flow of grey": (lambda: depth.dense_flow(FRAME[..., 0], FRAME[..., 0]), "uint8"),
    "planes from zero": (lambda: planesweep.hypotheses(0, 2, 8), "near_m"),
    "planes of NaN": (lambda: planesweep.hypotheses(np.nan, 2, 8), "near_m"),
    "stability of NaN": (lambda: revisit.world_stability(np.array(np.nan), np.array(1.0), np.array(1.0)), "finite"),
    "a negative distance": (lambda: revisit.world_stability(np.array(-1.0), np.array(1.0), np.array(1.0)), ">= 0"),
    "loops of NaN": (lambda: revisit.loop_consistency(np.array([np.nan, 1]), np.ones(2)), "finite"),
    "SSIM of two sizes": (lambda: revisit.structural_distance(FRAME, FRAME[:9], ALL_PIXELS), "uint8"),
    "SSIM of floats": (lambda: revisit.structural_distance(FRAME * np.nan, FRAME, ALL_PIXELS), "uint8"),
    "SSIM of nothing": (lambda: revisit.structural_distance(FRAME, FRAME, ~ALL_PIXELS), "a mask with pixels"),
    "change with NaN noise": (lambda: revisit.changed_levels(FRAME, FRAME, np.nan), "finite"),
    "change of two sizes": (lambda: revisit.changed_levels(FRAME, FRAME[:9], 1.0), "uint8"),
    "keypoints of floats": (lambda: matching.detect(FRAME / 255), "uint8"),
    "two views of NaN": (lambda: parallax.two_view(with_first(POINTS, np.nan), POINTS), "finite"),
    "two views of unequal": (lambda: parallax.two_view(POINTS, POINTS[:9]), "matched points"),
    "GRIC of nothing": (lambda: parallax.gric(np.zeros(0), dimension=3, parameters=7), "one match"),
    "drift of NaN": (lambda: structure.scale_drift(POSES, with_first(POSES, np.nan)), "finite poses"),
    "drift of an infinite truth": (lambda: structure.scale_drift(with_first(POSES, np.inf), POSES), "finite poses"),
    "drift of two lengths": (lambda: structure.scale_drift(POSES, POSES[:4]), "shape"),
    "drift of two poses": (lambda: structure.scale_drift(POSES[:2], POSES[:2]), "three poses"),
    "drift of nothing": (lambda: structure.scale_drift(POSES[:0], POSES[:0]), "three poses"),
    "drift of positions": (lambda: structure.scale_drift(POSES[:, :3, 3], POSES[:, :3, 3]), "shape"),
    "drift of poses of scale 3": (lambda: structure.scale_drift(POSES, 3 * POSES), "bottom row"),
    **{
        f"depth of {value}": (lambda v=value: depth.warp(view(depth_m=np.full((48, 64), v)), view(), K), "positive")
        for value in (0.0, -2.0, np.nan, np.inf)
    },
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_name_what_is_wrong(name):
    call, words = CALLS[name]
    with pytest.raises(EvalError, match=words):
        call()


@pytest.mark.skipif(not sfm.is_available(), reason="needs pycolmap")
@pytest.mark.parametrize(
    ("frames", "K_given", "words"),
    [
        (np.zeros((5, 32, 32)), None, "uint8"),
        (np.zeros((5, 32, 32, 2), np.uint8), None, "uint8"),
        (np.zeros((2, 32, 32), np.uint8), None, "3 frames"),
        (np.zeros((5, 32, 32), np.uint8), np.full((3, 3), np.nan), "finite 3x3 K"),
    ],
)
def test_reconstruction_names_what_is_wrong(frames, K_given, words):
    with pytest.raises(EvalError, match=words):
        sfm.reconstruct(frames, K=K_given)


@cache
def walk():
    return film(room(), path(6), size=32)


ODD = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-30, 1e30])


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_spoilt_truth_gets_a_score_or_a_reason_from_every_evaluator(data):
    """Odd numbers in a part of any of the arrays that a clip comes with."""
    clip = walk()
    key = data.draw(st.sampled_from(["depth_m", "world_from_camera", "K", "world_from_object", "segmentation"]))
    spoilt = np.array(clip.truth[key])
    if key == "segmentation":
        spoilt[data.draw(st.integers(0, 5))] = data.draw(st.sampled_from([-1, 4, 1000]))
    else:
        places = data.draw(st.lists(st.integers(0, spoilt.size - 1), min_size=1, max_size=4))
        spoilt.flat[places] = data.draw(ODD)
    if data.draw(st.booleans()):
        spoilt[...] = spoilt.flat[0]
    changed = replace(clip, truth={**clip.truth, key: spoilt})
    for name in ALL:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            found = EVALUATORS[name](changed)
        assert (found.value is not None) == (found.status == "ok"), name
        if found.value is None:
            assert found.reason, name
            continue
        assert np.isfinite(found.value), name
        assert 0.0 < found.coverage <= 1.0, name


@pytest.mark.parametrize("name", ALL)
def test_opencv_that_fails_inside_gives_a_status(name, monkeypatch):
    def fail(*_, **__):
        raise cv2.error("assertion failed inside")

    clip = replace(walk(), name="a copy: what is cached on a clip is not shared")
    for function in ("cvtColor", "resize", "remap", "GaussianBlur", "Sobel"):
        monkeypatch.setattr(cv2, function, fail)
    assert EVALUATORS[name](clip).value is None


def test_guards_refuse_by_name_what_opencv_refuses():
    with pytest.raises(Exception, match="inside") as found, guards.refusals():
        raise cv2.error("inside")
    assert type(found.value).__name__ == "Unmeasurable"


@pytest.mark.parametrize("shape", [(6, 1, 1, 3), (6, 1, 200, 3), (6, 128, 128, 3)])
def test_pictures_without_texture_have_no_value(shape):
    blank = Clip(frames=np.full(shape, 90, np.uint8), fps=10)
    for name in ALL:
        assert EVALUATORS[name](blank).value is None, name
