from dataclasses import replace

import cv2
import numpy as np
import pytest
from geometry_scene import film, path, pose, room

from eval import perceptual
from eval.geometry.known_depth import views
from eval.geometry.memory import find_revisits, forgetting_curve, overlaps, revisit, world_stability_score
from eval.geometry.permanence import object_permanence, reappearances
from eval.geometry.pose import pixel_grid
from eval.geometry.revisit import structural_distance

# Looks away to the left, step by step, and back: 25 frames, the place is out of view for more than eight.
TURN = np.concatenate([np.arange(0, 13), np.arange(11, -1, -1)]) * np.radians(12.0)


@pytest.fixture(scope="module")
def there_and_back():
    scene = room(0)
    for quad, colour in zip(scene.quads[6:], ((220, 40, 30), (30, 60, 220), (240, 220, 40)), strict=True):
        quad.texture = (0.3 * quad.texture + 0.7 * np.array(colour)).astype(np.uint8)
    return film(scene, np.stack([pose([-1.0, -0.2, 1.4], -0.1 + a) for a in TURN]), supersample=2)


@pytest.fixture(scope="module")
def forgetful(there_and_back):
    """The same look away and back, but another room on the way back: textures anew, objects gone."""
    other = room(7)
    other.quads = other.quads[:6]
    poses = there_and_back.truth["world_from_camera"]
    frames = np.concatenate([there_and_back.frames[:13], film(other, poses[13:], supersample=2).frames])
    return replace(there_and_back, frames=frames, reference=there_and_back)


def test_overlap_is_the_share_of_common_pixels(there_and_back):
    seen, K = views(there_and_back)
    share = overlaps(seen, K)
    assert np.diag(share) == pytest.approx(1)
    assert share[0, 24] > 0.9
    # A camera that turns by 24 degrees on the spot sees what the homography of the turn keeps inside.
    pixels = pixel_grid(64, 64)
    x, y, z = K @ cv2.Rodrigues(np.array([0, np.radians(24.0), 0]))[0] @ np.linalg.inv(K) @ pixels
    inside = (x / z > 0) & (x / z < 64) & (y / z > 0) & (y / z < 64)
    # The thinned view loses half of one of its 32 pixels at each border, and the edges between surfaces.
    assert inside.mean() - 0.07 < share[0, 2] <= inside.mean()
    assert share[0, 12] == 0


def test_revisits_need_a_look_away():
    share = np.eye(8)
    share[[0, 7], [7, 0]] = 1.0
    found = find_revisits(share, context_frames=4)
    assert [(r.before, r.after, r.away) for r in found] == [(0, 7, 6)]
    assert find_revisits(share, context_frames=7) == []
    assert find_revisits(np.ones((8, 8)), context_frames=2) == []


def test_true_world_remembers_and_a_forgetful_one_does_not(there_and_back, forgetful):
    true, lost = revisit(there_and_back), revisit(forgetful)
    assert true.status == lost.status == "ok"
    assert true.value > 0.8
    assert abs(lost.value) < 0.25
    assert lost.details["reference_share"] == pytest.approx(true.value)
    assert set(lost.offending) == {r for r in range(25) if np.isfinite(lost.per_frame[r])}
    curve = lost.details["curve_away_frames"]
    assert curve == sorted(curve)
    assert min(lost.details["curve_reference_share"]) > 0.7
    assert max(lost.details["curve_share"]) < 0.5


def test_partial_forgetting_lies_between(there_and_back, forgetful):
    mixed = (0.5 * there_and_back.frames + 0.5 * forgetful.frames).round().astype(np.uint8)
    between = revisit(replace(there_and_back, frames=mixed)).value
    assert revisit(forgetful).value + 0.1 < between < revisit(there_and_back).value - 0.05


def test_forgetting_curve_by_length():
    got = forgetting_curve([4, 9, 4], [0.1, 0.4, 0.3], [0.5, 0.5, 0.5])
    assert got["curve_away_frames"] == [4, 9]
    assert got["curve_share"] == pytest.approx([1 - 0.4 / 1.0, 0.2])


def test_frozen_and_shuffled_never_beat_the_truth(there_and_back):
    true = revisit(there_and_back)
    frozen = revisit(replace(there_and_back, frames=np.repeat(there_and_back.frames[:1], 25, axis=0)))
    shuffled = revisit(replace(there_and_back, frames=there_and_back.frames[np.random.default_rng(1).permutation(25)]))
    # A frozen picture is no memory of a place: it is as like the elsewhere as the place.
    assert frozen.value is None or frozen.value < 0.2
    assert shuffled.value < true.value - 0.3


def test_world_stability_of_clips(there_and_back, forgetful):
    true = world_stability_score(there_and_back)
    assert true.value < 0.01
    assert true.details["closure_ssim"] > 0.99
    assert world_stability_score(forgetful).value > 0.7
    frozen = replace(there_and_back, frames=np.repeat(there_and_back.frames[:1], 25, axis=0))
    assert world_stability_score(frozen).status == "inapplicable"
    assert world_stability_score(film(room(0), path(6))).status == "inapplicable"


def test_objects_must_come_back(there_and_back, forgetful):
    returns = list(reappearances(there_and_back.truth["segmentation"], absent_frames=4))
    assert {r.slot for r in returns} == {0, 1, 2}
    assert all(r.before < 12 < r.after for r in returns)
    assert object_permanence(there_and_back).value == 1.0
    lost = object_permanence(forgetful)
    assert lost.value < 0.5
    assert lost.offending


def test_memory_statuses(walk):
    assert revisit(walk).status == "inapplicable"
    assert revisit(walk.window(0, 4)).status == "insufficient"
    assert object_permanence(walk).status == "inapplicable"
    grey = film(room(0), np.stack([pose([-1.0, -0.2, 1.4], -0.1 + a) for a in TURN]), size=16, supersample=1)
    assert revisit(replace(grey, frames=np.full_like(grey.frames, 90))).status == "insufficient"


def test_structural_distance_is_zero_for_equal_and_one_for_unrelated():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(2))
    everywhere = np.ones((64, 64), bool)
    assert structural_distance(a, a, everywhere) == pytest.approx(0)
    assert structural_distance(a, b, everywhere) == pytest.approx(1, abs=0.1)
    with pytest.raises(ValueError, match="mask"):
        structural_distance(a, b, ~everywhere)


def test_noise_is_no_forgetting(there_and_back, forgetful):
    rng = np.random.default_rng(0)

    def noisy(clip):
        frames = np.clip(clip.frames + rng.normal(0, 8, clip.frames.shape), 0, 255).astype(np.uint8)
        return replace(clip, frames=frames)

    kept, lost = world_stability_score(noisy(there_and_back)), world_stability_score(noisy(forgetful))
    assert kept.value < 0.01 < 0.1 < lost.value
    assert kept.details["published"] > 0.05
    assert revisit(noisy(there_and_back)).value > 0.97
    assert {"closure_psnr_db", "closure_ssim"} <= revisit(forgetful).details.keys()


@pytest.mark.skipif(not perceptual.is_installed(), reason="the network is not installed")
def test_closure_is_perceptual_too(there_and_back, forgetful):
    kept, lost = (world_stability_score(c).details["closure_perceptual"] for c in (there_and_back, forgetful))
    assert kept < 0.05 < lost


def test_permanence_is_the_share_of_the_object_that_is_left(there_and_back):
    before = object_permanence(there_and_back)
    assert before.value > 0.95
    frames, seen = there_and_back.frames.copy(), there_and_back.truth["segmentation"]
    # From the turn on, the left half of every object shows what is never an object's colour.
    for t in range(13, len(frames)):
        for label in np.unique(seen[t][seen[t] > 0]):
            columns = np.nonzero(seen[t] == label)[1]
            left = (seen[t] == label) & (np.arange(64)[None] < np.median(columns))
            frames[t][left] = (255, 0, 255)
    assert object_permanence(replace(there_and_back, frames=frames)).value == pytest.approx(0.5, abs=0.15)
