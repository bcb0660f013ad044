"""Flights: stretches in which an object touches nothing, and what its path says about acceleration.

In a flight a lawful object has constant acceleration, the same for all. Each flight is fitted with a parabola by least
squares with the measured tracking noise, so that accelerations and velocities carry error bars
(SE(a) = σ √720 / (T² √n) for n frames over the time T). Time is in frames, length in pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from eval.physics.tracks import Tracks

# Both gaps beside an interval are read from whole pixels, each too large by up to one.
GAP_ERROR_PX = 2.0
MIN_FIT = 4
AGREEMENT_Z = 4.0


@dataclass(frozen=True, kw_only=True)
class Flight:
    """An object in free flight from frame `start` to `stop` (exclusive).

    Attributes:
        item: Object index.
        times: (n,) frame numbers.
        points: (n, 2) centroids in pixels.
        sigma: Standard deviation of each coordinate in pixels.
    """

    item: int
    times: np.ndarray
    points: np.ndarray
    sigma: float

    @property
    def start(self) -> int:
        """First frame."""
        return int(self.times[0])

    @property
    def stop(self) -> int:
        """Frame after the last."""
        return int(self.times[-1]) + 1

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, kw_only=True)
class Parabola:
    """x(t) = p + v (t - t0) + a (t - t0)² / 2 fitted to a flight.

    Attributes:
        t0: Reference time.
        state: (3, 2) p, v, a.
        covariance: (3, 3) of p, v, a, the same for both axes.
        chi2: Sum of squared standardised residuals.
        dof: Its degrees of freedom.
    """

    t0: float
    state: np.ndarray
    covariance: np.ndarray
    chi2: float
    dof: int

    def at(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """State (3, 2) at time t and its covariance (3, 3)."""
        s = t - self.t0
        move = np.array([[1.0, s, 0.5 * s * s], [0.0, 1.0, s], [0.0, 0.0, 1.0]])
        return move @ self.state, move @ self.covariance @ move.T


@dataclass(frozen=True, kw_only=True)
class Gravity:
    """The acceleration that all free objects share, in px/frame², and its standard error per axis."""

    value: np.ndarray
    error: float


def fit(times: np.ndarray, points: np.ndarray, sigma: float, gravity: Gravity | None = None) -> Parabola:
    """Least-squares parabola of (n,) times and (n, 2) points; `gravity` enters as one more observation of a.

    Raises:
        ValueError: If there are under three points and no gravity, or under two.
    """
    if len(times) < (3 if gravity is None else 2):
        raise ValueError(f"{len(times)} points do not fix a parabola")
    t0 = float(times.mean())
    s = times - t0
    design = np.stack([np.ones_like(s), s, 0.5 * s * s], axis=1) / sigma
    target = points / sigma
    if gravity is not None:
        design = np.vstack([design, [0.0, 0.0, 1.0 / gravity.error]])
        target = np.vstack([target, gravity.value / gravity.error])
    covariance = np.linalg.inv(design.T @ design)
    state = covariance @ (design.T @ target)
    return Parabola(
        t0=t0,
        state=state,
        covariance=covariance,
        chi2=float(np.sum((target - design @ state) ** 2)),
        dof=2 * (len(design) - 3),
    )


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """What each object may have touched between frame t and t+1.

    Something can be touched within an interval only if the gaps before and after it add up to no more than the way
    travelled. The way is taken from the neighbouring intervals, for a jump must not excuse itself.

    Attributes:
        scenery: (T-1, N) bool.
        border: (T-1, N, 4) bool; left, right, top, bottom.
        objects: (T-1, N, N) bool.
        free: (T-1, N) bool; whole in both frames and near nothing.
    """

    scenery: np.ndarray
    border: np.ndarray
    objects: np.ndarray
    free: np.ndarray


def nearness(tracks: Tracks) -> Nearness:
    """What may have touched what, interval by interval."""
    step = np.linalg.norm(np.diff(tracks.centroid_px, axis=0), axis=-1)
    way = _neighbours_max(np.where(np.isfinite(step), step, 0.0))
    around = tracks.around
    scenery = around.scenery_px[:-1] + around.scenery_px[1:] <= way + GAP_ERROR_PX
    border = around.border_px[:-1] + around.border_px[1:] <= way[..., None] + GAP_ERROR_PX
    between = around.between_px[:-1] + around.between_px[1:]
    objects = between <= way[:, :, None] + way[:, None, :] + GAP_ERROR_PX
    objects &= ~np.eye(len(tracks), dtype=bool)
    whole = tracks.whole[:-1] & tracks.whole[1:]
    free = whole & ~scenery & ~border.any(axis=-1) & ~objects.any(axis=-1)
    return Nearness(scenery=scenery, border=border, objects=objects, free=free)


def flights(tracks: Tracks, near: Nearness) -> list[Flight]:
    """All free flights of at least two frames, by object and time."""
    found = []
    for k in range(len(tracks)):
        padded = np.concatenate([[False], near.free[:, k], [False]])
        edges = np.flatnonzero(np.diff(padded.astype(int)))
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            times = np.arange(first, last + 1)
            points = tracks.centroid_px[times, k]
            found.append(Flight(item=k, times=times.astype(float), points=points, sigma=float(tracks.noise_px[k])))
    return found


def pooled_gravity(found: list[Flight]) -> Gravity | None:
    """What the accelerations of flights have in common, or None if none is long enough."""
    usable = [fit(f.times, f.points, f.sigma) for f in found if len(f) >= MIN_FIT]
    if not usable:
        return None
    return common([p.state[2] for p in usable], [p.covariance[2, 2] for p in usable])


def common(values: ArrayLike, variances: ArrayLike) -> Gravity:
    """Inverse-variance weighted mean of accelerations (2,) that agree with their weighted median.

    One broken flight must not move what the others share.
    """
    stacked, weights = np.asarray(values, float), 1.0 / np.asarray(variances, float)
    centre = np.array([_weighted_median(stacked[:, c], weights) for c in (0, 1)])
    agree = np.sum((stacked - centre) ** 2, axis=1) * weights < AGREEMENT_Z**2
    if not agree.any():
        agree = np.ones(len(weights), bool)
    value = np.average(stacked[agree], axis=0, weights=weights[agree])
    return Gravity(value=value, error=float(1.0 / np.sqrt(weights[agree].sum())))


def _neighbours_max(step: np.ndarray) -> np.ndarray:
    """For each interval the larger step of the intervals just before and after it (its own where there are none)."""
    if len(step) == 1:
        return step
    before = np.concatenate([step[1:2], step[:-1]])
    after = np.concatenate([step[1:], step[-2:-1]])
    return np.maximum(before, after)


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])
