from dataclasses import replace

import numpy as np
import pytest
from geometry_scene import Quad, Scene, film, intrinsics, path, pose, room, texture

from eval.geometry.depth import View, correspond, dense_flow, flow_margin_px, unexplained_levels, warp
from eval.geometry.guards import texture_energy
from eval.geometry.known_depth import residual_flow, views
from eval.score import Score


def views_of(clip):
    return views(clip)


def test_warp_reproduces_the_other_view(walk):
    seen, K = views_of(walk)
    warped, visible = warp(seen[4], seen[0], K)
    assert visible.mean() > 0.8
    difference = np.abs(warped.astype(int) - walk.frames[4])[visible]
    unwarped = np.abs(walk.frames[0].astype(int) - walk.frames[4])[visible]
    assert np.median(difference) < np.median(unwarped) / 4


def test_warp_to_the_same_view_is_the_identity(walk):
    seen, K = views_of(walk)
    warped, visible = warp(seen[3], seen[3], K)
    assert visible.all()
    np.testing.assert_array_equal(warped, walk.frames[3])


def test_correspondence_is_exact_on_a_plane():
    wall = Scene(
        [Quad(np.array([3.0, -5, -5]), 10 * np.eye(3)[1], 10 * np.eye(3)[2], texture(np.random.default_rng(0)))]
    )
    poses = np.stack([pose([0, 0, 0], 0.0), pose([0.5, 0.2, 0.1], 0.1)])
    seen, K = views(film(wall, poses))
    found = correspond(seen[0], seen[1], K)
    # Pixel (32.5, 32.5) of camera 0 looks along +x by half a pixel off axis: intersect by hand, project by hand.
    f = K[0, 0]
    point = np.array([3.0, -3 * 0.5 / f, -3 * 0.5 / f])
    R, t = poses[1][:3, :3], poses[1][:3, 3]
    x, y, z = R.T @ (point - t)
    np.testing.assert_allclose(found.pixels[32, 32], [f * x / z + 32, f * y / z + 32], atol=1e-4)
    assert found.visible[32, 32]


def test_occlusion_is_found():
    rng = np.random.default_rng(0)
    wall = Quad(np.array([4.0, -6, -6]), 12 * np.eye(3)[1], 12 * np.eye(3)[2], texture(rng))
    card = Quad(np.array([2.0, -0.5, -0.5]), np.eye(3)[1], np.eye(3)[2], texture(rng), 1)
    seen, K = views(film(Scene([wall, card]), np.stack([pose([0, 0, 0], 0.0), pose([0, 0.8, 0], 0.0)])))
    visible = correspond(seen[1], seen[0], K).visible
    # From camera 1 (moved left), the card hides in camera 0 the wall points with y in (-1.0, 1.0).
    f = K[0, 0]
    wall_y = 0.8 - 4 * (np.arange(64) + 0.5 - 32) / f
    row, card_row = visible[32], seen[1].segmentation[32] == 1
    hidden = (np.abs(wall_y) < 1.0 - 4 / f) & ~card_row
    assert hidden.sum() > 5
    assert not row[hidden].any()
    inside = np.abs((0 - wall_y) * f / 4) < 30
    assert row[(np.abs(wall_y) > 1.0 + 8 / f) & ~card_row & inside].mean() > 0.9


@pytest.mark.parametrize("shift", [0.25, 0.5, 1.0])
def test_residual_flow_measures_a_known_shift(shift):
    # A picture four times as fine as the frame, moved by whole fine pixels: shift * 4 px at a shorter side of 256.
    fine = texture(np.random.default_rng(1), cells=20, size=264)
    step = round(shift * 4)
    a, b = (
        fine[4:260, 4 + s : 260 + s].reshape(64, 4, 64, 4, 3).mean((1, 3)).round().astype(np.uint8) for s in (0, step)
    )
    flow = np.linalg.norm(dense_flow(a, b), axis=2)
    assert np.median(flow[8:-8, 8:-8]) == pytest.approx(4 * shift, rel=0.15)


def test_noise_and_its_effect_on_flow_are_foretold():
    rng = np.random.default_rng(2)
    fine = texture(rng, cells=20, size=256).reshape(64, 4, 64, 4, 3).mean((1, 3))
    everywhere = np.ones((64, 64), bool)
    for sigma in (2.0, 6.0):
        # Equal noise in all channels keeps its deviation in grey; a difference of frames has sqrt(2) times as much.
        a, b = (np.clip(fine + rng.normal(0, sigma, (64, 64, 1)), 0, 255).round().astype(np.uint8) for _ in range(2))
        flow = dense_flow(a, b)
        levels = unexplained_levels(a, b, flow, everywhere)
        # Flow fits part of the noise, so a little less is left.
        assert 0.6 * sigma * np.sqrt(2) < levels < 1.1 * sigma * np.sqrt(2)
        margin = flow_margin_px(levels, texture_energy(a))
        assert (np.linalg.norm(flow, axis=2) < margin)[4:-4, 4:-4].mean() > 0.85


def test_true_world_passes_and_broken_ones_do_not(walk):
    true = residual_flow(walk)
    assert true.status == "ok"
    assert true.value < 0.01
    assert true.coverage > 0.8
    frozen = residual_flow(replace(walk, frames=np.repeat(walk.frames[:1], 10, axis=0)))
    shuffled = residual_flow(replace(walk, frames=walk.frames[np.random.default_rng(0).permutation(10)]))
    assert frozen.value > 0.8
    assert shuffled.value > 0.5
    back = Score.from_json(true.to_json())
    assert back.value == true.value


def test_moving_object_follows_its_motion_or_is_masked():
    base = room(0)
    velocity = np.array([0.0, 0.08, 0.05])

    def scene_at(i):
        return Scene([replace(q, origin=q.origin + i * velocity * (q.slot == 1)) for q in base.quads])

    clip = film(base, path(8), scene_at=scene_at)
    blind = dict(clip.truth)
    del blind["world_from_object"], blind["segmentation"]
    masked = dict(clip.truth)
    del masked["world_from_object"]
    moved = dict(clip.truth)
    moved["world_from_object"] = clip.truth["world_from_object"].copy()
    moved["world_from_object"][:, 0, :3, 3] += np.arange(8)[:, None] * velocity
    unaware, with_mask, with_motion = (residual_flow(replace(clip, truth=t)) for t in (blind, masked, moved))
    assert with_mask.value < 0.01
    assert with_motion.value < 0.01
    assert unaware.value > 0.02
    assert with_motion.coverage > with_mask.coverage


def test_depth_that_is_zero_or_infinite_is_left_out(walk):
    holes = walk.truth["depth_m"].copy()
    holes[:, :20] = 0
    holes[:, 20:24] = np.inf
    holes[:, 24:28] = np.nan
    score = residual_flow(replace(walk, truth={**walk.truth, "depth_m": holes}))
    assert score.status == "ok"
    assert score.value < 0.01
    assert 0.2 < score.coverage < 0.6
    nothing = residual_flow(replace(walk, truth={**walk.truth, "depth_m": np.zeros_like(holes)}))
    assert nothing.status == "failed"
    assert "finite positive" in nothing.reason


def test_statuses_instead_of_numbers(walk):
    assert residual_flow(replace(walk, truth={})).status == "missing"
    assert residual_flow(walk.window(0, 1)).status == "insufficient"
    still = film(room(0), np.repeat(path(1), 5, axis=0))
    assert residual_flow(still).status == "inapplicable"
    grey = residual_flow(replace(walk, frames=np.full_like(walk.frames, 128)))
    assert grey.status == "insufficient"
    assert "texture" in grey.reason
    bad = walk.truth["world_from_camera"].copy()
    bad[3, 0] = 0
    assert residual_flow(replace(walk, truth={**walk.truth, "world_from_camera": bad})).status == "failed"
    apart = film(room(0), np.stack([pose([0, 0, 1.5], 0.0), pose([0, 0, 1.5], np.pi)]))
    assert residual_flow(apart).status == "insufficient"


def test_views_of_another_size_are_refused(walk):
    small = View(frame=walk.frames[0], depth_m=np.ones((8, 8)), world_from_camera=np.eye(4))
    with pytest.raises(ValueError, match="depth of shape"):
        warp(small, small, intrinsics(64))
