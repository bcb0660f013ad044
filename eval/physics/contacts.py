"""Contacts: moments at which an object's flight is interrupted, and what its partners did meanwhile.

Nobody tells where contacts are; they are read from nearness. Only contacts that can be judged are listed: one object
against one side of the frame or against scenery, or two free objects against each other, with a flight on both sides.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from eval.physics.evidence import log_p_chi2
from eval.physics.flights import MIN_FIT, Flight, Parabola, fit
from eval.physics.motion import Motion

MAX_CONTACT_FRAMES = 8
MIN_FLIGHT = 3
# Inward normals of the left, right, top and bottom of the frame (x right, y down).
BORDER_NORMALS = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
# Below this log p-value the velocity changed, so something was touched and not just passed.
TOUCH_LOG_P = np.log(1e-3)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One object before and after a contact.

    Attributes:
        item: The object.
        before: The flight before.
        after: The flight after.
        pre: Its parabola.
        post: The parabola of the flight after.
    """

    item: int
    before: Flight
    after: Flight
    pre: Parabola
    post: Parabola


@dataclass(frozen=True, kw_only=True)
class Contact:
    """An interruption of flight that can be judged.

    Attributes:
        kind: "border", "scenery" or "pair".
        sides: One object, or the two of a pair.
        normal: (2,) unit vector; away from border or scenery towards the object, or from the second object of a pair
            towards the first.
        time: When it happened, in frames.
        frames: The frames concerned.
        velocities: (S, 2, 2): of each side before and after, at `time`, in px/frame.
        variances: (S, 2): of each velocity component before and after.
    """

    kind: Literal["border", "scenery", "pair"]
    sides: tuple[Side, ...]
    normal: np.ndarray
    time: float
    frames: tuple[int, ...]
    velocities: np.ndarray
    variances: np.ndarray

    @property
    def touched(self) -> bool:
        """Whether any velocity changed: otherwise the objects passed near each other."""
        change = self.velocities[:, 1] - self.velocities[:, 0]
        chi2 = np.sum(change**2, axis=1) / self.variances.sum(axis=1)
        return bool(np.min(log_p_chi2(chi2, 2)) < TOUCH_LOG_P)


def contacts(found: Motion) -> list[Contact]:
    """All contacts that can be judged, in order of time."""
    gaps = _gaps(found)
    listed = []
    for k, (before, after) in gaps:
        window = slice(before.stop - 1, after.start)
        borders = found.near.border[window, k].any(axis=0)
        scenery = bool(found.near.scenery[window, k].any())
        partners = np.flatnonzero(found.near.objects[window, k].any(axis=0))
        if len(partners) == 0 and borders.sum() + scenery == 1:
            side = _side(found, k, before, after)
            normal = _scenery_normal(found, k, window) if scenery else BORDER_NORMALS[int(np.argmax(borders))]
            if side is not None and normal is not None:
                listed.append(_contact("scenery" if scenery else "border", (side,), normal))
        elif len(partners) == 1 and borders.sum() + scenery == 0 and partners[0] > k:
            pair = _pair(found, k, int(partners[0]), before, after, gaps)
            if pair is not None:
                listed.append(pair)
    return sorted(listed, key=lambda c: c.time)


def _gaps(found: Motion) -> list[tuple[int, tuple[Flight, Flight]]]:
    """(object, (last flight before, first flight after)) of every short interruption of flight."""
    result = []
    for k in found.items:
        own = [p for p in found.pieces if p.item == k]
        for before, after in pairwise(own):
            # Pieces of one flight are broken in mid-air; that is no contact.
            if 1 <= after.start - (before.stop - 1) <= MAX_CONTACT_FRAMES and _interrupted(found, k, before, after):
                result.append((k, (before, after)))
    return result


def _interrupted(found: Motion, k: int, before: Flight, after: Flight) -> bool:
    return not found.near.free[before.stop - 1 : after.start, k].all()


def _side(found: Motion, k: int, before: Flight, after: Flight) -> Side | None:
    enough = MIN_FIT if found.gravity is None else MIN_FLIGHT
    if min(len(before), len(after)) < enough:
        return None
    pre, post = (fit(f.times, f.points, f.sigma, found.gravity) for f in (before, after))
    return Side(item=k, before=before, after=after, pre=pre, post=post)


def _pair(
    found: Motion, k: int, j: int, before: Flight, after: Flight, gaps: list[tuple[int, tuple[Flight, Flight]]]
) -> Contact | None:
    """The contact of k and j, if the only interruption of j's flight at that time is k."""
    for item, (j_before, j_after) in gaps:
        if item != j or j_before.stop > after.start or j_after.start < before.stop:
            continue
        window = slice(j_before.stop - 1, j_after.start)
        others = set(np.flatnonzero(found.near.objects[window, j].any(axis=0)).tolist())
        if others != {k} or found.near.border[window, j].any() or found.near.scenery[window, j].any():
            return None
        sides = _side(found, k, before, after), _side(found, j, j_before, j_after)
        if sides[0] is None or sides[1] is None:
            return None
        return _contact("pair", (sides[0], sides[1]), None)
    return None


def _contact(kind: Literal["border", "scenery", "pair"], sides: tuple[Side, ...], normal: np.ndarray | None) -> Contact:
    first, last = min(s.before.stop - 1 for s in sides), max(s.after.start for s in sides)
    instants = np.linspace(first, last, 20 * (last - first) + 1)
    # Paths before and after meet at the contact.
    apart = np.array(
        [sum(float(np.linalg.norm(s.pre.at(t)[0][0] - s.post.at(t)[0][0])) for s in sides) for t in instants]
    )
    time = float(instants[int(np.argmin(apart))])
    velocities = np.array([[side.at(time)[0][1] for side in (s.pre, s.post)] for s in sides])
    variances = np.array([[side.at(time)[1][1, 1] for side in (s.pre, s.post)] for s in sides])
    if normal is None:
        line = sides[0].pre.at(time)[0][0] - sides[1].pre.at(time)[0][0]
        normal = line / max(float(np.linalg.norm(line)), 1e-9)
    return Contact(
        kind=kind,
        sides=sides,
        normal=np.asarray(normal),
        time=time,
        frames=tuple(range(first, last + 1)),
        velocities=velocities,
        variances=variances,
    )


def _scenery_normal(found: Motion, k: int, window: slice) -> np.ndarray | None:
    """The direction away from scenery in the frame in which the object was nearest to it."""
    frames = slice(window.start, window.stop + 1)
    distance = found.tracks.around.scenery_px[frames, k]
    normal = found.tracks.around.normal[frames, k][int(np.argmin(distance))]
    return normal if np.isfinite(normal).all() else None
