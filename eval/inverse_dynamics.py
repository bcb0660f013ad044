"""Inverse dynamics: which action was taken between two frames? A small classifier, fitted to real video.

If it reads the commanded actions from a dream as well as from real video, the dream follows its actions. Nothing is
learned elsewhere: colours are tracked, and their motion is mapped to actions by linear discriminants (discrete
actions) or ridge regression (continuous ones).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from eval.errors import MeasureError
from eval.fidelity import check_pair
from eval.uncertainty import bootstrap_interval

MAX_COLOURS = 8
# Colours rarer than this share of all pixels are edges and noise.
RARE_SHARE = 5e-4
# Colours nearer to each other than this, in grey levels, are one.
DISTINCT_LEVELS = 48.0
# Share of a colour below which a pixel is taken for background: noise.
FAINT_SHARE = 0.1
# Features further from their median than this many robust standard deviations count as that far.
CLIP = 3.0
PIXELS_PER_VIDEO = 20_000
# Share of the frame below which a colour counts as absent.
PRESENT_SHARE = 2e-4


class ActionFollowing(NamedTuple):
    """How well actions can be read from a dream, between chance and real video.

    Accuracy for discrete actions, share of explained variance (R²) for continuous ones.

    Attributes:
        dream: On the dream.
        real: On held-out real video: the ceiling of this classifier.
        shuffled: On the dream, with its actions shuffled: the floor.
        following: (dream - shuffled) / (real - shuffled): 1 as readable as real video, 0 no better than chance.
        interval: 95 % bootstrap interval of `following` over the videos of both sets.
    """

    dream: float
    real: float
    shuffled: float
    following: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class InverseDynamics:
    """A fitted reader of actions.

    Attributes:
        palette: (K, 3) colours whose motion is followed, the ground first.
        centre: (D,) median of the features over the training transitions.
        spread: (D,) their robust standard deviation.
        weights: (D, A) of the clipped, standardised features.
        intercept: (A,).
        classes: (A,) discrete actions, or None for continuous ones.
        variance: Sum of the variances of the training actions' columns, against which continuous errors count.
    """

    palette: np.ndarray
    centre: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray
    classes: np.ndarray | None
    variance: float

    @classmethod
    def fit(cls, videos: Sequence[np.ndarray], actions: Sequence[np.ndarray], *, ridge: float = 1e-3) -> Self:
        """Fits to real video.

        Args:
            videos: uint8 (T, H, W, 3) each.
            actions: (T-1,) integers each, or (T-1, A) floats.
            ridge: Added to the diagonal of the covariance of the standardised features.

        Raises:
            MeasureError: If lengths do not fit, values are not finite, or the actions never vary.
        """
        _check(videos, actions)
        palette = find_palette(videos)
        features = np.concatenate([colour_motion(v, palette) for v in videos])
        taken = np.concatenate([np.asarray(a) for a in actions])
        classes = np.unique(taken) if _discrete(taken) else None
        if np.ptp(_columns(taken), axis=0).max() == 0:
            raise MeasureError(expected="actions that vary", got="one action only", remedy="Use a random policy.")
        centre, spread = _robust_scale(features)
        z = _standardise(features, centre, spread)
        solve = _ridge_regression if classes is None else _linear_discriminants
        weights, intercept = solve(z, _columns(taken) if classes is None else np.equal.outer(taken, classes), ridge)
        return cls(
            palette=palette,
            centre=centre,
            spread=spread,
            weights=weights,
            intercept=intercept,
            classes=classes,
            variance=float(np.var(_columns(taken), axis=0).sum()),
        )

    def predict(self, frames: np.ndarray) -> np.ndarray:
        """The actions read from uint8 (T, H, W, 3): (T-1,) classes, or (T-1, A) values."""
        features = colour_motion(frames, self.palette)
        scores = _standardise(features, self.centre, self.spread) @ self.weights + self.intercept
        return scores if self.classes is None else self.classes[scores.argmax(axis=1)]

    def hits(self, predicted: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """(T-1,) 1 or 0 a transition, or 1 - squared error / variance for continuous actions; the mean is the score."""
        if self.classes is not None:
            return (predicted == actions).astype(float)
        return 1 - np.sum((predicted - _columns(actions)) ** 2, axis=1) / self.variance


def action_following(
    model: InverseDynamics,
    real: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    dream: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    *,
    rng: np.random.Generator | None = None,
    shuffles: int = 50,
) -> ActionFollowing:
    """How readable the actions of a dream are, between shuffled actions and real video.

    Args:
        model: Fitted to other real videos.
        real: Held-out real videos and their actions.
        dream: Dreamed videos and the actions that were commanded.
        rng: For shuffling and bootstrap; `default_rng(0)` if absent.
        shuffles: Number of permutations that the floor averages.

    Raises:
        MeasureError: If lengths do not fit, or the classifier cannot read actions even from real video.
    """
    rng = rng or np.random.default_rng(0)
    _check(*real)
    _check(*dream)
    predicted = [model.predict(v) for v in dream[0]]
    together, commanded = np.concatenate(predicted), np.concatenate([np.asarray(a) for a in dream[1]])
    floor = float(np.mean([model.hits(together, rng.permutation(commanded)).mean() for _ in range(shuffles)]))
    hits, real_hits = _hits(model, predicted, dream[1]), _hits(model, [model.predict(v) for v in real[0]], real[1])
    ceiling = _pooled(real_hits)
    if ceiling <= floor:
        raise MeasureError(
            expected="actions that can be read from real video",
            got=f"{ceiling:.3f} on real video, {floor:.3f} with shuffled actions",
            remedy="Fit to more video, or to video in which the action shows.",
        )

    def following(videos: np.ndarray) -> float:
        top = _pooled(real_hits[rng.integers(0, len(real_hits), len(real_hits))])
        # A draw of real videos that is no better than chance bounds nothing.
        return (_pooled(hits[videos]) - floor) / max(top - floor, 1e-9)

    return ActionFollowing(
        dream=_pooled(hits),
        real=ceiling,
        shuffled=floor,
        following=(_pooled(hits) - floor) / (ceiling - floor),
        interval=bootstrap_interval(following, len(hits), rng=rng),
    )


def find_palette(videos: Sequence[np.ndarray], *, colours: int = MAX_COLOURS) -> np.ndarray:
    """(K, 3) colours that are frequent enough and far apart, the most frequent first; K at most `colours`."""
    step = max(1, videos[0].size // 3 // PIXELS_PER_VIDEO)
    pixels = np.concatenate([v.reshape(-1, 3)[::step] for v in videos])
    code = (pixels >> 4).astype(np.int64) @ np.array([256, 16, 1])
    count = np.bincount(code, minlength=4096)
    mean = np.stack([np.bincount(code, weights=c, minlength=4096) for c in pixels.T], axis=-1)
    common = np.flatnonzero(count >= max(1, RARE_SHARE * len(pixels)))
    if not len(common):
        common = np.array([count.argmax()])
    candidates, frequency = mean[common] / count[common, None], count[common]
    chosen = [int(frequency.argmax())]
    while len(chosen) < min(colours, len(common)):
        distance = np.linalg.norm(candidates[:, None] - candidates[chosen], axis=-1).min(axis=1)
        if distance.max() < DISTINCT_LEVELS:
            break
        chosen.append(int(distance.argmax()))
    return candidates[chosen]


def colour_motion(frames: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """How each colour moves around each transition.

    The first colour is the ground; every pixel is the best mixture of it and one other colour, so that the anti-aliased
    edge of a body counts for as much as the body covers. For every other colour: the velocity of its centroid over the
    transition, the one before and the one after, the two changes of velocity, its position and its change of area, all
    as shares of the frame; zeros where it is absent.

    Args:
        frames: uint8 (T, H, W, 3), T at least 2.
        palette: (K, 3).

    Returns:
        (T-1, 13·(K-1)) float64.
    """
    count = len(frames)
    area, moment = _moments(frames, palette)
    centroid = moment / np.maximum(area, 1e-12)[..., None]
    present = area > PRESENT_SHARE
    velocity = np.where((present[1:] & present[:-1])[..., None], np.diff(centroid, axis=0), 0.0)
    before = np.concatenate([velocity[:1], velocity[:-1]])
    after = np.concatenate([velocity[1:], velocity[-1:]])
    place = np.where(present[:-1, :, None], centroid[:-1], 0.5)
    growth = np.diff(area, axis=0)[..., None]
    parts = [before, velocity, after, velocity - before, after - velocity, place, growth]
    return np.concatenate(parts, axis=-1).reshape(count - 1, -1)


def colour_moments(frames: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Where each colour lies, weighted by how much of it there is.

    A colour's first moment about the middle of the frame: its area times its centre's offset. It moves with the body
    of that colour, and goes to zero as the body dissolves.

    Args:
        frames: uint8 (T, H, W, 3).
        palette: (K, 3), the ground first.

    Returns:
        (T, K-1, 2) float64, x and y as shares of the frame, times shares of its area.
    """
    area, moment = _moments(frames, palette)
    return moment - 0.5 * area[..., None]


def _moments(frames: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area (T, K-1) of each colour but the ground, and its first moment (T, K-1, 2) about the frame's corner."""
    count, height, width, _ = frames.shape
    grid = np.stack(np.meshgrid(np.arange(width) / width, np.arange(height) / height), axis=-1).reshape(-1, 2)
    tints = palette[1:] - palette[0]
    shares = [_coverage(frame - palette[0], tints) for frame in frames.reshape(count, -1, 3)]
    pixels = height * width
    return np.stack([s.sum(axis=1) for s in shares]) / pixels, np.stack([s @ grid for s in shares]) / pixels


def _robust_scale(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Impacts throw bodies about far harder than actions push them: a mean and a variance would measure impacts.
    centre = np.median(features, axis=0)
    spread = 1.4826 * np.median(np.abs(features - centre), axis=0)
    spread = np.where(spread > 0, spread, features.std(axis=0))
    return centre, np.where(spread > 0, spread, 1.0)


def _standardise(features: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return np.clip((features - centre) / spread, -CLIP, CLIP)


def _linear_discriminants(z: np.ndarray, member: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Fisher's linear discriminants (D, A) and intercepts (A,) of features (n, D) with membership (n, A)."""
    member = member.astype(float)
    count = member.sum(axis=0)
    means = member.T @ z / count[:, None]
    within = z - member @ means
    covariance = within.T @ within / len(z) + ridge * np.eye(z.shape[1])
    weights = np.linalg.solve(covariance, means.T)
    return weights, np.log(count / len(z)) - 0.5 * np.sum(means.T * weights, axis=0)


def _ridge_regression(z: np.ndarray, target: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights (D, A) and intercept (A,) that predict (n, A) targets from features (n, D)."""
    centred = z - z.mean(axis=0)
    covariance = centred.T @ centred / len(z) + ridge * np.eye(z.shape[1])
    weights = np.linalg.solve(covariance, centred.T @ (target - target.mean(axis=0)) / len(z))
    return weights, target.mean(axis=0) - z.mean(axis=0) @ weights


def _coverage(pixels: np.ndarray, tints: np.ndarray) -> np.ndarray:
    """Share (K, P) of each tint (K, 3) in pixels (P, 3), both relative to the ground; one tint a pixel."""
    power = np.sum(tints**2, axis=1)[:, None]
    along = tints @ pixels.T
    share = np.clip(along / power, 0.0, 1.0)
    residual = share * (share * power - 2 * along)
    best = residual == residual.min(axis=0)
    return np.where(best & (share > FAINT_SHARE), share, 0.0)


def _hits(model: InverseDynamics, predicted: Sequence[np.ndarray], actions: Sequence[np.ndarray]) -> np.ndarray:
    """(N, 2) sum of hits and number of transitions of each video."""
    hits = [model.hits(p, np.asarray(a)) for p, a in zip(predicted, actions, strict=True)]
    return np.array([(h.sum(), len(h)) for h in hits])


def _pooled(hits: np.ndarray) -> float:
    return float(hits[:, 0].sum() / hits[:, 1].sum())


def _check(videos: Sequence[np.ndarray], actions: Sequence[np.ndarray]) -> None:
    if not len(videos) == len(actions) >= 1:
        raise MeasureError(
            expected="one array of actions for each of at least one video",
            got=(len(videos), len(actions)),
            remedy="actions[i] belongs to videos[i].",
        )
    for video, taken in zip(videos, actions, strict=True):
        check_pair(video, video)
        if len(video) < 2 or len(taken) != len(video) - 1 or not np.isfinite(taken).all():
            raise MeasureError(
                expected="T-1 finite actions for T frames, T at least 2",
                got=f"{len(taken)} for {len(video)}",
                remedy="actions[i] carries frame i to frame i+1.",
            )


def _discrete(actions: np.ndarray) -> bool:
    return actions.ndim == 1 and np.issubdtype(actions.dtype, np.integer)


def _columns(actions: np.ndarray) -> np.ndarray:
    return np.asarray(actions, float).reshape(len(actions), -1)
