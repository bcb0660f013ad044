"""Bounce's drawing: sub-pixel accuracy, coverage against exact area, masks against what is seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.bounce.render import BACKGROUND, Look, Renderer, view_m
from envs.bounce.scene import PALETTE, SHAPES, Fixture, Rod, Solid
from envs.errors import SceneError


def solid(shape="disc", radius=0.9, colour="blue"):
    return Solid(
        shape=shape, colour=colour, radius_m=radius, position_m=(5.0, 5.0), aspect=2.0 if shape == "capsule" else 1.0
    )


def coverage(frame, colour="blue"):
    """Share of each pixel (H, W) that a solid covers, from its colour."""
    span = np.array(PALETTE[colour], float) - BACKGROUND
    return ((frame.astype(float) - BACKGROUND) @ span) / (span @ span)


@given(st.floats(1.0, 9.0), st.floats(1.0, 9.0), st.floats(0.7, 1.0), st.sampled_from([(64, 64), (48, 96), (120, 80)]))
@settings(max_examples=80, deadline=None)
def test_the_centroid_of_a_disc_is_exact_to_a_twentieth_of_a_pixel(x, y, radius, size):
    drawing = Renderer([solid(radius=radius)], size).draw(np.array([[x, y]]), np.zeros(1))
    share = coverage(drawing.frame)
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    scale = min(size) / 10.0
    expected = np.array([x * scale, size[0] - y * scale])
    measured = np.array([(share * columns).sum(), (share * rows).sum()]) / share.sum()
    np.testing.assert_allclose(measured, expected, atol=0.05)
    np.testing.assert_allclose(drawing.centroid_px[0], expected)
    assert share.sum() == pytest.approx(np.pi * (radius * scale) ** 2, rel=0.01)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angle", [0.0, 0.4, 2.2])
def test_coverage_is_the_area_seen_through_each_pixel(shape, angle):
    size, fine = (64, 64), 16
    at = np.array([[4.37, 5.61]])
    small = coverage(Renderer([solid(shape)], size).draw(at, np.array([angle])).frame)
    large = Renderer([solid(shape)], (64 * fine, 64 * fine)).draw(at, np.array([angle])).full_masks[0]
    exact = large.reshape(64, fine, 64, fine).mean(axis=(1, 3))
    assert np.abs(small - exact).mean() < 1e-3
    # A distance cannot tell a corner from an edge: the tip of a triangle is where the two differ most.
    assert np.abs(small - exact).max() < (0.1 if shape in ("disc", "capsule") else 0.25)
    assert small.sum() == pytest.approx(exact.sum(), rel=5e-3)


def test_masks_tell_what_is_hidden_and_by_whom():
    solids = [solid(), solid(colour="red"), solid(colour="green")]
    screen = Fixture(kind="occluder", vertices_m=((6.0, 0.0), (8.0, 0.0), (8.0, 10.0), (6.0, 10.0)))
    drawing = Renderer(solids, (64, 64), fixtures=[screen]).draw(
        np.array([[2.0, 5.0], [2.8, 5.0], [7.0, 5.0]]), np.zeros(3)
    )
    seen = [drawing.segmentation == k + 1 for k in range(3)]
    full = drawing.full_masks
    assert (full[0] & full[1]).any()
    np.testing.assert_array_equal(seen[0], full[0] & ~full[1])
    np.testing.assert_array_equal(seen[1], full[1])
    assert full[2].any()
    assert not seen[2].any()
    assert drawing.segmentation.dtype == np.int16
    inside = np.array(PALETTE["red"])
    np.testing.assert_array_equal(drawing.frame[32, 18], inside)


def test_solids_outside_the_view_leave_no_trace():
    drawing = Renderer([solid()], (64, 64)).draw(np.array([[-4.0, 5.0]]), np.zeros(1))
    np.testing.assert_array_equal(drawing.frame, np.broadcast_to(BACKGROUND, (64, 64, 3)))
    assert not drawing.full_masks.any()
    cut = Renderer([solid()], (512, 512)).draw(np.array([[0.0, 5.0]]), np.zeros(1))
    assert cut.full_masks.sum() == pytest.approx(0.5 * np.pi * (0.9 * 51.2) ** 2, rel=0.01)


def test_rods_pins_and_ramps_are_drawn_behind():
    fixtures = [
        Fixture(kind="pin", vertices_m=((5.0, 9.0),), radius_m=0.3),
        Fixture(kind="ramp", vertices_m=((0.0, 0.0), (5.0, 0.0), (0.0, 3.0))),
    ]
    drawing = Renderer([solid()], (100, 100), fixtures=fixtures, rods=[Rod(solid=0, pivot_m=(5.0, 9.0))]).draw(
        np.array([[5.0, 5.0]]), np.zeros(1)
    )
    grey = np.array(PALETTE["grey"])
    assert (np.abs(drawing.frame[10, 50] - grey) < 2).all()
    np.testing.assert_array_equal(drawing.frame[95, 5], grey)
    np.testing.assert_array_equal(drawing.frame[50, 50], PALETTE["blue"])
    assert (drawing.frame[30, 50] != BACKGROUND).all()
    assert set(np.unique(drawing.segmentation)) == {0, 1}


def test_looks_blend_opacity_colour_and_shape():
    at, turn = np.array([[5.0, 5.0]]), np.zeros(1)
    renderer = Renderer([solid()], (64, 64), morph_into=[solid("box")])
    own = np.array([PALETTE["blue"]], float)
    plain = renderer.draw(at, turn).frame
    same = renderer.draw(at, turn, Look(np.ones(1), own, np.zeros(1))).frame
    np.testing.assert_array_equal(plain, same)
    half = renderer.draw(at, turn, Look(np.full(1, 0.5), own, np.zeros(1))).frame
    np.testing.assert_allclose(half[32, 32], 0.5 * (own[0] + BACKGROUND), atol=1)
    gone = renderer.draw(at, turn, Look(np.full(1, 0.2), own, np.zeros(1)))
    assert not gone.full_masks.any()
    box = renderer.draw(at, turn, Look(np.ones(1), own, np.ones(1))).frame
    np.testing.assert_array_equal(box, Renderer([solid("box")], (64, 64)).draw(at, turn).frame)


@pytest.mark.parametrize("size", [(4, 64), (64,), (64.5, 64), (0, 0)])
def test_impossible_sizes_are_named(size):
    with pytest.raises(SceneError, match="size"):
        Renderer([solid()], size)


def test_the_shorter_side_shows_ten_metres():
    assert view_m((64, 64)) == (10.0, 10.0)
    assert view_m((64, 128)) == (20.0, 10.0)
    assert view_m((90, 60)) == (10.0, 15.0)
