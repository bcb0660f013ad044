"""Laws of contact: momentum, one-sided energy, restitution, friction.

Masses are never needed: a pair's mass ratio follows from how it shares the change of velocity. Energy may be lost at a
contact and never gained. Discs without marks hide their spin, and friction may turn hidden spin into motion along the
contact; therefore only the motion along the normal of round objects is judged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from eval.clip import Clip
from eval.physics.agent import Agent
from eval.physics.contacts import Contact, contacts
from eval.physics.evidence import Evidence, log_p_above
from eval.physics.flights import ALIAS_SHARE, MIN_FIT, Flight, fit
from eval.physics.motion import Motion, motion
from eval.physics.tracks import Tracks
from eval.physics.verdict import UNIT, verdict
from eval.score import Measurement, Unmeasurable, evaluator

# An approach slower than this many standard errors has no restitution.
APPROACH_Z = 6.0
SLIDE_FRAMES = 6
TOUCH_PX = 1.0
LEVEL_RAD = 0.04
# Turning by more than this while sliding is rolling or toppling, not friction alone.
SLIDE_TURN_RAD = 0.1


@evaluator("momentum", suite="physics", unit=UNIT, better="lower", claims=("collision_gain",))
def momentum(clip: Clip, *, agent: Agent = "auto") -> Measurement:
    """Two objects that collide change velocity in exactly opposite directions, and push rather than pull.

    The third law without masses: the changes of velocity of a pair must be antiparallel, with the line of centres of
    round objects that do not slide; their ratio is the ratio of the masses and the same at every contact of the pair.
    """
    found, judged = _judged(clip, agent)
    pairs = [c for c in judged if c.kind == "pair"]
    if not pairs:
        raise Unmeasurable("inapplicable", "no two free objects collide with a flight before and after")
    evidence: list[Evidence] = []
    ratios: dict[tuple[int, int], list[tuple[float, float, Contact]]] = {}
    for contact in pairs:
        evidence += _opposite(contact)
        ratio = _log_mass_ratio(contact)
        if ratio is not None:
            items = contact.sides[0].item, contact.sides[1].item
            ratios.setdefault(items, []).append((*ratio, contact))
    for items, seen in ratios.items():
        for (a, var_a, _), (b, var_b, later) in pairwise(seen):
            about = f"objects {items[0] + 1} and {items[1] + 1} change their mass ratio by a factor {np.exp(b - a):.2f}"
            log_p = np.log(2.0) + log_p_above(abs(b - a), np.sqrt(var_a + var_b))
            evidence.append(Evidence(log_p=min(log_p, 0.0), frames=later.frames, about=about))
    return verdict(evidence, len(clip), _coverage(found, pairs), contacts=len(pairs))


@evaluator(
    "energy",
    suite="physics",
    unit=UNIT,
    better="lower",
    claims=("collision_gain", "energy_gain_at_wall", "time_reversal"),
)
def energy(clip: Clip, *, agent: Agent = "auto") -> Measurement:
    """Contacts and free flight may lose mechanical energy but never gain it.

    An object that meets nothing but the frame and scenery: kinetic, potential and visible rotational energy in each
    flight against the most that it had before. A pair that collides: the sum, with the mass ratio that momentum gives.
    In mid-air: across a break. Round objects are taken not to spin at first; what friction stores in hidden spin, they
    may have back.
    """
    found, judged = _judged(clip, agent)
    pairs = [c for c in judged if c.kind == "pair"]
    evidence = [e for c in pairs if (e := _pair_gain(found.tracks, c)) is not None]
    alone = [e for k in found.items for e in _gains_alone(found, k)]
    evidence += alone
    evidence += _mid_air_gain(found)
    if not evidence:
        raise Unmeasurable("inapplicable", "no contact with a flight before and after, and no break in a flight")
    return verdict(evidence, len(clip), _coverage(found, pairs, len(alone)), contacts=len(pairs) + len(alone))


@evaluator("restitution", suite="physics", unit=UNIT, better="lower", claims=("collision_gain",))
def restitution(clip: Clip, *, agent: Agent = "auto") -> Measurement:
    """Newton's coefficient of restitution lies in [0, 1]: round objects part no faster than they met, and do part."""
    found, judged = _judged(clip, agent)
    round_ = [c for c in judged if all(found.tracks.fold[s.item] == 0 for s in c.sides)]
    evidence, values = [], []
    for contact in round_:
        ratio = _restitution(contact)
        if ratio is None:
            continue
        value, sigma = ratio
        values.append(value)
        log_p = np.log(2.0) + max(log_p_above(value - 1.0, sigma), -np.inf)
        below = np.log(2.0) + log_p_above(-value, sigma)
        about = f"{_who(contact)} bounces with restitution {value:.3f} ± {sigma:.3f}"
        evidence.append(Evidence(log_p=min(log_p, below, 0.0), frames=contact.frames, about=about))
    if not evidence:
        raise Unmeasurable("inapplicable", "no round object bounces with a flight before and after")
    return verdict(evidence, len(clip), _coverage(found, round_), restitutions=values)


@evaluator("friction", suite="physics", unit=UNIT, better="lower", claims=("sliding_reversal",))
def friction(clip: Clip, *, agent: Agent = "auto") -> Measurement:
    """What slides on level ground never speeds up.

    Gravity is the measured one, or the picture's vertical where nothing flies. Round objects are left out: hidden spin
    may lawfully drive them.
    """
    found = motion(clip, agent)
    evidence, used = [], 0
    for k in found.items:
        if found.tracks.fold[k] == 0:
            continue
        for frames in _slides(found, k):
            times = frames.astype(float)
            path = fit(times, found.tracks.centroid_px[frames, k], float(found.tracks.noise_px[k]))
            velocity = path.state[1]
            speed = float(np.linalg.norm(velocity))
            if speed < APPROACH_Z * np.sqrt(path.covariance[1, 1]):
                continue
            used += len(frames)
            gain = float(path.state[2] @ velocity / speed)
            about = f"object {k + 1} speeds up by {gain:.4f} px/frame² while it slides"
            log_p = log_p_above(gain, float(np.sqrt(path.covariance[2, 2])))
            evidence.append(Evidence(log_p=log_p, frames=tuple(frames.tolist()), about=about))
    if not evidence:
        raise Unmeasurable("inapplicable", "nothing with a visible orientation slides on level ground for six frames")
    return verdict(evidence, len(clip), used / max(int(found.tracks.seen[:, found.items].sum()), 1))


def _judged(clip: Clip, agent: Agent) -> tuple[Motion, list[Contact]]:
    found = motion(clip, agent)
    return found, [c for c in contacts(found) if c.touched]


def _coverage(found: Motion, judged: list[Contact], others: int = 0) -> float:
    """Share of the interruptions of flight that could be judged."""
    interruptions = {(f.item, f.stop) for f in found.flights if f.stop < found.frames}
    sides = sum(len(c.sides) for c in judged) + others
    return sides / max(len(interruptions), sides, 1)


def _who(contact: Contact) -> str:
    names = " and ".join(str(s.item + 1) for s in contact.sides)
    return f"objects {names}" if len(contact.sides) == 2 else f"object {names}"


def _opposite(contact: Contact) -> list[Evidence]:
    """That the changes of velocity are parallel, and that they are opposed."""
    change = contact.velocities[:, 1] - contact.velocities[:, 0]
    variance = contact.variances.sum(axis=1)
    length2 = np.sum(change**2, axis=1)
    cross = abs(float(change[0, 0] * change[1, 1] - change[0, 1] * change[1, 0]))
    dot = float(change[0] @ change[1])
    # The product's noise, its second-order part included: both changes may be small.
    sigma = float(np.sqrt(length2[0] * variance[1] + length2[1] * variance[0] + variance[0] * variance[1]))
    angle = np.degrees(np.arctan2(cross, -dot))
    about = f"{_who(contact)} are deflected {angle:.1f}° off opposite directions"
    across = min(np.log(2.0) + log_p_above(cross, sigma), 0.0)
    return [
        Evidence(log_p=across, frames=contact.frames, about=about),
        Evidence(log_p=log_p_above(dot, sigma), frames=contact.frames, about=about),
    ]


def _log_mass_ratio(contact: Contact) -> tuple[float, float] | None:
    """Log of the second object's mass over the first's, and its variance."""
    change = contact.velocities[:, 1] - contact.velocities[:, 0]
    length2 = np.sum(change**2, axis=1)
    variance = contact.variances.sum(axis=1)
    if np.any(length2 < APPROACH_Z**2 * variance):
        return None
    return 0.5 * float(np.log(length2[0] / length2[1])), float(np.sum(variance / length2))


def _restitution(contact: Contact) -> tuple[float, float] | None:
    """Coefficient of restitution along the normal, and its standard error; None where nothing approaches."""
    if len(contact.sides) == 1:
        velocity, variance = contact.velocities[0], contact.variances[0]
    else:
        velocity = contact.velocities[0] - contact.velocities[1]
        variance = contact.variances.sum(axis=0)
    approach, leave = velocity @ contact.normal
    if -approach < APPROACH_Z * np.sqrt(variance[0]):
        return None
    value = -leave / approach
    return float(value), float(np.sqrt(variance[1] + value**2 * variance[0]) / -approach)


def _pair_gain(tracks: Tracks, contact: Contact) -> Evidence | None:
    """Gain of kinetic energy of two objects that collide, in terms of the first one's mass."""
    ratio = _log_mass_ratio(contact)
    spins = [_Spin.of(tracks, s.item, f) for s in contact.sides for f in (s.before, s.after)]
    if ratio is None or any(s is None for s in spins):
        return None
    known = np.array([(s.value, s.variance, s.inertia) for s in spins if s is not None]).reshape(2, 2, 3)
    weights = np.array([1.0, np.exp(ratio[0])])

    def total(velocity: np.ndarray, spin: np.ndarray) -> float:
        kinetic = np.sum(velocity**2, axis=-1) + known[:, :, 2] * spin**2
        return float(0.5 * weights @ (kinetic[:, 1] - kinetic[:, 0]))

    gain = total(contact.velocities, known[:, :, 0])
    sigma = _propagated(total, contact.velocities, contact.variances, known[:, :, 0], known[:, :, 1])
    about = f"{_who(contact)} gain {gain:.3f} px²/frame² of kinetic energy per unit mass"
    return Evidence(log_p=log_p_above(gain, sigma), frames=contact.frames, about=about)


def _gains_alone(found: Motion, k: int) -> list[Evidence]:
    """Tests of each flight's energy against the most that the object had since it last met another object."""
    # With gravity known, two points give a velocity.
    enough = MIN_FIT if found.gravity is None else 2
    evidence: list[Evidence] = []
    most: tuple[float, float] | None = None
    last_frame = 0
    for piece in (p for p in found.pieces if p.item == k):
        met = bool(found.near.objects[last_frame : piece.start, k].any())
        unseen = not found.tracks.seen[last_frame : piece.start, k].all()
        if met or unseen:
            most = None
        interrupted = not found.near.free[last_frame : piece.start, k].all()
        last_frame = piece.stop - 1
        own = _energy(found, piece) if len(piece) >= enough else None
        if own is None:
            continue
        if most is not None and interrupted:
            gain, sigma = own[0] - most[0], float(np.sqrt(own[1] + most[1]))
            about = f"object {k + 1} gains {gain:.3f} px²/frame² per unit mass at a contact"
            frames = tuple(range(max(piece.start - 2, 0), piece.start + 1))
            evidence.append(Evidence(log_p=log_p_above(gain, sigma), frames=frames, about=about))
        if most is None or own[0] > most[0]:
            most = own
    return evidence


def _energy(found: Motion, piece: Flight) -> tuple[float, float] | None:
    """Mechanical energy per unit mass in a flight, and its variance; None where the spin is too fast to be read."""
    spin = _Spin.of(found.tracks, piece.item, piece)
    if spin is None:
        return None
    gravity = np.zeros(2) if found.gravity is None else found.gravity.value
    path = fit(piece.times, piece.points, piece.sigma, found.gravity)
    middle, covariance = path.at(float(piece.times.mean()))
    velocity, variance = middle[1], float(covariance[1, 1])
    value = 0.5 * float(velocity @ velocity) - float(gravity @ middle[0]) + 0.5 * spin.inertia * spin.value**2
    error = float(velocity @ velocity) * variance + variance**2 + (spin.inertia * spin.value) ** 2 * spin.variance
    if found.gravity is not None:
        # Height is compared within the frame; an error of gravity acts over at most its size.
        error += (found.gravity.error * 0.5 * min(found.tracks.size)) ** 2
    return value, error + float(gravity @ gravity) * float(covariance[0, 0])


@dataclass(frozen=True)
class _Spin:
    """Angular velocity in rad/frame, its variance, and moment of inertia over mass in px²."""

    value: float
    variance: float
    inertia: float

    @classmethod
    def of(cls, tracks: Tracks, k: int, flight: Flight) -> "_Spin | None":
        """In a flight; no rotation for round objects, and None where it may be too fast for the frame rate."""
        if tracks.fold[k] == 0:
            return cls(0.0, 0.0, 0.0)
        spread = tracks.spread_px2[tracks.whole[:, k], k]
        inertia = float(np.median(np.trace(spread, axis1=1, axis2=2)))
        turn = tracks.turn_rad[flight.times.astype(int), k]
        s = flight.times - flight.times.mean()
        value = float(s @ turn) / float(s @ s)
        # A square turned by a quarter looks the same: beyond half of that the direction is lost.
        if abs(value) > ALIAS_SHARE * np.pi / tracks.fold[k]:
            return None
        rest = turn - turn.mean() - value * s
        # An angle is known about as well as the centroid divided by the radius of gyration.
        noise = np.hypot(float(tracks.noise_px[k]) / np.sqrt(inertia), np.sqrt(np.mean(rest**2)))
        return cls(value, float(noise**2 / (s @ s)), inertia)


def _propagated(
    function: Callable[[np.ndarray, np.ndarray], float],
    velocities: np.ndarray,
    variances: np.ndarray,
    spins: np.ndarray,
    spin_variances: np.ndarray,
) -> float:
    """First-order standard error of `function(velocities, spins)`, with the second-order part of squares added."""
    total = 0.0
    for index in np.ndindex(velocities.shape):
        sigma = float(np.sqrt(variances[index[:2]]))
        total += _half_range(function, velocities, spins, 0, index, sigma) ** 2
    for index in np.ndindex(spins.shape):
        total += _half_range(function, velocities, spins, 1, index, float(np.sqrt(spin_variances[index]))) ** 2
    second_order = float(np.sum(variances**2))
    return float(np.sqrt(total + second_order))


def _half_range(
    function: Callable[[np.ndarray, np.ndarray], float],
    velocities: np.ndarray,
    spins: np.ndarray,
    which: int,
    index: tuple[int, ...],
    sigma: float,
) -> float:
    ends = []
    for sign in (-1.0, 1.0):
        arguments = [velocities.copy(), spins.copy()]
        arguments[which][index] += sign * sigma
        ends.append(function(arguments[0], arguments[1]))
    return 0.5 * (ends[1] - ends[0])


def _mid_air_gain(found: Motion) -> list[Evidence]:
    """Gain of kinetic plus potential energy where a flight breaks without any contact."""
    gravity = np.zeros(2) if found.gravity is None else found.gravity.value
    evidence = []
    for b in found.breaks:
        if b.log_p > np.log(1e-3):
            continue
        parts = (slice(0, b.index), slice(b.index, None))
        if min(len(b.flight.times[p]) for p in parts) < 3:
            continue
        ends = []
        for part, edge in zip(parts, (-1, 0), strict=True):
            times = b.flight.times[part]
            path = fit(times, b.flight.points[part], b.flight.sigma, found.gravity)
            state, covariance = path.at(float(times[edge]))
            ends.append((state, covariance[1, 1]))
        (before, var_before), (after, var_after) = ends
        gain = 0.5 * (after[1] @ after[1] - before[1] @ before[1]) - gravity @ (after[0] - before[0])
        sigma = np.sqrt(after[1] @ after[1] * var_after + before[1] @ before[1] * var_before + var_after**2)
        about = f"object {b.flight.item + 1} gains {gain:.3f} px²/frame² per unit mass in mid-air"
        evidence.append(
            Evidence(log_p=log_p_above(float(gain), float(sigma)), frames=(b.frame - 1, b.frame), about=about)
        )
    return evidence


def _slides(found: Motion, k: int) -> list[np.ndarray]:
    """Runs of frames in which object k moves along one level border or face of scenery, touching nothing else."""
    tracks = found.tracks
    down = np.array([0.0, 1.0])
    if found.gravity is not None and np.linalg.norm(found.gravity.value) > APPROACH_Z * found.gravity.error:
        down = found.gravity.value / np.linalg.norm(found.gravity.value)
    around = tracks.around
    apart = np.where(np.eye(len(tracks), dtype=bool), np.inf, around.between_px)[:, k].min(axis=-1)
    on_scenery = (around.scenery_px[:, k] <= TOUCH_PX) & (around.normal[:, k] @ -down > np.cos(LEVEL_RAD))
    below = int(np.argmax([0.0, 0.0, -down[1], down[1]])) if abs(down[1]) > np.cos(LEVEL_RAD) else None
    on_border = np.zeros(len(apart), bool) if below is None else tracks.border_px[:, k, below] <= TOUCH_PX
    # Objects that stand on the frame's border count as whole where no area is missing.
    whole = tracks.seen[:, k] & ((tracks.whole[:, k] & on_scenery) | (on_border & ~on_scenery & _complete(tracks, k)))
    sliding = whole & (apart > 2.0 * TOUCH_PX)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], sliding.astype(int), [0]])))
    runs = [np.arange(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= SLIDE_FRAMES]
    return [r for r in runs if _straight(tracks, k, r, down)]


def _complete(tracks: Tracks, k: int) -> np.ndarray:
    whole = tracks.whole[:, k]
    if not whole.any():
        return np.zeros(len(whole), bool)
    return np.abs(tracks.area_px[:, k] / np.median(tracks.area_px[whole, k]) - 1.0) < 0.04


def _straight(tracks: Tracks, k: int, frames: np.ndarray, down: np.ndarray) -> bool:
    """Moves across gravity without turning or rising."""
    rise = np.ptp(tracks.centroid_px[frames, k] @ down)
    turn = np.ptp(tracks.turn_rad[frames, k])
    return bool(rise < 6.0 * tracks.noise_px[k] + 0.1 and turn < SLIDE_TURN_RAD)
