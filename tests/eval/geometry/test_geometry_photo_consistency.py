from dataclasses import replace

import cv2
import numpy as np
import pytest
from geometry_scene import Quad, film, path, pose, room

from eval.errors import MeasureError
from eval.geometry.colours import compare_colours
from eval.geometry.photo_consistency import photo_consistency


def without_depth(clip, *keys):
    return replace(clip, truth={k: clip.truth[k] for k in ("world_from_camera", "K", *keys)})


def furnished(*slots):
    """The room with these panels only; the third is red, with half of the texture's contrast."""
    scene = room(0)
    scene.quads = [quad for quad in scene.quads if quad.slot in (0, *slots)]
    for quad in scene.quads:
        if quad.slot == 3:
            quad.texture = (0.5 * quad.texture + 0.5 * np.array([255, 0, 0])).astype(np.uint8)
    return scene


FULL, BARE = furnished(1, 2, 3), furnished(1, 2)


@pytest.fixture(scope="module")
def walk():
    """Ten frames at 64 px along a strafing, turning camera, with all truth."""
    return film(FULL, path(10))


@pytest.fixture(scope="module")
def gone():
    """The walk, where the red panel is missing from frames 4 to 6."""
    return film(FULL, path(10), scene_at=lambda i: BARE if 4 <= i <= 6 else FULL)


def compared(clip, **kwargs):
    return list(compare_colours(clip.frames, clip.truth["world_from_camera"], clip.truth["K"], **kwargs))


def test_a_static_world_contradicts_nothing(walk):
    found = photo_consistency(without_depth(walk))
    assert found.status == "ok"
    assert found.value < 2e-4
    assert found.normalised == 1.0 - found.value
    assert found.coverage > 0.6
    assert found.offending == ()
    # Two neighbours on either side; the first and the last two frames lack some.
    assert found.details["pairs"] == found.details["pairs_measured"] == 2 * (9 + 8)


def test_a_panel_that_vanishes_is_marked_where_it_was(walk, gone):
    panel = walk.truth["segmentation"] == 3
    inner = [cv2.erode(m.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0 for m in panel]
    around = [cv2.dilate(m.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0 for m in panel]
    for pair in compared(gone):
        shown, missing = not 4 <= pair.target <= 6, 4 <= pair.source <= 6
        if shown and missing:
            assert pair.contradicted[inner[pair.target]].mean() > 0.8, (pair.target, pair.source)
        assert pair.contradicted[~around[pair.target]].mean() < 2e-3, (pair.target, pair.source)
    score = photo_consistency(without_depth(gone))
    assert {3, 4, 6, 7} <= set(score.offending) <= {2, 3, 4, 5, 6, 7, 8}


def test_a_panel_missing_from_one_frame_alone_excuses_nothing(walk):
    """What the gap shows is seen in no other frame, so its depth is a guess, and may not hide the panel."""
    once = film(FULL, path(10), scene_at=lambda i: BARE if i == 6 else FULL)
    panel = walk.truth["segmentation"] == 3
    for pair in compared(once):
        if pair.source == 6:
            assert pair.contradicted[panel[pair.target]].mean() > 0.5, pair.target


def test_more_that_is_wrong_is_worse(walk, gone):
    both = furnished(1)
    more = film(FULL, path(10), scene_at=lambda i: both if 4 <= i <= 6 else FULL)
    values = [photo_consistency(without_depth(c)).value for c in (walk, gone, more)]
    assert values[1] > 20 * values[0]
    assert values[2] > 1.2 * values[1]


def test_exposure_is_no_contradiction(walk, gone):
    gain = np.linspace(1.0, 0.75, 10)[:, None, None, None] * [1.0, 0.97, 0.95]
    dimmed = photo_consistency(without_depth(replace(walk, frames=np.round(walk.frames * gain).astype(np.uint8))))
    assert dimmed.value < 1e-3
    found = photo_consistency(without_depth(replace(gone, frames=np.round(gone.frames * gain).astype(np.uint8))))
    assert found.value > 10 * dimmed.value


def test_a_turn_on_the_spot_contradicts_nothing_and_a_frozen_picture_does():
    turn = film(room(0), np.stack([pose([-2, -0.5, 1.4], 0.08 * i) for i in range(6)]))
    assert photo_consistency(without_depth(turn)).value < 1e-3
    frozen = replace(turn, frames=np.repeat(turn.frames[:1], 6, axis=0))
    assert photo_consistency(without_depth(frozen)).value > 0.1


def test_a_mover_is_left_out_where_it_is_known_and_otherwise_the_assumption_is_said(walk):
    def sliding(i):
        scene = furnished(1, 2, 3)
        quad = scene.quads[-1]
        scene.quads[-1] = Quad(quad.origin + 0.1 * i * np.eye(3)[2], quad.u, quad.v, quad.texture, quad.slot)
        return scene

    clip = film(room(0), path(10), scene_at=sliding)
    objects = clip.truth["world_from_object"].copy()
    objects[:, 2, 2, 3] = 0.1 * np.arange(10)
    known = replace(clip, truth={**clip.truth, "world_from_object": objects})
    told = photo_consistency(without_depth(known, "segmentation", "world_from_object"))
    unknown = photo_consistency(without_depth(clip))
    assert told.value < 2e-3
    assert unknown.value > 5 * told.value
    assert "world_from_object" in told.details["assumes"]
    assert "static" in unknown.details["assumes"]
    assert "all are left out" in photo_consistency(without_depth(clip, "segmentation")).details["assumes"]


def test_statuses_instead_of_numbers(walk):
    clip = without_depth(walk)
    assert photo_consistency(clip.window(0, 2)).status == "insufficient"
    assert photo_consistency(replace(clip, truth={"K": walk.truth["K"]})).status == "missing"
    wall = photo_consistency(replace(clip, frames=np.full_like(walk.frames, 99)))
    assert wall.status == "insufficient"
    assert "texture" in wall.reason
    noise = np.random.default_rng(0).integers(0, 256, walk.frames.shape, dtype=np.uint8)
    assert photo_consistency(replace(clip, frames=noise)).status == "insufficient"
    still = film(room(0), np.repeat(path(1), 5, axis=0))
    assert photo_consistency(without_depth(still)).status == "inapplicable"
    assert photo_consistency(clip, near_m=3.0, far_m=1.0).status == "failed"
    mirrored = np.diag([-1.0, 1, 1])
    assert "focal" in photo_consistency(replace(clip, truth={**clip.truth, "K": mirrored})).reason


@pytest.mark.parametrize("name", ["OpenGL", "world-to-camera"])
def test_poses_of_another_convention_are_refused_by_name(name):
    clip = film(room(0), np.stack([pose([-2, -0.5, 1.4], 0.3 + 0.1 * i) for i in range(6)]))
    poses = clip.truth["world_from_camera"]
    other = poses @ np.diag([1.0, -1, -1, 1]) if name == "OpenGL" else np.linalg.inv(poses)
    found = photo_consistency(replace(clip, truth={"world_from_camera": other, "K": clip.truth["K"]}))
    assert found.status == "failed"
    assert name in found.reason


def test_an_empty_range_of_depths_is_refused(walk):
    with pytest.raises(MeasureError, match="near_m"):
        compared(walk, near_m=2.0, far_m=1.0)


def test_large_frames_give_nearly_the_same(gone):
    """Frames are reduced to a shorter side of 128: the share at 192 pixels is that at 128."""
    shares = [
        photo_consistency(
            without_depth(film(FULL, path(5), size=size, scene_at=lambda i: BARE if i == 2 else FULL, supersample=2))
        ).value
        for size in (128, 192)
    ]
    assert shares[1] == pytest.approx(shares[0], rel=0.25)
