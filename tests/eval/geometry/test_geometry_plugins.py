from dataclasses import replace

import numpy as np
import pytest
import torch

from eval.errors import MeasureError
from eval.geometry.depth import correspond
from eval.geometry.known_depth import views
from eval.geometry.learned import feature_consistency
from eval.geometry.plugins import DepthNetwork, FeatureNetwork, MatchingNetwork, Plugin, TorchFeatures, feature_distance


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 12, 5, stride=2, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(12, 10, 3, padding=1)
    )
    return TorchFeatures(module=module, name="tiny-random", version="0")


def test_adapter_keeps_the_protocol(network, walk):
    assert isinstance(network, Plugin)
    assert isinstance(network, FeatureNetwork)
    assert not isinstance(network, DepthNetwork | MatchingNetwork)
    assert network.health().ok
    features = network.features(walk.frames)
    assert features.shape == (10, 32, 32, 10)
    assert features.dtype == np.float32
    small_batches = replace(network, batch=3).features(walk.frames)
    np.testing.assert_allclose(small_batches, features, atol=1e-5)
    assert "tiny-random@0" in repr(network)


def test_unhealthy_plugins_say_why(walk):
    wrong = TorchFeatures(module="weights.pt", name="missing", version="1")
    assert not wrong.health().ok
    with pytest.raises(MeasureError, match=r"not a torch\.nn\.Module"):
        wrong.features(walk.frames)
    score = feature_consistency(walk, network=wrong)
    assert score.status == "failed"
    flat = TorchFeatures(module=torch.nn.Flatten(), name="flat", version="1")
    assert "dense feature map" in feature_consistency(walk, network=flat).reason
    assert feature_consistency(walk).status == "missing"


def test_features_of_a_true_world_agree_after_warping(network, walk):
    true = feature_consistency(walk, network=network)
    frozen = feature_consistency(replace(walk, frames=np.repeat(walk.frames[:1], 10, axis=0)), network=network)
    shuffled = feature_consistency(
        replace(walk, frames=walk.frames[np.random.default_rng(0).permutation(10)]), network=network
    )
    assert true.value < 0.5 * min(frozen.value, shuffled.value)
    assert true.details["network"] == repr(network)
    assert true.provenance["config"] != feature_consistency(walk).provenance["config"]


def test_feature_distance_of_known_features(walk):
    seen, K = views(walk)
    found = correspond(seen[0], seen[0], K)
    features = np.random.default_rng(0).normal(size=(16, 16, 6)).astype(np.float32)
    assert feature_distance(features, features, found.pixels, found.visible) == pytest.approx(0, abs=1e-5)
    assert feature_distance(features, -features, found.pixels, found.visible) == pytest.approx(2, abs=1e-5)
    with pytest.raises(MeasureError, match="overlap"):
        feature_distance(features, features, found.pixels, ~found.visible)
