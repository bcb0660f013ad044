"""Laws of matter: rigidity, permanence, non-penetration."""

from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np

from eval.clip import Clip
from eval.physics.evidence import Evidence, log_p_above, log_p_either
from eval.physics.tracks import BORDER_ERROR_PX, Tracks, planar_track
from eval.physics.verdict import UNIT, verdict
from eval.score import Measurement, Unmeasurable, evaluator

# What the rim's mixture leaves when an object of `FLOOR_AREA_PX` moves and turns across the pixel grid, measured on
# lawful clips (95 % of objects): share of the area, second moment over area, departure from round with 1 to 4 folds.
SHAPE_FLOORS = np.array([0.0025, 0.0004, 0.002, 0.006, 0.004, 0.004])
FLOOR_AREA_PX = 113.0
FEATURES = ("area", "spread", "one-fold outline", "two-fold outline", "three-fold outline", "four-fold outline")
COLOUR_FLOOR_LEVELS = 2.0
# Standard deviation of an area where three colours meet on the rim: a share of it, and a pixel.
AREA_SHARE, AREA_PX = 0.04, 1.0
MIN_SIDE = 2
# An object hides behind what covers this share of it.
HIDDEN_SHARE = 0.6
# Only what is larger by this factor hides a whole object; equals would show.
COVER_RATIO = 1.2


@evaluator("rigidity", suite="physics", unit=UNIT, better="lower", claims=("shape_swap",))
def rigidity(clip: Clip) -> Measurement:
    """Solid objects keep size and shape.

    Area, second moment over area and departure from round (one to four folds) of every object, where it is whole and
    apart from others; the test is for a lasting or passing change at any frame.
    """
    tracks = planar_track(clip)
    evidence, used = [], 0
    for k in range(len(tracks)):
        frames = np.flatnonzero(tracks.whole[:, k] & (tracks.around.gap_px[:, k] > 1.5))
        if len(frames) < 2 * MIN_SIDE + 1:
            continue
        used += len(frames)
        area = tracks.area_px[frames, k]
        spread = np.trace(tracks.spread_px2[frames, k], axis1=1, axis2=2) / area
        series = np.column_stack([area / np.median(area), spread, tracks.outline[frames, k]])
        # The rim is a larger share of a smaller object.
        floors = SHAPE_FLOORS * max(1.0, float(np.sqrt(FLOOR_AREA_PX / np.median(area))))
        for f, name in enumerate(FEATURES):
            about = f"object {k + 1} changes its {name}"
            evidence += _changes(series[:, f], floors[f], frames, about)
    if not evidence:
        raise Unmeasurable("insufficient", "no object is seen whole and apart in five frames")
    return verdict(evidence, len(clip), used / tracks.seen.sum())


@evaluator(
    "permanence", suite="physics", unit=UNIT, better="lower", claims=("vanish", "appear", "duplicate", "colour_swap")
)
def permanence(clip: Clip) -> Measurement:
    """Nothing vanishes, appears, doubles or becomes another thing.

    An object may leave and enter through the frame's border, and hide behind scenery or a larger object where its path
    leads there. Its colour stays, changes of exposure (shared by the background) apart.
    """
    tracks = planar_track(clip)
    evidence: list[Evidence] = []
    usual = [_usual_area(tracks, k) for k in range(len(tracks))]
    for k in range(len(tracks)):
        evidence += _absences(tracks, k)
        apart = np.flatnonzero(tracks.whole[:, k] & (tracks.around.gap_px[:, k] > 1.5))
        if len(apart) > 0:
            sigma = float(np.hypot(AREA_PX, 0.5 * AREA_SHARE * usual[k]))
            about = f"object {k + 1} changes its amount in view (px²)"
            evidence += _changes(tracks.area_px[apart, k], sigma, apart, about)
        frames = np.flatnonzero(np.isfinite(tracks.colour[:, k, 0]))
        for c, channel in enumerate(("red", "green", "blue")):
            about = f"object {k + 1} changes colour ({channel})"
            evidence += _changes(tracks.colour[frames, k, c], COLOUR_FLOOR_LEVELS, frames, about)
    if not evidence:
        evidence = [Evidence(log_p=0.0, frames=(), about="everything stays")]
    return verdict(evidence, len(clip), 1.0, objects=len(tracks))


@evaluator("non_penetration", suite="physics", unit=UNIT, better="lower", claims=("pass_through",))
def non_penetration(clip: Clip) -> Measurement:
    """Solid objects do not overlap.

    Where two overlap, the picture shows less area than both have. Scenery is left out: what it covers may be behind it.
    """
    tracks = planar_track(clip)
    usual = np.array([_usual_area(tracks, k) for k in range(len(tracks))])
    evidence, used = [], 0
    for k in range(len(tracks)):
        for j in range(k):
            for t in _meeting(tracks, k, j):
                if not np.isfinite(usual[[k, j]]).all():
                    continue
                used += 1
                area = float(tracks.area_px[t, k] + tracks.area_px[t, j])
                lost = float(usual[k] + usual[j]) - area
                sigma = float(np.hypot(AREA_PX, 0.5 * AREA_SHARE * min(usual[k], usual[j])))
                about = f"objects {j + 1} and {k + 1} overlap by {lost:.1f} px²"
                evidence.append(Evidence(log_p=log_p_above(lost, sigma), frames=(int(t),), about=about))
    if not evidence:
        raise Unmeasurable("inapplicable", "no two objects touch in view")
    return verdict(evidence, len(clip), min(2 * used / tracks.seen.sum(), 1.0))


def _changes(values: np.ndarray, floor: float, frames: np.ndarray, about: str) -> Iterator[Evidence]:
    """Two-sample z-tests for a change at every frame: the noise of the series, and a floor that does not average."""
    n = len(values)
    if n < 2 * MIN_SIDE + 1:
        return
    noise = 1.4826 * np.median(np.abs(np.diff(values))) / np.sqrt(2.0)
    total = np.concatenate([[0.0], np.cumsum(values)])
    for at in range(MIN_SIDE, n - MIN_SIDE + 1):
        before, after = total[at] / at, (total[n] - total[at]) / (n - at)
        # Errors that vary slowly do not average out: the floor, and a part of the noise.
        sigma = np.sqrt(noise**2 * (1.0 / at + 1.0 / (n - at) + 0.5) + 2.0 * floor**2)
        yield Evidence(
            log_p=log_p_either(after - before, float(sigma)),
            frames=(int(frames[at - 1]), int(frames[at])),
            about=f"{about} by {after - before:.3g}",
        )


def _usual_area(tracks: Tracks, k: int) -> float:
    whole = tracks.whole[:, k] & (tracks.around.gap_px[:, k] > 1.5)
    if whole.sum() < 3:
        whole = tracks.whole[:, k]
    return float(np.median(tracks.area_px[whole, k])) if whole.any() else np.nan


def _meeting(tracks: Tracks, k: int, j: int) -> np.ndarray:
    """Frames in which k and j touch, fully inside the frame, with no scenery or third object near either."""
    around = tracks.around
    touching = tracks.seen[:, k] & tracks.seen[:, j] & (around.between_px[:, k, j] <= 1.0)
    clear = np.ones(len(touching), bool)
    for item in (k, j):
        clear &= (np.nan_to_num(tracks.border_px[:, item].min(axis=-1)) > BORDER_ERROR_PX) & (
            around.scenery_px[:, item] > 1.5
        )
        others = np.delete(around.between_px[:, item], [k, j], axis=1)
        clear &= others.min(axis=1, initial=np.inf) > 1.5
    return np.flatnonzero(touching & clear)


def _absences(tracks: Tracks, k: int) -> Iterator[Evidence]:
    """Every frame next to which object k is missing, unless it can be out of sight there."""
    seen = np.flatnonzero(tracks.seen[:, k])
    usual = _usual_area(tracks, k)
    if not np.isfinite(usual):
        usual = float(np.nanmax(tracks.area_px[:, k]))
    edges = [(int(seen[0]), -1), (int(seen[-1]), 1)]
    for a, b in pairwise(seen):
        if b > a + 1:
            edges += [(int(a), 1), (int(b), -1)]
    for t, step in edges:
        if not 0 <= t + step < len(tracks.seen):
            continue
        missing = usual * (1.0 - _hidden_share(tracks, k, t, step, usual))
        sigma = float(np.hypot(AREA_PX, AREA_SHARE * usual))
        what = "vanishes" if step > 0 else "appears"
        yield Evidence(
            log_p=log_p_above(missing, sigma),
            frames=(t, t + step) if step > 0 else (t + step, t),
            about=f"object {k + 1} {what} ({missing:.0f} px² unaccounted for)",
        )


def _hidden_share(tracks: Tracks, k: int, t: int, step: int, usual: float) -> float:
    """The largest share of object k that can be out of sight one frame after (`step` 1) or before (-1) frame t.

    Its place is extrapolated from its last frames, give or take a pixel and half the way it makes in a frame.
    """
    covers = _covers(tracks, k, t + step, usual)
    radius = float(np.sqrt(usual / np.pi))
    velocity = _velocity(tracks, k, t, -step)
    centre = tracks.centroid_px[t, k] + velocity
    slack = 1.0 + 0.5 * float(np.linalg.norm(velocity))
    partly = float(tracks.area_px[t, k]) < 0.8 * usual
    if partly:
        # What shows is only a part, so its centroid lies to one side of the object's, by up to a radius.
        slack += radius
    height, width = tracks.size
    pad = int(np.ceil(2 * radius + slack)) + 2
    out = np.pad(covers, pad, constant_values=True).astype(np.float32)
    side = 2 * int(np.ceil(radius)) + 1
    y, x = np.mgrid[:side, :side] - side // 2
    disc = (x**2 + y**2 <= radius**2).astype(np.float32)
    share = cv2.filter2D(out, -1, disc / disc.sum())
    rows, columns = np.mgrid[: height + 2 * pad, : width + 2 * pad]
    near = np.hypot(columns + 0.5 - pad - centre[0], rows + 0.5 - pad - centre[1]) <= slack + 0.75
    best = float(share[near].max(initial=0.0))
    return best if best >= HIDDEN_SHARE else 0.0


def _covers(tracks: Tracks, k: int, t: int, usual: float) -> np.ndarray:
    """(H, W) bool: what can hide object k at frame t."""
    scenery = tracks.around.scenery
    # Clutter does not count: what fades out of its label would hide behind itself.
    covers = np.zeros(tracks.size, bool) if scenery is None else scenery.copy()
    for j in range(len(tracks)):
        if j != k and tracks.seen[t, j] and tracks.area_px[t, j] > COVER_RATIO * usual:
            covers |= tracks.labels[t] == j + 1
    return covers


def _velocity(tracks: Tracks, k: int, t: int, back: int) -> np.ndarray:
    """Velocity in px per frame along -`back`, from the two frames on that side of t; zero where there are none."""
    frames = [t + back * i for i in range(3)]
    usable = [f for f in frames if 0 <= f < len(tracks.seen) and tracks.seen[f, k]]
    if len(usable) < 2:
        return np.zeros(2)
    last = usable[-1]
    return (tracks.centroid_px[t, k] - tracks.centroid_px[last, k]) / abs(t - last)
