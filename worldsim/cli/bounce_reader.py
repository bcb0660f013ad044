"""Reads which bodies a single Bounce frame shows: colour, shape and place, without tracking."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from envs.bounce.scene import PALETTE

# Of the spread between palette colours (at least 70 apart): further away a pixel is an edge, or a colour of no name.
COLOUR_RADIUS = 60.0
# Of the area of the smallest body that is expected: less is a shred.
LEAST_SHARE = 0.4
_ANGLES = np.arange(0.0, 90.0, 7.5)
_SCALE = 8


@dataclass(frozen=True, kw_only=True)
class Body:
    """One coloured region.

    Attributes:
        colour: Nearest name of the palette.
        shape: "disc" or "box", whichever of equal area covers it better.
        centre_px: Row and column.
        area_px: Its area.
    """

    colour: str
    shape: str
    centre_px: tuple[float, float]
    area_px: float


def read_bodies(frame: np.ndarray, *, least_area_px: float) -> list[Body]:
    """The bodies in a frame of uint8 (H, W, 3), at least `LEAST_SHARE` of `least_area_px` large."""
    return [
        Body(colour=name, shape=_shape(mask, (x, y), area), centre_px=(y, x), area_px=area)
        for name, mask, (x, y), area in _regions(frame, least_area_px)
    ]


def follow(video: np.ndarray, colours: Sequence[str], *, least_area_px: float) -> np.ndarray:
    """Centres (T, N, 2), row and column in px, of bodies of these colours; NaN where there is not exactly one.

    Args:
        video: uint8 (T, H, W, 3).
        colours: Names of the palette.
        least_area_px: As in `read_bodies`.
    """
    places = np.full((len(video), len(colours), 2), np.nan)
    for t, frame in enumerate(video):
        seen: dict[str, list[tuple[float, float]]] = {}
        for name, _, (x, y), _ in _regions(frame, least_area_px):
            seen.setdefault(name, []).append((y, x))
        for k, colour in enumerate(colours):
            if len(found := seen.get(colour, [])) == 1:
                places[t, k] = found[0]
    return places


def _regions(frame: np.ndarray, least_area_px: float) -> Iterator[tuple[str, np.ndarray, tuple[float, float], float]]:
    """Colour, mask, centre (x, y) and area of each region of one colour."""
    names, colours = list(PALETTE), np.array(list(PALETTE.values()), np.float32)
    pixels = frame.astype(np.float32)
    distance = np.linalg.norm(pixels[..., None, :] - colours, axis=-1)
    label = np.where(distance.min(axis=-1) < COLOUR_RADIUS, distance.argmin(axis=-1), -1)
    for k, name in enumerate(names):
        number, parts, stats, centres = cv2.connectedComponentsWithStats((label == k).astype(np.uint8), connectivity=8)
        for part in range(1, number):
            if stats[part, cv2.CC_STAT_AREA] >= LEAST_SHARE * least_area_px:
                mask, (x, y) = parts == part, centres[part]
                yield name, mask, (float(x), float(y)), float(mask.sum())


def agreement(seen: Sequence[Body], asked: Sequence[tuple[str, str]]) -> dict[str, float]:
    """How a picture follows what was asked for, as (colour, shape) of each body.

    Returns:
        "count": whether as many bodies are seen; "colours" and "bodies": the share of what was asked for or seen,
        whichever is more, that agrees in colour, and in colour and shape.
    """
    if not seen and not asked:
        return {"count": 1.0, "colours": 1.0, "bodies": 1.0}
    most = max(len(seen), len(asked))
    colours = Counter(c for c, _ in asked) & Counter(b.colour for b in seen)
    bodies = Counter(asked) & Counter((b.colour, b.shape) for b in seen)
    return {
        "count": float(len(seen) == len(asked)),
        "colours": colours.total() / most,
        "bodies": bodies.total() / most,
    }


def _shape(mask: np.ndarray, centre: tuple[float, float], area: float) -> str:
    """The better of a disc and a square of the same area at the same place, by intersection over union."""
    side = float(np.sqrt(area))
    disc = _overlap(mask, _disc(mask.shape, centre, side / np.sqrt(np.pi)))
    box = max(_overlap(mask, _box(mask.shape, centre, side, angle)) for angle in _ANGLES)
    return "disc" if disc >= box else "box"


def _overlap(mask: np.ndarray, cover: np.ndarray) -> float:
    both = np.minimum(mask, cover).sum()
    return float(both / (mask.sum() + cover.sum() - both))


def _disc(size: tuple[int, ...], centre: tuple[float, float], radius: float) -> np.ndarray:
    fine = np.zeros((size[0] * _SCALE, size[1] * _SCALE), np.float32)
    x, y = ((c + 0.5) * _SCALE - 0.5 for c in centre)
    cv2.circle(fine, (round(x), round(y)), round(radius * _SCALE), 1.0, -1)
    return cv2.resize(fine, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def _box(size: tuple[int, ...], centre: tuple[float, float], side: float, angle: float) -> np.ndarray:
    fine = np.zeros((size[0] * _SCALE, size[1] * _SCALE), np.float32)
    x, y = ((c + 0.5) * _SCALE - 0.5 for c in centre)
    corners = cv2.boxPoints(((x, y), (side * _SCALE, side * _SCALE), angle))
    cv2.fillConvexPoly(fine, np.round(corners).astype(np.int32), 1.0)
    return cv2.resize(fine, (size[1], size[0]), interpolation=cv2.INTER_AREA)
