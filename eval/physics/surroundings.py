"""What lies around objects: the scene behind them, scenery that they may touch, and distances to all of it."""

from dataclasses import dataclass

import cv2
import numpy as np

# A plain background has one colour over at least this share of the scene.
PLAIN_SHARE = 0.4
# Levels by which a pixel must differ from the plain background to be a thing.
THING_LEVELS = 24.0
FAR_PX = 1e3
_SQUARE = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Distances between N objects and everything else over T frames; 0 where they touch.

    Attributes:
        scene: (H, W, 3) float32; the picture without objects.
        scenery: (H, W) bool; drawn things that never move (floors, ramps, pins, occluders), or None where the
            background is textured and they cannot be told from it.
        clutter: (T, H, W) bool; moving things too thin or blurred to be objects (a rod, a string).
        gap_px: (T, N) to the nearest object or scenery (neither clutter nor the border).
        between_px: (T, N, N) to each other object.
        scenery_px: (T, N) to scenery and clutter.
        normal: (T, N, 2) unit vector from the nearest scenery to the object, NaN where there is none.
    """

    scene: np.ndarray
    scenery: np.ndarray | None
    clutter: np.ndarray
    gap_px: np.ndarray
    between_px: np.ndarray
    scenery_px: np.ndarray
    normal: np.ndarray


def survey(frames: np.ndarray, labels: np.ndarray, number: int) -> Surroundings:
    """Finds the scene and measures all distances.

    Args:
        frames: float32 (T, H, W, 3) at even exposure.
        labels: int16 (T, H, W); 0 none, k + 1 object k.
        number: N, how many objects there are.
    """
    occupied = np.stack([cv2.dilate((m > 0).astype(np.uint8), _SQUARE) for m in labels]).astype(bool)
    scene = _scene(frames, occupied)
    scenery = _scenery(scene)
    # Half the differences of a still pixel lie below the median; five times that is not noise.
    differs = np.abs(frames - scene).max(axis=-1)
    loud = max(THING_LEVELS, 5.0 * 1.4826 * float(np.median(differs[~occupied])) if (~occupied).any() else 0.0)
    clutter = np.stack([_drop_specks(m) for m in (differs > loud) & ~occupied])
    between, scenery_px, solid_px, normal = _distances(labels, number, scenery, clutter)
    apart = np.where(np.eye(number, dtype=bool), FAR_PX, between)
    return Surroundings(
        scene=scene,
        scenery=scenery,
        clutter=clutter,
        gap_px=np.minimum(apart.min(axis=-1), solid_px),
        between_px=between,
        scenery_px=scenery_px,
        normal=normal,
    )


def _scene(frames: np.ndarray, occupied: np.ndarray) -> np.ndarray:
    """Per-pixel median over the frames in which no object is near; elsewhere the most frequent colour."""
    scene = np.median(frames[:: max(1, len(frames) // 32)], axis=0)
    touched = occupied.any(axis=0)
    free = ~occupied[:, touched]
    values = np.where(free[..., None], frames[:, touched], np.nan)
    known = free.any(axis=0)
    filled = np.empty((touched.sum(), 3), np.float32)
    if known.any():
        filled[known] = np.nanmedian(values[:, known], axis=0)
    plain, _ = _plain_colour(scene[~touched] if (~touched).any() else scene.reshape(-1, 3))
    filled[~known] = plain
    scene[touched] = filled
    return scene.astype(np.float32)


def _scenery(scene: np.ndarray) -> np.ndarray | None:
    plain, share = _plain_colour(scene.reshape(-1, 3))
    if share < PLAIN_SHARE:
        return None
    return _drop_specks(np.abs(scene - plain).max(axis=-1) > THING_LEVELS)


def _plain_colour(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """The most frequent colour (3,) of (P, 3), and the share of pixels within `THING_LEVELS` of it."""
    codes = (pixels // 16).astype(np.int64) @ np.array([65536, 256, 1])
    values, counts = np.unique(codes, return_counts=True)
    plain = np.median(pixels[codes == values[counts.argmax()]], axis=0)
    near = np.abs(pixels - plain).max(axis=-1) <= THING_LEVELS
    return np.median(pixels[near], axis=0), float(near.mean())


def _drop_specks(mask: np.ndarray) -> np.ndarray:
    """Keeps connected regions of at least three pixels."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= 3
    keep[0] = False
    return np.asarray(keep[np.asarray(parts, np.intp)])


def _distances(
    labels: np.ndarray, number: int, scenery: np.ndarray | None, clutter: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """To each other, to scenery and clutter, to scenery alone, and the direction away from scenery and clutter."""
    num_frames = len(labels)
    between = np.full((num_frames, number, number), FAR_PX)
    to_scenery = np.full((num_frames, number), FAR_PX)
    to_solid = np.full((num_frames, number), FAR_PX)
    normal = np.full((num_frames, number, 2), np.nan)
    for t in range(num_frames):
        masks = {k: labels[t] == k + 1 for k in range(number)}
        masks = {k: m for k, m in masks.items() if m.any()}
        solid = np.zeros_like(clutter[t]) if scenery is None else scenery & (labels[t] == 0)
        still = solid | clutter[t]
        field = _field(still) if still.any() else None
        solid_field = field if not clutter[t].any() else _field(solid) if solid.any() else None
        for k, mask in masks.items():
            if field is not None:
                # Pixels next to objects are never clutter, so what touches an object seems one pixel further away.
                to_scenery[t, k] = max(field[mask].min() - 1.0 - clutter[t].any(), 0.0)
                normal[t, k] = _away(field, mask)
            if solid_field is not None:
                to_solid[t, k] = max(solid_field[mask].min() - 1.0, 0.0)
            if len(masks) > 1:
                own = _field(mask)
                for j, other in masks.items():
                    if j != k:
                        between[t, k, j] = max(own[other].min() - 1.0, 0.0)
    return between, to_scenery, to_solid, normal


def _field(mask: np.ndarray) -> np.ndarray:
    """(H, W) distance in pixels to the nearest pixel of `mask`."""
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _away(field: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Unit vector (x, y) away from scenery: the mean slope of its distance field over the object's nearest pixels."""
    slope_y, slope_x = np.gradient(field)
    nearest = mask & (field <= field[mask].min() + 1.5)
    direction = np.array([slope_x[nearest].mean(), slope_y[nearest].mean()])
    length = np.linalg.norm(direction)
    return direction / length if length > 1e-6 else np.full(2, np.nan)
