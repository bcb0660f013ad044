from dataclasses import replace

import cv2
import numpy as np
import pytest
from geometry_scene import film, path, pose, room

from eval.errors import MeasureError
from eval.geometry.known_pose import movers_in_space, plane_sweep
from eval.geometry.planesweep import Neighbour, best_inverse_depth, explain, hypotheses, local_contrast, sweep_cost
from eval.geometry.pose import relative_pose
from eval.geometry.tsed import tsed


def without_depth(clip):
    return replace(clip, truth={k: clip.truth[k] for k in ("world_from_camera", "K")})


@pytest.fixture(scope="module")
def broken(walk):
    """What generated video does wrong, by name."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64].astype(np.float32)
    fields = [cv2.resize(rng.normal(0, 0.4, (6, 6, 2)).astype(np.float32), (64, 64)) for _ in walk.frames]
    bent = [
        cv2.remap(f, x + d[..., 0], y + d[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        for f, d in zip(walk.frames, fields, strict=True)
    ]
    zoomed = []
    for i, f in enumerate(walk.frames):
        M = cv2.getRotationMatrix2D((31.5, 31.5), 0, 1 + 0.01 * i)
        zoomed.append(cv2.warpAffine(f, M, (64, 64), borderMode=cv2.BORDER_REFLECT))
    other = film(room(0), path(10, step=-0.06, turn=-0.02))
    popped = np.concatenate([walk.frames[:5], film(room(5), path(10)).frames[5:]])
    return {
        "wobble": np.stack(bent),
        "zoom": np.stack(zoomed),
        "other actions": other.frames,
        "frozen": np.repeat(walk.frames[:1], 10, axis=0),
        "shuffled": walk.frames[rng.permutation(10)],
        "popping": popped,
    }


def test_sweep_finds_the_depth(walk):
    poses, K = walk.truth["world_from_camera"], walk.truth["K"]
    near = [
        Neighbour(frame=walk.frames[5 + o], source_from_target=relative_pose(poses[5], poses[5 + o]))
        for o in (-4, -2, 2, 4)
    ]
    planes = hypotheses(0.5, 12, 64)
    first = best_inverse_depth(sweep_cost(walk.frames[5], near, K, planes), planes)
    explained = explain(walk.frames[5], near, K, planes)
    depth = walk.truth["depth_m"][5]
    assert np.median(np.abs(first * depth - 1)) < 0.05
    assert np.median(np.abs(explained.inverse_depth * depth - 1)) < 0.05
    inner = np.s_[:, 8:-8, 8:-8]
    assert np.nanmedian(explained.residual_px[inner]) < 0.15


def test_refinement_removes_what_depth_can_explain(walk):
    # Four planes make a coarse first map; Gauss-Newton has to do the rest.
    poses, K = walk.truth["world_from_camera"], walk.truth["K"]
    near = [
        Neighbour(frame=walk.frames[5 + o], source_from_target=relative_pose(poses[5], poses[5 + o])) for o in (-2, 2)
    ]
    planes = hypotheses(0.7, 9, 4)
    depth = walk.truth["depth_m"][5]
    errors = [
        np.median(np.abs(explain(walk.frames[5], near, K, planes, rounds=r).inverse_depth * depth - 1)) for r in (1, 3)
    ]
    assert errors[0] > 0.3
    assert errors[1] < 0.1


def test_local_contrast_ignores_exposure(walk):
    frame = walk.frames[0].astype(float)
    dark = np.round(0.6 * frame + 12).astype(np.uint8)
    a, b = local_contrast(walk.frames[0]), local_contrast(dark)
    textured = np.abs(a) > 0.5
    assert np.median(np.abs(a - b)[textured]) < 0.1


def test_empty_range_is_refused():
    with pytest.raises(MeasureError, match="near_m"):
        hypotheses(2, 1, 32)


def test_true_world_passes_and_broken_ones_do_not(walk, broken):
    true = plane_sweep(without_depth(walk))
    assert true.status == "ok"
    assert true.value < 0.01
    assert true.coverage > 0.7
    for name, frames in broken.items():
        score = plane_sweep(without_depth(replace(walk, frames=frames)))
        assert score.status == "ok", name
        assert score.value > 0.1, name


def test_popping_is_localised(walk, broken):
    score = plane_sweep(without_depth(replace(walk, frames=broken["popping"])), offsets=(1,))
    assert set(score.offending) == {4, 5}


def test_exposure_does_not_matter(walk):
    gain = np.linspace(1.0, 0.8, 10)[:, None, None, None]
    dimmed = plane_sweep(without_depth(replace(walk, frames=np.round(walk.frames * gain).astype(np.uint8))))
    assert dimmed.value < 0.02


def test_turning_camera_is_measured_by_rotation_alone():
    turn = film(room(0), np.stack([pose([-2, -0.5, 1.4], 0.05 * i) for i in range(6)]))
    true = plane_sweep(without_depth(turn))
    frozen = plane_sweep(without_depth(replace(turn, frames=np.repeat(turn.frames[:1], 6, axis=0))))
    assert true.value < 0.01
    assert frozen.value > 0.9


def test_statuses_instead_of_numbers(walk):
    clip = without_depth(walk)
    assert plane_sweep(clip.window(0, 2)).status == "insufficient"
    assert plane_sweep(replace(clip, truth={"K": walk.truth["K"]})).status == "missing"
    grey = plane_sweep(replace(clip, frames=np.full_like(walk.frames, 99)))
    assert grey.status == "insufficient"
    still = without_depth(film(room(0), np.repeat(path(1), 5, axis=0)))
    assert plane_sweep(still).status == "inapplicable"
    assert plane_sweep(clip, near_m=3.0, far_m=1.0).status == "failed"
    noK = plane_sweep(replace(clip, truth={**clip.truth, "K": np.diag([-1.0, 1, 1])}))
    assert noK.status == "failed"
    assert "focal" in noK.reason
    assert tsed(clip).status == "insufficient"


def test_tsed_of_true_and_wrong_paths():
    clip = film(room(1), path(7, step=0.12), size=192, supersample=2)
    true = tsed(without_depth(clip))
    assert true.status == "ok"
    assert true.value == 1.0
    shares = true.details["curve_share"]
    assert shares == sorted(shares)
    wrong = clip.truth["world_from_camera"].copy()
    wrong[:, :3, :3] = wrong[:, :3, :3] @ cv2.Rodrigues(np.array([0.08, 0, 0]))[0]
    wrong[::2] = clip.truth["world_from_camera"][::2]
    assert (
        tsed(replace(without_depth(clip), truth={"world_from_camera": wrong, "K": clip.truth["K"]}), gaps=(1,)).value
        < 0.2
    )
    frames = clip.frames.copy()
    frames[3] = np.random.default_rng(0).integers(0, 256, frames[3].shape)
    torn = tsed(without_depth(replace(clip, frames=frames)), gaps=(1,))
    assert torn.details["pairs_unmatched"] == 2
    assert torn.value == pytest.approx(4 / 6)


def test_tsed_holds_turns_against_their_homography():
    turn = film(room(1), np.stack([pose([-2, -0.5, 1.4], 0.05 * i) for i in range(6)]), size=192, supersample=2)
    true = tsed(without_depth(turn))
    assert true.details["pairs_turning_only"] == true.details["pairs"]
    assert true.value == 1.0
    frozen = tsed(without_depth(replace(turn, frames=np.repeat(turn.frames[:1], 6, axis=0))))
    assert frozen.value == 0.0


def test_without_a_turn_a_slower_camera_is_a_larger_world_and_the_score_says_so():
    """The scale of a straight way cannot be seen: 70 % of every step fits as well as all of it."""
    commanded = film(room(0), path(8, turn=0.0))
    slower = replace(commanded, frames=film(room(0), path(8, step=0.06 * 0.7, turn=0.0)).frames)
    found = plane_sweep(without_depth(slower))
    assert found.value == pytest.approx(plane_sweep(without_depth(commanded)).value, abs=0.03)
    assert "speed" in found.details["blind_to"]


def test_movers_are_placed_by_their_pose_and_sized_by_their_extent(walk):
    poses, K = walk.truth["world_from_camera"], walk.truth["K"]
    objects = np.tile(np.eye(4), (len(walk), 2, 1, 1))
    ahead = poses[0, :3, 3] + 2.0 * poses[0, :3, 2]
    objects[:, :, :3, 3] = ahead
    objects[:, 1, 0, 3] += 0.1 * np.arange(len(walk))
    labels = np.zeros(walk.frames.shape[:3], np.int16)
    labels[0, 10:13, 10:14] = 2
    clip = replace(walk, truth={**walk.truth, "segmentation": labels, "world_from_object": objects})
    balls = movers_in_space(clip, poses, K)
    # Slot 0 rests. A box of 3 x 4 pixels has a diagonal of 5, at 2 m.
    assert [[b.label for b in frame] for frame in balls] == [[2]] * len(walk)
    assert balls[0][0].radius_m == pytest.approx(5 / 2 * 2.0 / K[0, 0])
    assert balls[3][0].centre_m == pytest.approx(objects[3, 1, :3, 3])
    assert movers_in_space(without_depth(walk), poses, K) is None
