"""Residuals of gravity and of collisions: do bodies in a dream fall and rebound as in the true world?

Judged where the truth tells what happens: over frames in which a body truly flies free it should fall, and over frames
in which it truly collides it should change its velocity as in truth. Bodies are followed by their colour, which no two
in a scene share; the agent, which is steered, is left out.
"""

from collections.abc import Sequence

import numpy as np

from worldsim.cli.bounce_reader import follow
from worldsim.cli.card_rows import Figure, mean_figure

# Of the second difference of a place, in px: less is free flight, as places are read to about 0.1; more is a contact.
FLIGHT_PX, HIT_PX = 0.4, 1.0
_LEAST_FLIGHT = 4  # second differences, below which reading errors outweigh the fall


def residuals(truth: np.ndarray, dream: np.ndarray, gravity_px: float) -> tuple[list[float], list[float]]:
    """Residuals of one video.

    Args:
        truth: True places (T, N, 2), as from `follow`.
        dream: Those in the dream.
        gravity_px: The true acceleration downwards, in px/frame².

    Returns:
        For each true flight, the distance between the dream's mean acceleration and gravity, as a share of gravity; for
        each true collision, the distance between the dream's change of velocity and the true one, as a share of that.
        What is lost on the way counts as 1, like a body that stands still.
    """
    fall = np.array([gravity_px, 0.0])
    flights, hits = [], []
    for true, made in zip(truth.swapaxes(0, 1), dream.swapaxes(0, 1), strict=True):
        turned, own = np.diff(true, n=2, axis=0), np.diff(made, n=2, axis=0)
        bent = np.linalg.norm(turned - fall, axis=1)
        flights += [
            _share(own[piece].mean(axis=0), fall)
            for piece in _runs(bent < FLIGHT_PX)
            if piece.stop - piece.start >= _LEAST_FLIGHT
        ]
        for piece in _runs(bent >= FLIGHT_PX):
            # Between two free flights, so that the whole change is seen; a frame early or late is forgiven.
            ends = [piece.start - 1, piece.stop]
            if ends[0] < 0 or ends[1] >= len(bent) or not (bent[ends] < FLIGHT_PX).all() or bent[piece].max() < HIT_PX:
                continue
            wide = slice(piece.start - 1, piece.stop + 1)
            hits.append(_share(own[wide].sum(axis=0), turned[wide].sum(axis=0)))
    return flights, hits


def motion_figures(
    truth: np.ndarray,
    dreams: np.ndarray,
    colours: Sequence[Sequence[str]],
    *,
    gravity_px: float,
    least_area_px: float,
    rng: np.random.Generator,
) -> list[Figure]:
    """Mean residuals of gravity and collisions over videos, beside those of the true frames, read the same way.

    Args:
        truth: True videos, uint8 (B, T, H, W, 3).
        dreams: Their dreams.
        colours: Of the bodies of each, the agent's left out.
        gravity_px: The true acceleration downwards, in px/frame².
        least_area_px: Of the smallest body.
        rng: For the intervals.
    """
    found: dict[str, list[float]] = {}
    for true, made, names in zip(truth, dreams, colours, strict=True):
        places = follow(true, names, least_area_px=least_area_px)
        dreamt = follow(made, names, least_area_px=least_area_px)
        for label, own in (("dream", dreamt), ("true frames (floor)", places)):
            flights, hits = residuals(places, own, gravity_px)
            for kind, values in (
                ("gravity, as a share of it", flights),
                ("collisions, as a share of the change of velocity", hits),
            ):
                if values:
                    found.setdefault(f"{kind}, {label}", []).append(float(np.mean(values)))
    return [mean_figure(f"residual of {name}", "", values, rng) for name, values in sorted(found.items())]


def _runs(flags: np.ndarray) -> list[slice]:
    """Where a boolean sequence is true without a break; NaN places compare false and so belong to no run."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _share(found: np.ndarray, wanted: np.ndarray) -> float:
    return 1.0 if np.isnan(found).any() else float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
