"""Evaluator that takes a learned feature network: MEt3R-style consistency of warped features."""

import numpy as np

from eval.clip import Clip
from eval.geometry import guards
from eval.geometry.depth import correspond
from eval.geometry.known_depth import frame_means, views
from eval.geometry.plugins import FeatureNetwork, feature_distance, require_health
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error


@evaluator(
    "feature_consistency", suite="geometry", unit="1", better="lower", needs=("depth_m", "world_from_camera", "K")
)
def feature_consistency(clip: Clip, *, network: FeatureNetwork | None = None, gap: int = 1) -> Measurement:
    """1 - cosine similarity of a feature network's features after warping by depth (MEt3R-style, arXiv 2501.06336).

    MEt3R takes geometry and features from networks; here the geometry is the commanded one. Without a network there is
    no score: none ships with the package.

    Args:
        clip: With depth, poses and intrinsics.
        network: A `eval.geometry.plugins.FeatureNetwork`, for example `TorchFeatures`.
        gap: Frame distance of the compared pairs.
    """
    if network is None:
        raise Unmeasurable("missing", "needs a feature network: pass network=TorchFeatures(...)")
    guards.require_frames(clip, gap + 1)
    with guards.refusals():
        require_health(network)
        seen, K = views(clip)
        features = network.features(clip.frames)
        distances = {}
        for i in range(len(clip) - gap):
            found = correspond(seen[i + gap], seen[i], K)
            if found.visible.mean() >= guards.MIN_TESTED:
                distances[i, i + gap] = feature_distance(features[i + gap], features[i], found.pixels, found.visible)
    if not distances:
        raise Unmeasurable("insufficient", "no pair of frames sees the same part of the world")
    values = np.array(list(distances.values()))
    return Measurement(
        value=float(values.mean()),
        normalised=float(np.clip(1.0 - values.mean(), 0.0, 1.0)),
        uncertainty=standard_error(values),
        coverage=len(distances) / (len(clip) - gap),
        per_frame=frame_means(distances, len(clip)),
        details={"network": repr(network), "version": network.version, "precision": network.precision},
    )
