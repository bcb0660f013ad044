"""Identity over time: regions of each frame become objects by optimal assignment.

The cost of giving a region to an object adds what disagrees: place (against constant velocity), colour, and size. One
of place and colour may disagree wholly when the other and the size agree: an object that jumps keeps its name (and
breaks continuity), one that changes colour in its place too (and breaks permanence). Kuhn-Munkres assignment as in
multi-object tracking (Bewley et al., Simple online and realtime tracking, ICIP 2016), with `scipy`.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

# Distances at which a cue disagrees wholly.
REACH_PX = 6.0
COLOUR_LEVELS = 60.0
AREA_RATIO = 2.0
# Place (or colour) may disagree wholly, and the rest by 0.45 together; nothing worse is the same object.
MAX_COST = 1.45
SIZE_WEIGHT = 0.5
FULL_SHARE = 0.9
# A jump is recognised as the same object only at once; later a look-alike may be another.
MAX_JUMP_GAP = 2
MIN_FRAMES = 2


@dataclass
class _Region:
    pixels: np.ndarray  # (P, 2) rows, columns
    centre: np.ndarray  # (2,) x, y
    area: float
    colour: np.ndarray  # (3,)


@dataclass
class _Object:
    """An object while it is followed."""

    last_frame: int
    region: _Region
    velocity: np.ndarray
    areas: list[float] = field(default_factory=list)
    at_border: bool = False
    # Where and how fast it was when last seen in full: what hides a part of it shifts its centre.
    full: tuple[int, np.ndarray, np.ndarray] | None = None
    found: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def area(self) -> float:
        return float(np.median(self.areas[-9:]))

    def predict(self, t: int) -> np.ndarray:
        if t - self.last_frame > 1 and self.full is not None:
            frame, centre, velocity = self.full
            return centre + velocity * (t - frame)
        return self.region.centre + self.velocity

    def take(self, t: int, region: _Region, shape: tuple[int, int]) -> None:
        step = (region.centre - self.region.centre) / max(t - self.last_frame, 1)
        # A jump says nothing about velocity.
        jumped = np.linalg.norm(region.centre - self.predict(t)) > 2 * REACH_PX + 2 * np.linalg.norm(self.velocity)
        if self.found and not jumped:
            self.velocity = step
        if self.areas and region.area > FULL_SHARE * self.area and not jumped:
            self.full = t, region.centre, self.velocity
        self.last_frame, self.region = t, region
        self.areas.append(region.area)
        self.found[t] = region.pixels
        rows, columns = region.pixels.T
        self.at_border = bool(
            rows.min() == 0 or columns.min() == 0 or rows.max() == shape[0] - 1 or columns.max() == shape[1] - 1
        )


def identify(regions: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Names regions consistently over time.

    Args:
        regions: (T, H, W) int16, 0 none, 1... the regions of that frame in any order.
        frames: (T, H, W, 3), for the colours of the regions.

    Returns:
        (T, H, W) int16: 0 none, k + 1 object k. Objects are numbered by first appearance. What shows in fewer than
        `MIN_FRAMES` frames is dropped.
    """
    objects: list[_Object] = []
    for t in range(len(regions)):
        _follow(objects, t, _regions(regions[t], frames[t]), regions.shape[1:])
    kept = [o for o in objects if len(o.found) >= min(MIN_FRAMES, len(regions))]
    labels = np.zeros(regions.shape, np.int16)
    for k, each in enumerate(kept):
        for t, pixels in each.found.items():
            labels[t, pixels[:, 0], pixels[:, 1]] = k + 1
    return labels


def _regions(numbered: np.ndarray, frame: np.ndarray) -> list[_Region]:
    found = []
    for k in range(1, int(numbered.max()) + 1):
        pixels = np.argwhere(numbered == k)
        if len(pixels):
            found.append(_region(pixels, frame))
    return found


def _region(pixels: np.ndarray, frame: np.ndarray) -> _Region:
    colour = np.median(frame[pixels[:, 0], pixels[:, 1]].astype(np.float32), axis=0)
    return _Region(pixels, pixels.mean(axis=0)[::-1] + 0.5, float(len(pixels)), colour)


def _follow(objects: list[_Object], t: int, regions: list[_Region], shape: tuple[int, int]) -> None:
    cost = np.array([[_cost(o, r, t) for r in regions] for o in objects]).reshape(len(objects), len(regions))
    rows, columns = linear_sum_assignment(np.minimum(cost, MAX_COST))
    given = {int(i): int(j) for i, j in zip(rows, columns, strict=True) if cost[i, j] < MAX_COST}
    free = set(range(len(regions))) - set(given.values())
    _join_fragments(objects, regions, given, free, t)
    _split_merged(objects, regions, given, t)
    for i, j in given.items():
        objects[i].take(t, regions[j], shape)
    for j in sorted(free):
        new = _Object(t, regions[j], np.zeros(2))
        new.take(t, regions[j], shape)
        objects.append(new)


def _cost(known: _Object, region: _Region, t: int) -> float:
    gap = t - known.last_frame
    speed = float(np.linalg.norm(known.velocity))
    # A contact may turn the velocity round: allow twice the speed.
    reach = max(REACH_PX, np.sqrt(known.area)) + 2.0 * speed * gap
    place = float(np.linalg.norm(region.centre - known.predict(t))) / reach
    if place > 1.0 and (gap > MAX_JUMP_GAP or known.at_border):
        return np.inf
    colour = float(np.linalg.norm(region.colour - known.region.colour)) / COLOUR_LEVELS
    size = abs(np.log(region.area / known.area)) / np.log(AREA_RATIO)
    return min(place, 1.0) + min(colour, 1.0) + SIZE_WEIGHT * min(size, 1.0)


def _join_fragments(
    objects: list[_Object], regions: list[_Region], given: dict[int, int], free: set[int], t: int
) -> None:
    """Gives an object the rest of its pixels where something in front cuts it in two."""
    for i, j in given.items():
        known = objects[i]
        for other in sorted(free):
            piece, main = regions[other], regions[j]
            apart = np.linalg.norm(piece.centre - known.predict(t))
            alike = np.linalg.norm(piece.colour - known.region.colour) < COLOUR_LEVELS / 2
            # Within the radius of a disc of the object's area, doubled for elongated shapes.
            if alike and piece.area + main.area < 1.15 * known.area and apart < 2.0 * np.sqrt(known.area / np.pi):
                pixels = np.concatenate([main.pixels, piece.pixels])
                regions[j] = _Region(pixels, pixels.mean(axis=0)[::-1] + 0.5, float(len(pixels)), main.colour)
                free.discard(other)


def _split_merged(objects: list[_Object], regions: list[_Region], given: dict[int, int], t: int) -> None:
    """Cuts a region that two objects of one colour share while they touch."""
    for i, known in enumerate(objects):
        if i in given or t - known.last_frame > MAX_JUMP_GAP:
            continue
        for holder, j in list(given.items()):
            region, owner = regions[j], objects[holder]
            inside = np.linalg.norm(region.pixels[:, ::-1] + 0.5 - known.predict(t), axis=1).min() < 2.0
            alike = np.linalg.norm(region.colour - known.region.colour) < COLOUR_LEVELS / 2
            both = known.area + owner.area
            if inside and alike and 0.8 * both < region.area < 1.2 * both:
                mine = _nearer(region.pixels, known.predict(t), owner.predict(t), known.area, owner.area)
                if 0 < mine.sum() < len(mine):
                    regions.append(_part(region, mine))
                    regions[j] = _part(region, ~mine)
                    given[i] = len(regions) - 1
                    break


def _nearer(pixels: np.ndarray, a: np.ndarray, b: np.ndarray, area_a: float, area_b: float) -> np.ndarray:
    """Which pixels belong to a: power diagram of two discs, its centres moved a few times to their pixels' means."""
    points = pixels[:, ::-1] + 0.5
    mine = np.zeros(len(points), bool)
    for _ in range(5):
        power_a = np.sum((points - a) ** 2, axis=1) - area_a / np.pi
        power_b = np.sum((points - b) ** 2, axis=1) - area_b / np.pi
        mine = power_a < power_b
        if mine.all() or not mine.any():
            break
        a, b = points[mine].mean(axis=0), points[~mine].mean(axis=0)
    return mine


def _part(region: _Region, mask: np.ndarray) -> _Region:
    pixels = region.pixels[mask]
    return _Region(pixels, pixels.mean(axis=0)[::-1] + 0.5, float(len(pixels)), region.colour)
