"""Laws of free flight: continuity, inertia, constant acceleration, equal gravity, support."""

import numpy as np

from eval.clip import Clip
from eval.physics.agent import Agent
from eval.physics.evidence import Evidence, log_p_above, log_p_chi2
from eval.physics.flights import MIN_FIT, Flight, Gravity, common, fit
from eval.physics.motion import Break, Motion, motion
from eval.physics.tracks import Tracks
from eval.physics.verdict import UNIT, verdict
from eval.score import Measurement, Unmeasurable, evaluator

# Acceleration in px/frame² that a push in a contact may add within one interval without being a jump.
PUSH_PX = 0.5
REST_FRAMES = 4
# A law about the whole clip is judged only where free flight is seen in this share of its frames.
MIN_WITNESSED = 0.5
# Gravity must stand out from its error by this factor before hovering can be told from falling.
GRAVITY_Z = 6.0


@evaluator("continuity", suite="physics", unit=UNIT, better="lower", claims=("teleport",))
def continuity(clip: Clip, *, agent: Agent = "auto") -> Measurement:
    """Objects move along unbroken paths: nothing jumps.

    Two tests. In flight: the parabolas before and after the likeliest break must meet within its interval. Everywhere,
    contacts and the agent included: no step is longer than those around it, since within an interval an object moves
    with the velocity before, then with the velocity after a contact.
    """
    found = motion(clip, agent)
    evidence = [_of_break(b, b.jump_log_p, f"jumps {b.jump_px:.2f} px") for b in found.breaks]
    steps, measured = _long_steps(found)
    evidence += steps
    if not evidence:
        raise Unmeasurable("insufficient", "no object is seen whole in six successive frames")
    return verdict(evidence, len(clip), measured)


@evaluator("inertia", suite="physics", unit=UNIT, better="lower", claims=("impulse", "frozen"))
def inertia(clip: Clip, *, agent: Agent = "auto") -> Measurement:
    """In flight nothing changes an object's velocity but the acceleration that it keeps (Newton's first law)."""
    found = motion(clip, agent)
    _need_flights(found)
    evidence = [
        _of_break(b, b.velocity_log_p, f"changes velocity by {np.linalg.norm(b.velocity_change):.3f} px/frame")
        for b in found.breaks
    ]
    return verdict(evidence, len(clip), found.coverage([b.flight for b in found.breaks]))


@evaluator("constant_acceleration", suite="physics", unit=UNIT, better="lower", claims=("gravity_change",))
def constant_acceleration(clip: Clip, *, agent: Agent = "auto") -> Measurement:
    """What falls freely falls the same way from the beginning of the clip to its end.

    For every moment, the common acceleration of all flights before it is compared with that of all flights after it;
    flights that cross the moment count on both sides.
    """
    found = motion(clip, agent)
    usable = [f for f in found.flights if len(f) >= MIN_FIT]
    witnessed = len({int(t) for f in usable for t in f.times}) / len(clip)
    if witnessed < MIN_WITNESSED:
        reason = f"free flight is seen in {100 * witnessed:.0f} % of the frames, too few to tell that it stays the same"
        raise Unmeasurable("insufficient", reason)
    evidence: list[Evidence] = []
    for t in range(MIN_FIT, len(clip) - MIN_FIT + 1):
        before, after = (_common_between(found, *span) for span in ((0, t), (t, len(clip))))
        if before is None or after is None:
            continue
        change = after.value - before.value
        log_p = float(log_p_chi2(change @ change / (before.error**2 + after.error**2), 2))
        about = f"free fall changes by {np.linalg.norm(change):.4f} px/frame²"
        evidence.append(Evidence(log_p=log_p, frames=(t - 1, t), about=about))
    if not evidence:
        raise Unmeasurable("insufficient", "at no moment are there flights of four frames before and after")
    return verdict(evidence, len(clip), found.coverage(usable))


@evaluator("equal_gravity", suite="physics", unit=UNIT, better="lower", claims=("frozen",))
def equal_gravity(clip: Clip, *, agent: Agent = "auto") -> Measurement:
    """All objects fall alike, whatever their mass, and in every flight (the weak principle of equivalence).

    Each flight's acceleration is compared with what the others share.
    """
    found = motion(clip, agent)
    compared = _compared(found)
    if not compared:
        raise Unmeasurable("insufficient", f"no two flights of at least {MIN_FIT + 1} frames to compare")
    evidence = [
        Evidence(
            log_p=float(log_p_chi2(apart @ apart / variance, 2)),
            frames=tuple(range(piece.start, piece.stop)),
            about=f"object {piece.item + 1} falls differently by {np.linalg.norm(apart):.4f} px/frame²",
        )
        for piece, apart, variance, _ in compared
    ]
    gravity = {} if found.gravity is None else {"gravity_px_per_frame2": found.gravity.value}
    return verdict(evidence, len(clip), found.coverage([c[0] for c in compared]), **gravity)


@evaluator("support", suite="physics", unit=UNIT, better="lower", claims=("frozen",))
def support(clip: Clip, *, agent: Agent = "auto") -> Measurement:
    """Nothing hovers: what touches nothing falls no slower than other things do.

    One-sided along gravity. Two tests: each flight against what the others share, and every stretch of a flight in
    which an object stays in place against gravity.
    """
    found = motion(clip, agent)
    gravity = found.gravity
    if gravity is None:
        raise Unmeasurable("insufficient", "no flight is long enough to measure gravity")
    if np.linalg.norm(gravity.value) < GRAVITY_Z * gravity.error:
        raise Unmeasurable("inapplicable", "no gravity is seen, so things may stay where they are")
    evidence = []
    for piece, apart, variance, shared in _compared(found):
        down = shared / max(float(np.linalg.norm(shared)), 1e-12)
        about = f"object {piece.item + 1} falls slower by {-apart @ down:.4f} px/frame²"
        log_p = log_p_above(float(-apart @ down), float(np.sqrt(variance)))
        evidence.append(Evidence(log_p=log_p, frames=tuple(range(piece.start, piece.stop)), about=about))
    down = gravity.value / np.linalg.norm(gravity.value)
    for flight in found.flights:
        for first, last in _rests(flight):
            part = slice(first, last)
            own = fit(flight.times[part], flight.points[part], flight.sigma)
            missing = float((gravity.value - own.state[2]) @ down)
            log_p = log_p_above(missing, float(np.sqrt(own.covariance[2, 2] + gravity.error**2)))
            frames = tuple(int(t) for t in flight.times[part])
            about = f"object {flight.item + 1} hovers for {last - first} frames"
            evidence.append(Evidence(log_p=log_p, frames=frames, about=about))
    if not evidence:
        evidence = [Evidence(log_p=0.0, frames=(), about="nothing stays in place in mid-air")]
    return verdict(evidence, len(clip), found.coverage(list(found.flights)))


def _common_between(found: Motion, start: int, stop: int) -> Gravity | None:
    """What the flights share between two frames; None where no flight has four frames there."""
    parts = []
    for flight in found.flights:
        inside = (flight.times >= start) & (flight.times < stop)
        if inside.sum() >= MIN_FIT:
            parts.append(fit(flight.times[inside], flight.points[inside], flight.sigma))
    if not parts:
        return None
    return common([p.state[2] for p in parts], [p.covariance[2, 2] for p in parts])


def _compared(found: Motion) -> list[tuple[Flight, np.ndarray, float, np.ndarray]]:
    """Each flight, its acceleration less what the others share, the variance of that, and what they share.

    Empty if there are not two flights to compare.
    """
    pieces = [p for p in found.pieces if len(p) >= MIN_FIT + 1]
    if len(pieces) < 2:
        return []
    fits = [fit(p.times, p.points, p.sigma) for p in pieces]
    values = np.array([f.state[2] for f in fits])
    variances = np.array([f.covariance[2, 2] for f in fits])
    result = []
    for i, piece in enumerate(pieces):
        shared = common(np.delete(values, i, axis=0), np.delete(variances, i))
        result.append((piece, values[i] - shared.value, float(variances[i] + shared.error**2), shared.value))
    return result


def _need_flights(found: Motion) -> None:
    if not found.breaks:
        raise Unmeasurable("insufficient", "no object is in free flight for six frames")


def _of_break(b: Break, log_p: float, what: str) -> Evidence:
    return Evidence(log_p=log_p, frames=(b.frame - 1, b.frame), about=f"object {b.flight.item + 1} {what}")


def _long_steps(found: Motion) -> tuple[list[Evidence], float]:
    """Tests of every step against what its neighbours in time allow, and the share of object-frames tested.

    A partner in a contact may give up to twice its own speed, however light the object.
    """
    tracks = found.tracks
    step = np.linalg.norm(np.diff(tracks.centroid_px, axis=0), axis=-1)
    placed = tracks.whole | _nearly_complete(tracks)
    step = np.where(placed[1:] & placed[:-1], step, np.nan)
    known = np.where(np.isfinite(step), step, 0.0)
    pull = 0.0 if found.gravity is None else float(np.linalg.norm(found.gravity.value))
    evidence, tested = [], 0
    for k in range(len(tracks)):
        for t in range(1, len(step) - 1):
            window = slice(max(t - 2, 0), t + 3)
            if np.isnan(step[t, k]) or np.isfinite(step[window, k]).sum() < 3:
                continue
            tested += 1
            allowed = max(np.delete(known[window, k], t - window.start))
            partners = found.near.objects[window, k].any(axis=0)
            if partners.any():
                allowed += 2.0 * known[window][:, partners].max()
            excess = step[t, k] - allowed - 2.0 * pull - PUSH_PX
            if excess > 0.0:
                about = f"object {k + 1} steps {excess:.2f} px further than it can"
                log_p = log_p_above(excess, 2.0 * float(tracks.noise_px[k]))
                evidence.append(Evidence(log_p=log_p, frames=(t, t + 1), about=about))
    if tested and not evidence:
        evidence.append(Evidence(log_p=0.0, frames=(), about="every step is like those around it"))
    return evidence, tested / max(int(tracks.seen.sum()), 1)


def _nearly_complete(tracks: Tracks) -> np.ndarray:
    """(T, N): shows its usual area but for a tenth, which moves its centroid by less than the slack for pushes."""
    usual = np.array([np.median(tracks.area_px[w, k]) if w.any() else np.nan for k, w in enumerate(tracks.whole.T)])
    return np.abs(tracks.area_px / usual - 1.0) < 0.1


def _rests(flight: Flight) -> list[tuple[int, int]]:
    """Index ranges of a flight in which the points stay in place for `REST_FRAMES` or more."""
    still = np.abs(np.diff(flight.points, axis=0)).max(axis=1) < 4.0 * flight.sigma
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(int), [0]])))
    return [(int(a), int(b) + 1) for a, b in zip(edges[::2], edges[1::2], strict=True) if b + 1 - a >= REST_FRAMES]
