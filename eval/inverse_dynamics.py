"""Inverse dynamics: which action was taken between two frames? A small classifier, fitted to real video.

If it reads the commanded actions from a dream as well as from real video, the dream follows its actions. Nothing is
learned elsewhere: colours are tracked, and a ridge regression maps their motion to actions.
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
# Softness of the assignment of pixels to colours, in grey levels: anti-aliased edges belong to two colours.
SOFTNESS_LEVELS = 24.0
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
        interval: 95 % bootstrap interval of `following` over the dream's videos.
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
        palette: (K, 3) colours whose motion is followed.
        centre: (D,) mean of the features over the training transitions.
        spread: (D,) their standard deviation.
        weights: (D, A) ridge weights.
        intercept: (A,) mean target.
        classes: (A,) discrete actions, or None for continuous ones.
    """

    palette: np.ndarray
    centre: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray
    classes: np.ndarray | None

    @classmethod
    def fit(cls, videos: Sequence[np.ndarray], actions: Sequence[np.ndarray], *, ridge: float = 1e-3) -> Self:
        """Fits to real video.

        Args:
            videos: uint8 (T, H, W, 3) each.
            actions: (T-1,) integers each, or (T-1, A) floats.
            ridge: Penalty on standardised features, as a share of the number of transitions.

        Raises:
            MeasureError: If lengths do not fit, values are not finite, or the actions never vary.
        """
        _check(videos, actions)
        palette = find_palette(videos)
        features = np.concatenate([colour_motion(v, palette) for v in videos])
        stacked = np.concatenate([np.asarray(a) for a in actions])
        classes = np.unique(stacked) if _discrete(stacked) else None
        targets = np.equal.outer(stacked, classes).astype(float) if classes is not None else _columns(stacked)
        if np.ptp(targets, axis=0).max() == 0:
            raise MeasureError(expected="actions that vary", got="one action only", remedy="Use a random policy.")
        centre, spread = features.mean(axis=0), features.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        z, intercept = (features - centre) / spread, targets.mean(axis=0)
        gram = z.T @ z + ridge * len(z) * np.eye(z.shape[1])
        return cls(
            palette=palette,
            centre=centre,
            spread=spread,
            weights=np.linalg.solve(gram, z.T @ (targets - intercept)),
            intercept=intercept,
            classes=classes,
        )

    def predict(self, frames: np.ndarray) -> np.ndarray:
        """The actions read from uint8 (T, H, W, 3): (T-1,) classes, or (T-1, A) values."""
        scores = (colour_motion(frames, self.palette) - self.centre) / self.spread @ self.weights + self.intercept
        return scores if self.classes is None else self.classes[scores.argmax(axis=1)]

    def hits(self, predicted: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """(T-1,) 1 or 0 a transition, or 1 - squared error / variance for continuous actions; the mean is the score."""
        if self.classes is not None:
            return (predicted == actions).astype(float)
        error = np.sum((predicted - _columns(actions)) ** 2, axis=1)
        return 1 - error / np.sum(np.var(_columns(actions), axis=0))


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
    ceiling = float(model.hits(*_read(model, *real)).mean())
    predicted, commanded = _read(model, *dream)
    hits = model.hits(predicted, commanded)
    floor = float(np.mean([model.hits(predicted, rng.permutation(commanded)).mean() for _ in range(shuffles)]))
    if ceiling <= floor:
        raise MeasureError(
            expected="actions that can be read from real video",
            got=f"{ceiling:.3f} on real video, {floor:.3f} with shuffled actions",
            remedy="Fit to more video, or to video in which the action shows.",
        )
    ends = np.cumsum([len(a) for a in dream[1]])[:-1]
    sums, counts = np.array([(h.sum(), len(h)) for h in np.split(hits, ends)]).T

    def following(videos: np.ndarray) -> float:
        return float((sums[videos].sum() / counts[videos].sum() - floor) / (ceiling - floor))

    everything = np.arange(len(sums))
    interval = bootstrap_interval(following, len(sums), rng=rng)
    return ActionFollowing(float(hits.mean()), ceiling, floor, following(everything), interval)


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
        if distance.max() < 2 * SOFTNESS_LEVELS:
            break
        chosen.append(int(distance.argmax()))
    return candidates[chosen]


def colour_motion(frames: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """How each colour moves around each transition.

    For every colour: the velocity of its centroid over the transition, the one before and the one after, the two
    changes of velocity, its position and its change of area, all as shares of the frame; zeros where it is absent.

    Args:
        frames: uint8 (T, H, W, 3), T at least 2.
        palette: (K, 3).

    Returns:
        (T-1, 13·K) float64.
    """
    count, height, width, _ = frames.shape
    grid = np.stack(np.meshgrid(np.arange(width) / width, np.arange(height) / height), axis=-1).reshape(-1, 2)
    centroid, area = np.zeros((count, len(palette), 2)), np.zeros((count, len(palette)))
    for t, frame in enumerate(frames.reshape(count, -1, 3).astype(np.float64)):
        distance = np.stack([np.sum((frame - colour) ** 2, axis=1) for colour in palette])
        share = np.exp(-(distance - distance.min(axis=0)) / (2 * SOFTNESS_LEVELS**2))
        share /= share.sum(axis=0)
        mass = share.sum(axis=1)
        area[t], centroid[t] = mass / len(frame), share @ grid / np.maximum(mass, 1e-9)[:, None]
    present = area > PRESENT_SHARE
    velocity = np.where((present[1:] & present[:-1])[..., None], np.diff(centroid, axis=0), 0.0)
    before = np.concatenate([velocity[:1], velocity[:-1]])
    after = np.concatenate([velocity[1:], velocity[-1:]])
    place = np.where(present[:-1, :, None], centroid[:-1], 0.5)
    growth = np.diff(area, axis=0)[..., None]
    parts = [before, velocity, after, velocity - before, after - velocity, place, growth]
    return np.concatenate(parts, axis=-1).reshape(count - 1, -1)


def _read(
    model: InverseDynamics, videos: Sequence[np.ndarray], actions: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([model.predict(v) for v in videos]), np.concatenate([np.asarray(a) for a in actions])


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
