"""Distances between sets of videos as evaluators with validity cards of their own.

They say how far a set lies from a set of real videos, and nothing of any one video; so they take two sets, and no
`Clip`. `worldsim validate --world sets` measures them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from eval.features import describe, frechet_distance, kernel_distance, standardised
from eval.score import Evaluator, Measurement

CLAIMS = ("softening", "grain")


class VideoSet:
    """Videos uint8 (T, H, W, 3), which are described once, however often they are compared."""

    def __init__(self, videos: Sequence[np.ndarray]) -> None:
        self.videos = videos
        self.features: np.ndarray | None = None


def features_of(videos: VideoSet) -> np.ndarray:
    """Weight-free features (n, 78) of a set.

    Raises:
        MeasureError: As `eval.features.describe`.
    """
    if videos.features is None:
        videos.features = describe(videos.videos)
    return videos.features


def frechet_of_sets(real: VideoSet, fake: VideoSet) -> Measurement:
    """Fréchet distance of weight-free features, standardised over both sets."""
    return Measurement(value=frechet_distance(*standardised(features_of(real), features_of(fake))))


def kernel_of_sets(real: VideoSet, fake: VideoSet) -> Measurement:
    """Unbiased kernel distance of weight-free features, standardised over both sets; 0 on average for one source."""
    first, second = standardised(features_of(real), features_of(fake))
    return Measurement(value=kernel_distance(first, second, degree=3, coef0=1.0, unbiased=True))


SET_EVALUATORS: Mapping[str, Evaluator] = {
    name: Evaluator(
        name=name,
        suite="sets",
        unit="1",
        better="lower",
        needs=(),
        claims=CLAIMS,
        version=1,
        summary=(measure.__doc__ or "").splitlines()[0],
        measure=measure,
    )
    for name, measure in (("frechet_distance", frechet_of_sets), ("kernel_distance", kernel_of_sets))
}
"""By name. They cannot be called on a clip; `measure` takes two sets."""
