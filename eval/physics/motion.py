"""`Motion`: a clip read as flights and contacts, once for all laws."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from eval.clip import Clip
from eval.physics import tracks as tracks_module
from eval.physics.agent import Agent, agent_of
from eval.physics.clearance import cleared
from eval.physics.evidence import ALPHA, corrected, log_p_chi2
from eval.physics.flights import MIN_FIT, Flight, Gravity, Nearness, fit, flights, nearness, pooled_gravity
from eval.physics.tracks import ClipKey, Tracks, planar_track
from eval.score import Unmeasurable

MIN_SIDE = 2
LONG_FLIGHT = 8


@dataclass(frozen=True, kw_only=True)
class Break:
    """The likeliest moment at which a flight stops being one parabola.

    Attributes:
        flight: The flight.
        index: The break lies between its points `index` - 1 and `index`.
        tests: How many moments were tried.
        log_p: Log p-value, corrected for `tests`, that there is no break.
        jump_log_p: That the paths before and after meet somewhere in the interval.
        jump_px: How far they stay apart.
        velocity_log_p: That the velocity is the same on both sides.
        velocity_change: (2,) in px/frame.
    """

    flight: Flight
    index: int
    tests: int
    log_p: float
    jump_log_p: float
    jump_px: float
    velocity_log_p: float
    velocity_change: np.ndarray

    @property
    def frame(self) -> int:
        """The first frame after the break."""
        return int(self.flight.times[self.index])


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Flights, breaks and gravity of a clip.

    Attributes:
        tracks: The objects.
        agent: The object that actions drive, or None.
        near: What may have touched what.
        flights: Free flights, the agent's excluded.
        breaks: The likeliest break of every flight that is long enough to have one.
        pieces: The flights cut at every break that passes `ALPHA`.
        gravity: What the pieces share, or None if none is long enough.
        frames: T.
    """

    tracks: Tracks
    agent: int | None
    near: Nearness
    flights: tuple[Flight, ...]
    breaks: tuple[Break, ...]
    pieces: tuple[Flight, ...]
    gravity: Gravity | None
    frames: int

    @property
    def items(self) -> list[int]:
        """Objects that obey nothing but physics."""
        return [k for k in range(len(self.tracks)) if k != self.agent]

    def coverage(self, used: list[Flight]) -> float:
        """Share of the seen object-frames, the agent's excluded, that lie in these flights."""
        total = self.tracks.seen[:, self.items].sum()
        return float(min(sum(len(f) for f in used) / total, 1.0)) if total else 0.0


def motion(clip: Clip, agent: Agent = "auto") -> Motion:
    """Reads a clip as flights and contacts; computed once per clip content.

    Raises:
        Unmeasurable: If objects cannot be tracked, or if none is left beside the agent.
    """
    found = _cached(ClipKey(clip), agent)
    if isinstance(found, Unmeasurable):
        raise Unmeasurable(found.status, found.reason)
    return found


@lru_cache(maxsize=4)
def _cached(key: ClipKey, agent: Agent) -> Motion | Unmeasurable:
    try:
        return _read(key.clip, agent)
    except Unmeasurable as refusal:
        return refusal


def _read(clip: Clip, agent: Agent) -> Motion:
    tracks = planar_track(clip)
    if tracks.around.scenery is None:
        raise Unmeasurable("insufficient", "the background is textured: what objects may touch cannot be told from it")
    driven = agent_of(clip, tracks, agent)
    near = cleared(tracks, nearness(tracks))
    found = [f for f in flights(tracks, near) if f.item != driven]
    # Long flights tell gravity; with it, short ones can be judged too.
    cut = [p for f in found for p in pieces(f, None)]
    gravity = pooled_gravity([p for p in cut if not _rests(p)]) or pooled_gravity(cut)
    breaks = [b for f in found if (b := strongest_break(f, gravity)) is not None]
    return Motion(
        tracks=tracks,
        agent=driven,
        near=near,
        flights=tuple(found),
        breaks=tuple(breaks),
        pieces=tuple(p for f in found for p in pieces(f, gravity)),
        gravity=gravity,
        frames=len(clip),
    )


def strongest_break(flight: Flight, gravity: Gravity | None = None) -> Break | None:
    """Scans a flight for the moment where two parabolas fit it most significantly better than one.

    Args:
        flight: At least six points, or four with `gravity`; shorter ones have no break (None).
        gravity: Enters the fits of flights shorter than `LONG_FLIGHT`.
    """
    n = len(flight)
    prior = gravity if n < LONG_FLIGHT else None
    if n < (MIN_FIT + MIN_SIDE if prior is None else 2 * MIN_SIDE):
        return None
    whole = fit(flight.times, flight.points, flight.sigma, prior)
    best: tuple[float, int] | None = None
    for k in range(MIN_SIDE, n - MIN_SIDE + 1):
        sides = [s for s in (slice(0, k), slice(k, n)) if prior is not None or len(flight.times[s]) >= 3]
        chi2 = sum(fit(flight.times[s], flight.points[s], flight.sigma, prior).chi2 for s in sides)
        # A side of two points cannot hold a parabola: there the other side's must predict them.
        extra = 2 * MIN_SIDE if prior is not None or len(sides) == 1 else 6
        log_p = float(log_p_chi2(max(whole.chi2 - chi2, 0.0), extra))
        if best is None or log_p < best[0]:
            best = log_p, k
    assert best is not None
    return _judge(flight, best[1], n - 2 * MIN_SIDE + 1, best[0], prior)


def _judge(flight: Flight, k: int, tests: int, log_p: float, prior: Gravity | None) -> Break:
    """Splits what happens at a break into a jump and a change of velocity."""
    before, after = flight.times[:k], flight.times[k:]
    if prior is None:
        long_side = slice(0, k) if len(before) >= len(after) else slice(k, None)
        main = fit(flight.times[long_side], flight.points[long_side], flight.sigma)
        prior = Gravity(value=main.state[2], error=float(np.sqrt(main.covariance[2, 2])))
    pre, post = (
        fit(times, points, flight.sigma, prior if len(times) < MIN_FIT + 1 else None)
        for times, points in ((before, flight.points[:k]), (after, flight.points[k:]))
    )
    meeting = []
    for tau in np.linspace(before[-1], after[0], 11):
        (a, cov_a), (b, cov_b) = pre.at(tau), post.at(tau)
        meeting.append((float(np.sum((a[0] - b[0]) ** 2) / (cov_a[0, 0] + cov_b[0, 0])), tau))
    apart, tau = min(meeting)
    (a, cov_a), (b, cov_b) = pre.at(tau), post.at(tau)
    change, variance = b - a, cov_a + cov_b
    return Break(
        flight=flight,
        index=k,
        tests=tests,
        log_p=corrected(log_p, tests),
        jump_log_p=corrected(float(log_p_chi2(apart, 2)), tests),
        jump_px=float(np.linalg.norm(change[0])),
        velocity_log_p=corrected(float(log_p_chi2(change[1] @ change[1] / variance[1, 1], 2)), tests),
        velocity_change=change[1],
    )


def pieces(flight: Flight, gravity: Gravity | None) -> Iterator[Flight]:
    """The flight cut at every break that passes `ALPHA`."""
    found = strongest_break(flight, gravity)
    if found is None or found.log_p > np.log(ALPHA):
        yield flight
        return
    for part in (slice(0, found.index), slice(found.index, None)):
        piece = Flight(item=flight.item, times=flight.times[part], points=flight.points[part], sigma=flight.sigma)
        yield from pieces(piece, gravity)


def _rests(piece: Flight) -> bool:
    """Whether the points stay in place to within their noise."""
    return bool(np.abs(piece.points - np.median(piece.points, axis=0)).max() < 4.0 * piece.sigma)


def clear_cache() -> None:
    """Forgets the motion and the tracks of clips seen before."""
    _cached.cache_clear()
    tracks_module.clear_cache()
