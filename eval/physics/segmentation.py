"""Objects from pixels: flat colours on a plain or textured, still background.

Two ways, tried in this order:

* *Colours*. Pixels whose four neighbours look alike vote for the clip's palette; every other pixel is the best mixture
  of two palette colours nearby (an anti-aliased edge). The most frequent colour is the background; coloured regions
  that never move are scenery (walls, ramps, pins, occluders), the others are objects.
* *Motion*. Where flat colours do not explain the picture: what differs from the median frame, after the camera's
  motion is taken out where it moves. Nothing is known about scenery then.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from eval.physics.points import stabilised
from eval.score import Unmeasurable

# Distance in RGB (0-255 levels) below which two flat colours are one; anti-aliasing, codecs and decoders of learned
# models move a flat colour by less, and worlds draw objects further apart.
COLOUR_RADIUS = 26.0
FLAT_TOLERANCE = 10.0
MAX_COLOURS = 24
# Beyond, colours that lie 4.5 standard deviations of noise apart are few.
MAX_NOISE_LEVELS = 15.0
MAX_OBJECTS = 64
MIN_AREA_PX = 8
# Pixel noise in levels that doubles the least area: noise makes blobs.
NOISE_UNIT = 8.0
# Texture that does not quite fit makes small blobs.
MIN_MOVING_PX = 16
# An object shows its own colour; a blob that hardly does is a mixture of its surroundings, or noise.
CORE_SHARE = 0.3
# Share of pixels that the palette must explain before it is believed.
EXPLAINED_SHARE = 0.94
# Share of pixels that may leave the median frame before "still camera" is not believed.
STILL_SHARE = 0.75
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
_SQUARE = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Regions of each frame that may be objects, before identity over time is known.

    Attributes:
        regions: (T, H, W) int16; 0 background or scenery, 1... the regions of that frame, numbered per frame.
        source: How the regions were found; by "motion" they may be in the view of the stabilised camera.
        noise_levels: Standard deviation of the pixel noise in 0-255 levels.
    """

    regions: np.ndarray
    source: Literal["colour", "motion"]
    noise_levels: float


def segment(frames: np.ndarray) -> Segmentation:
    """Finds candidate objects in every frame of uint8 (T, H, W, 3).

    Raises:
        Unmeasurable: If neither way applies, if nothing ever differs from the background, or if there are too many
            regions to be objects.
    """
    noise = noise_levels(frames)
    if noise > MAX_NOISE_LEVELS:
        raise Unmeasurable("insufficient", f"pixel noise of {noise:.0f} levels hides which colour is which")
    steady = even_exposure(frames)
    found = _by_colour(steady, noise) or _by_motion(steady, noise) or _by_motion_of_camera(frames, noise)
    if found is None:
        raise Unmeasurable("insufficient", "the background changes or falls into pieces: no objects can be cut out")
    if not found.regions.any():
        raise Unmeasurable("inapplicable", "no object stands out from the background")
    return found


def noise_levels(frames: np.ndarray) -> float:
    """Robust standard deviation of the pixel noise of uint8 (T, H, W, 3) in levels; about 0 below one level.

    The smaller of two estimates: differences between frames, which motion inflates, and a filter within frames that
    ignores planes and edges (Immerkær, Fast noise variance estimation, CVIU 1996), which texture inflates.
    """
    green = frames[..., 1].astype(np.float32)
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    within = [_quiet_deviation(cv2.filter2D(f, -1, kernel)) / 6.0 for f in green[:: max(1, len(green) // 16)]]
    if len(frames) < 2:
        return float(np.median(within))
    between = [_quiet_deviation(d) / np.sqrt(2.0) for d in np.diff(green, axis=0)]
    return float(min(np.median(within), np.median(between)))


def _quiet_deviation(values: np.ndarray) -> float:
    """Standard deviation of Gaussian noise, from the mean size of the smaller half.

    A median would be 0 below one level, for values are rounded. For |N(0, s)| the mean below its median is 0.3250 s.
    """
    return float(np.sort(np.abs(values), axis=None)[: values.size // 2].mean() / 0.3250)


def even_exposure(frames: np.ndarray) -> np.ndarray:
    """Float32 frames with every frame's median colour brought to the clip's, where it differs by a plain gain.

    Brightness that drifts or flickers is no change of colour of the objects.
    """
    flat = frames.reshape(len(frames), -1, 3)
    typical = np.median(flat, axis=1)
    target = np.median(typical, axis=0)
    usable = (target > 32) & (typical > 16).all(axis=0)
    gain = np.where(usable, target / np.maximum(typical, 1.0), 1.0)
    # A level or two is rounding, and gains beyond 2 are a change of scene.
    gain[(np.abs(typical - target) < 2.0) | (gain > 2.0) | (gain < 0.5)] = 1.0
    if np.all(gain == 1.0):
        return frames.astype(np.float32)
    return frames.astype(np.float32) * gain[:, None, None, :].astype(np.float32)


def _by_colour(frames: np.ndarray, noise: float) -> Segmentation | None:
    flat = _flat(frames, max(FLAT_TOLERANCE, 5.0 * noise))
    radius = max(COLOUR_RADIUS, 4.5 * noise)
    palette = _palette(frames[flat], radius)
    if not 2 <= len(palette) <= MAX_COLOURS:
        return None
    labels, residual = _label(frames, flat, palette, radius)
    core = np.linalg.norm(frames - palette[labels], axis=-1) < radius
    if np.mean(residual < radius) < EXPLAINED_SHARE:
        return None
    scenery = np.zeros(frames.shape[1:3], bool)
    for colour in range(1, len(palette)):
        scenery |= _still(labels, colour)
    regions = np.zeros(labels.shape, np.int16)
    for t, frame_labels in enumerate(np.where(scenery, 0, labels)):
        count = 0
        for colour in np.unique(frame_labels[frame_labels > 0]):
            for mask in _components(frame_labels == colour, MIN_AREA_PX * (1.0 + noise / NOISE_UNIT)):
                if core[t][mask].mean() < CORE_SHARE:
                    continue
                count += 1
                regions[t][mask] = count
    # A scene in pieces has not been explained.
    return Segmentation(regions=regions, source="colour", noise_levels=noise) if regions.max() <= MAX_OBJECTS else None


def _by_motion(frames: np.ndarray, noise: float, seen: np.ndarray | None = None) -> Segmentation | None:
    """What differs from the median frame by more than a shift of one pixel explains; None if too much does."""
    if len(frames) < 5:
        raise Unmeasurable("insufficient", "under five frames, and flat colours do not explain the picture")
    background = np.median(frames, axis=0)
    least, most = cv2.erode(background, _SQUARE), cv2.dilate(background, _SQUARE)
    loud = max(20.0, 5.0 * noise)
    differs = np.stack([np.any((f < least - loud) | (f > most + loud), axis=-1) for f in frames])
    if seen is not None:
        differs &= seen
    if np.mean(differs) > 1.0 - STILL_SHARE:
        return None
    regions = np.zeros(differs.shape, np.int16)
    for t, moving in enumerate(differs):
        opened = cv2.morphologyEx(moving.astype(np.uint8), cv2.MORPH_OPEN, _CROSS)
        closed = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, _SQUARE, iterations=2)
        for k, mask in enumerate(_components(closed > 0, MIN_MOVING_PX), start=1):
            regions[t][mask] = k
    return Segmentation(regions=regions, source="motion", noise_levels=noise) if regions.max() <= MAX_OBJECTS else None


def _by_motion_of_camera(frames: np.ndarray, noise: float) -> Segmentation | None:
    still, seen = stabilised(frames)
    return _by_motion(even_exposure(still), noise, seen)


def _flat(frames: np.ndarray, tolerance: float) -> np.ndarray:
    """Pixels (T, H, W) that differ from each of their four neighbours by less than `tolerance` in every channel."""
    flat = np.ones(frames.shape[:3], bool)
    for axis in (1, 2):
        alike = np.abs(np.diff(frames, axis=axis)).max(axis=-1) < tolerance
        lead = (slice(None),) * axis
        flat[(*lead, slice(1, None))] &= alike
        flat[(*lead, slice(None, -1))] &= alike
    return flat


def _palette(pixels: np.ndarray, radius: float) -> np.ndarray:
    """Modes (K, 3) of RGB `pixels` (P, 3), the most frequent first: greedy mean shift over a coarse histogram."""
    if len(pixels) == 0:
        return np.empty((0, 3), np.float32)
    step = 8
    bins = np.minimum(pixels.astype(np.int32), 255) // step
    codes = (bins[:, 0] << 16) | (bins[:, 1] << 8) | bins[:, 2]
    _, first, inverse, counts = np.unique(codes, return_index=True, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(inverse, pixels[:, c], len(first)) for c in range(3)], axis=1)
    means = sums / counts[:, None]
    weight = counts.astype(float)
    modes: list[np.ndarray] = []
    enough = max(4.0, 2e-5 * len(pixels))
    while weight.sum() >= enough and len(modes) <= MAX_COLOURS:
        centre = means[np.argmax(weight)]
        for _ in range(3):
            near = (np.linalg.norm(means - centre, axis=1) < radius) & (weight > 0)
            centre = np.average(means[near], axis=0, weights=weight[near])
        near = (np.linalg.norm(means - centre, axis=1) < radius) & (weight > 0)
        if weight[near].sum() >= enough:
            modes.append(centre)
        weight[near] = 0.0
    return np.array(modes, np.float32).reshape(-1, 3)


def _label(frames: np.ndarray, flat: np.ndarray, palette: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Palette index (T, H, W) of the colour that covers most of each pixel, and the RGB residual (T, H, W)."""
    distances = np.stack([np.linalg.norm(frames - c, axis=-1) for c in palette], axis=-1)
    labels = distances.argmin(axis=-1).astype(np.int16)
    residual = distances.min(axis=-1)
    core = flat & (residual < radius)
    mixed = ~core
    nearby = np.stack([_dilate(core & (labels == k), 2)[mixed] for k in range(len(palette))], axis=-1)
    pixels, own = frames[mixed], distances[mixed]
    # A pixel of one colour alone must not lose to a pair that fits noise a little better.
    best = np.where(nearby, own, np.inf).min(axis=-1) - 2.0
    chosen = np.where(nearby, own, np.inf).argmin(axis=-1)
    for a in range(len(palette)):
        for b in range(a):
            both = np.flatnonzero(nearby[:, a] & nearby[:, b])
            if len(both) == 0:
                continue
            axis = palette[a] - palette[b]
            share = np.clip((pixels[both] - palette[b]) @ axis / (axis @ axis), 0.0, 1.0)
            miss = np.linalg.norm(pixels[both] - palette[b] - share[:, None] * axis, axis=-1)
            wins = miss < best[both]
            best[both[wins]] = miss[wins]
            chosen[both[wins]] = np.where(share[wins] > 0.5, a, b)
    # Far from any flat pixel there is nothing to mix; the nearest colour stands.
    known = np.isfinite(best)
    chosen[~known], best[~known] = own[~known].argmin(axis=-1), own[~known].min(axis=-1)
    labels[mixed], residual[mixed] = chosen, best
    return labels, residual


def _still(labels: np.ndarray, colour: int) -> np.ndarray:
    """(H, W) bool: regions of `colour` that show that colour, or are covered by another, in every frame."""
    shown = labels == colour
    candidate = (shown.mean(axis=0) > 0.5) & np.all(labels != 0, axis=0)
    ever = shown.any(axis=0).astype(np.uint8)
    still = np.zeros(candidate.shape, np.uint8)
    for part in _components(candidate):
        near = cv2.dilate(part.astype(np.uint8), _SQUARE)
        # Pixels on the rim flicker between two labels; what moves reaches the ring beyond them.
        ring = cv2.dilate(near, _SQUARE) - near
        if (ever & ring).sum() <= 0.1 * ring.sum():
            still |= near & ever
    return still.astype(bool)


def _dilate(masks: np.ndarray, times: int) -> np.ndarray:
    """Dilates each of (T, H, W) bool by a 3x3 square, `times` times."""
    return np.stack([cv2.dilate(m.astype(np.uint8), _SQUARE, iterations=times) for m in masks]).astype(bool)


def _components(mask: np.ndarray, least: float = MIN_AREA_PX) -> Iterator[np.ndarray]:
    """Connected regions (H, W) bool of `mask` with at least so many pixels, in scan order."""
    number, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for k in range(1, number):
        if stats[k, cv2.CC_STAT_AREA] >= least:
            yield parts == k
