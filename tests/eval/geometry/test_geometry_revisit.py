import json

import numpy as np
import pytest
from geometry_scene import DATA

from eval.errors import MeasureError
from eval.geometry.revisit import changed_levels, loop_consistency, world_stability

OUTPUTS = json.loads((DATA / "golden_geometry.json").read_text())["outputs"]["world_stability"]


def test_world_stability_matches_the_published_formula(golden):
    d = golden["ws_distance_triples"]
    got = world_stability(*d.T)
    np.testing.assert_allclose(got, golden["ws_values"], rtol=1e-12, equal_nan=True)
    d = OUTPUTS["frames_with_mean_absolute_difference"]
    np.testing.assert_allclose(world_stability(d["d_start_return"], d["d_start_mid"], d["d_return_mid"]), d["WS"])


def test_world_stability_of_special_clips():
    assert np.isnan(world_stability(0, 0, 0))
    assert world_stability(0, 0.4, 0.4) == 0
    assert world_stability(0.4, 0.4, 0) == 2
    with pytest.raises(MeasureError, match=">= 0"):
        world_stability(-1, 1, 1)


def test_loop_consistency_spans_chance_to_perfect():
    null = np.array([0.4, 0.6, 0.5])
    assert loop_consistency(np.zeros(3), null).share == 1
    assert loop_consistency(null[[1, 2, 0]], null).share == pytest.approx(0)
    half = loop_consistency(null / 2, null)
    assert half.share == pytest.approx(0.5)
    assert half.standard_error == pytest.approx(0, abs=1e-12)
    with pytest.raises(MeasureError, match="places that differ"):
        loop_consistency(np.zeros(3), np.zeros(3))


def test_changes_count_beyond_the_noise_that_is_named():
    rng = np.random.default_rng(0)
    flat = np.full((64, 64, 3), 100, np.uint8)
    # A flat frame has no gradient, so of five levels all but the two of rounding remain.
    assert changed_levels(flat, flat + 5, 0.0) == pytest.approx(3.0, abs=1e-4)
    noisy = [np.clip(100 + rng.normal(0, 8, flat.shape), 0, 255).astype(np.uint8) for _ in range(2)]
    grey_difference = 8 * np.sqrt(2 * (0.299**2 + 0.587**2 + 0.114**2))
    assert changed_levels(*noisy, grey_difference) < 1e-3 < 0.1 < changed_levels(*noisy, 0.0)
    half = np.zeros((64, 64), bool)
    half[:, :32] = True
    split = flat.copy()
    split[:, 40:] += 50
    assert changed_levels(flat, split, 0.0, half) == 0.0 < changed_levels(flat, split, 0.0)
    with pytest.raises(MeasureError, match="mask"):
        changed_levels(flat, flat, 0.0, half & ~half)


def test_half_a_pixel_of_misplacement_is_no_change():
    x = np.arange(256) * 0.5 + 20
    ramp = np.broadcast_to(x[None, :, None], (256, 256, 3))
    shifted = ramp + 0.5 * 8.0
    a, b = ramp.astype(np.uint8), shifted.astype(np.uint8)
    # Eight pixels on a slope of half a level: 4 levels, of which rounding and half a pixel excuse 2.25.
    assert changed_levels(a, b, 0.0) == pytest.approx(1.75, abs=0.1)
