import json

import numpy as np
import pytest
from geometry_scene import DATA

from eval.errors import MeasureError
from eval.geometry.revisit import loop_consistency, world_stability

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
