"""Flights: stretches in which an object touches nothing, and what its path says about acceleration.

In a flight a lawful object has constant acceleration, the same for all. Each flight is fitted with a parabola by least
squares with the measured tracking noise, so that accelerations and velocities carry error bars
(SE(a) = σ √720 / (T² √n) for n frames over the time T). Time is in frames, length in pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from eval.physics.evidence import log_p_chi2
from eval.physics.tracks import Tracks

# Both gaps beside an interval are read from whole pixels. Each is too large by up to one: where two outlines meet, a
# pixel of which neither covers half belongs to neither.
GAP_ERROR_PX = 2.2
# Edges towards the frame are read to a fraction of a pixel.
EDGE_ERROR_PX = 0.8
# The edges of round objects, which show no corners, are read to 0.1 px each.
ROUND_EDGE_ERROR_PX = 0.4
# Of the fastest turn that the frame rate can tell from its opposite.
ALIAS_SHARE = 0.6
MIN_FIT = 4
AGREEMENT_Z = 4.0
# Flights that differ more significantly than this are two.
JOIN_LOG_P = np.log(0.01)
SHORT_GAP_FRAMES = 2


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
    t0 = float(times.sum() / len(times))
    s = times - t0
    n = len(s)
    design = np.zeros((n + (gravity is not None), 3))
    target = np.empty((len(design), 2))
    design[:n, 0], design[:n, 1], design[:n, 2] = 1.0 / sigma, s / sigma, s * s / (2.0 * sigma)
    target[:n] = points / sigma
    if gravity is not None:
        design[n, 2], target[n] = 1.0 / gravity.error, gravity.value / gravity.error
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
        free: (T-1, N) bool; whole and apart in both frames, and near nothing.
    """

    scenery: np.ndarray
    border: np.ndarray
    objects: np.ndarray
    free: np.ndarray


def nearness(tracks: Tracks) -> Nearness:
    """What may have touched what, interval by interval."""
    step = np.nan_to_num(np.diff(tracks.centroid_px, axis=0))
    slack = _swing(tracks) + _pull(step)
    around, edge = tracks.around, tracks.border_px
    way = _neighbours_max(np.linalg.norm(step, axis=-1)) + slack
    scenery = around.scenery_px[:-1] + around.scenery_px[1:] <= way + GAP_ERROR_PX
    # Towards a side of the frame only motion across it counts, between two objects only relative motion.
    across = _neighbours_max(np.abs(step))[..., [0, 0, 1, 1]] + slack[..., None]
    # Not seen (NaN) is not near; such intervals are not free for want of wholeness.
    border = edge[:-1] + edge[1:] <= across + edge_error(tracks)[:, None]
    relative = _neighbours_max(np.linalg.norm(step[:, :, None] - step[:, None, :], axis=-1))
    # Both may turn back within an interval, from what touches the one or the other.
    step_px = np.linalg.norm(step, axis=-1)
    at_ends = np.zeros(len(step), bool)
    at_ends[[0, -1]] = True
    own = np.where(at_ends[:, None, None], step_px[:, :, None] + step_px[:, None, :], 0.0)
    between = around.between_px[:-1] + around.between_px[1:]
    objects = between <= np.maximum(relative, own) + slack[:, :, None] + slack[:, None, :] + GAP_ERROR_PX
    objects &= ~np.eye(len(tracks), dtype=bool)
    placed = tracks.whole & tracks.apart
    free = placed[:-1] & placed[1:] & ~scenery & ~border.any(axis=-1) & ~objects.any(axis=-1)
    return Nearness(scenery=scenery, border=border, objects=objects, free=free)


def edge_error(tracks: Tracks) -> np.ndarray:
    """(N,) px: error of two distances of an object from a side of the frame."""
    return np.where(tracks.fold == 0, ROUND_EDGE_ERROR_PX, EDGE_ERROR_PX)


def flights(tracks: Tracks, near: Nearness) -> list[Flight]:
    """All free flights of at least two frames, by object and time.

    Flights of one object that continue each other, after passing near something or behind it, are one.
    """
    found = []
    for k in range(len(tracks)):
        padded = np.concatenate([[False], near.free[:, k], [False]])
        edges = np.flatnonzero(np.diff(padded.astype(int)))
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            times = np.arange(first, last + 1)
            points = tracks.centroid_px[times, k]
            found.append(Flight(item=k, times=times.astype(float), points=points, sigma=float(tracks.noise_px[k])))
    return _joined(found)


def _joined(found: list[Flight]) -> list[Flight]:
    joined: list[Flight] = []
    for flight in found:
        last = joined[-1] if joined else None
        if last is None or last.item != flight.item or not _continues(last, flight):
            joined.append(flight)
            continue
        times, points = np.concatenate([last.times, flight.times]), np.concatenate([last.points, flight.points])
        joined[-1] = Flight(item=flight.item, times=times, points=points, sigma=flight.sigma)
    return joined


def _continues(a: Flight, b: Flight) -> bool:
    """Whether one parabola fits both flights as well as two; never so if too short or too far apart to tell."""
    few, many = sorted((len(a), len(b)))
    long_gap = b.start - a.stop + 1 > SHORT_GAP_FRAMES
    # With few points and a long gap, another acceleration can pass for another velocity.
    if many < MIN_FIT + 2 or (long_gap and few < MIN_FIT + 2):
        return False
    times, points = np.concatenate([a.times, b.times]), np.concatenate([a.points, b.points])
    apart = [fit(f.times, f.points, f.sigma).chi2 if len(f) >= 3 else 0.0 for f in (a, b)]
    extra = fit(times, points, a.sigma).chi2 - sum(apart)
    return bool(log_p_chi2(max(extra, 0.0), 2 * min(len(a), len(b), 3)) > JOIN_LOG_P)


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


def _swing(tracks: Tracks) -> np.ndarray:
    """(T-1, N) px: by how much more than its edges tell an object may have reached out, on both sides of an interval.

    A turning outline reaches further between frames than in them: no further than it ever does, nor than its corners
    move within the interval, where the turn is slow enough to be read. A round one never does.
    """
    left, right, top, bottom = np.moveaxis(tracks.extent_px, -1, 0)
    x, y = np.moveaxis(tracks.centroid_px, -1, 0)
    reach = np.stack([x - left, right - x, y - top, bottom - y], axis=-1)
    reach = np.where(tracks.whole[..., None], reach, np.nan)
    swing = np.zeros((len(reach) - 1, len(tracks)))
    for k in np.flatnonzero(tracks.whole.any(axis=0) & (tracks.fold > 0)):
        furthest, nearest = np.nanmax(reach[:, k], axis=0), np.nanmin(reach[:, k], axis=0)
        swing[:, k] = 2.0 * np.max(furthest - nearest)
        turn = np.abs(np.diff(tracks.turn_rad[:, k]))
        limit = ALIAS_SHARE * np.pi / tracks.fold[k]
        known = np.where(np.isfinite(turn), turn, limit)
        corners = float(furthest.max()) * _neighbours_max(np.maximum(known, np.roll(known, 1)))
        swing[:, k] = np.where(np.nanmax(turn, initial=0.0) < limit, np.minimum(swing[:, k], corners), swing[:, k])
    return swing


def _pull(step: np.ndarray) -> np.ndarray:
    """(N,) px/frame: how much faster than the steps around it an object may be within an interval, by steady force."""
    if len(step) < 2:
        return np.zeros(step.shape[1])
    return 2.0 * np.median(np.linalg.norm(np.diff(step, axis=0), axis=-1), axis=0)


def _neighbours_max(step: np.ndarray) -> np.ndarray:
    """For each interval the largest step of the two intervals before and after it (its own if it is the only one)."""
    if len(step) == 1:
        return step
    padded = np.concatenate([np.zeros_like(step[:2]), step, np.zeros_like(step[:2])])[: len(step) + 4]
    n = len(step)
    return np.max([padded[i : i + n] for i in (0, 1, 3, 4)], axis=0)


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])
