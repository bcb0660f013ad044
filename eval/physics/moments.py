"""Sub-pixel moments of labelled objects: area, centroid, spread, orientation, colour."""

from dataclasses import dataclass

import cv2
import numpy as np

# Two colours closer than this (RGB, 0-255 levels) do not tell how much of a pixel each covers.
MIN_CONTRAST = 30.0
MIN_INNER_PX = 4
# Less of a pixel than this is noise, not the object's edge.
MIN_COVER = 0.1
# A fold's moment must exceed its own noise over frames this many times to count as orientation.
ROUND_BELOW = 0.04
_SQUARE = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Moments:
    """Of N objects over T frames; NaN where not seen. Fields as in `eval.physics.tracks.Tracks`."""

    seen: np.ndarray
    centroid_px: np.ndarray
    extent_px: np.ndarray
    area_px: np.ndarray
    spread_px2: np.ndarray
    turn_rad: np.ndarray
    fold: np.ndarray
    outline: np.ndarray
    colour: np.ndarray


def read(frames: np.ndarray, labels: np.ndarray, number: int, scene: np.ndarray) -> Moments:
    """Reads the moments of objects 1...`number`.

    Args:
        frames: float32 (T, H, W, 3) at even exposure.
        labels: int16 (T, H, W).
        number: How many objects there are.
        scene: (H, W, 3), the picture without objects.
    """
    num_frames = len(frames)
    seen = np.zeros((num_frames, number), bool)
    centroid = np.full((num_frames, number, 2), np.nan)
    extent = np.full((num_frames, number, 4), np.nan)
    area = np.full((num_frames, number), np.nan)
    spread = np.full((num_frames, number, 2, 2), np.nan)
    harmonic = np.full((num_frames, number, 4), np.nan, complex)
    colour = np.full((num_frames, number, 3), np.nan)
    pure = np.zeros((num_frames, number), bool)
    for t in range(num_frames):
        present = [k for k in range(number) if (labels[t] == k + 1).any()]
        for k in present:
            colour[t, k], pure[t, k] = _inner_colour(frames[t], labels[t] == k + 1)
        for k in present:
            cover, x, y = _coverage(frames[t], labels[t], k, colour[t], scene)
            seen[t, k] = True
            extent[t, k] = _extent(cover, x, y)
            area[t, k] = cover.sum()
            mean = np.array([(cover * x).sum(), (cover * y).sum()]) / area[t, k]
            dx, dy = x - mean[0], y - mean[1]
            centroid[t, k] = mean
            cross = (cover * dx * dy).sum()
            spread[t, k] = np.array([[(cover * dx**2).sum(), cross], [cross, (cover * dy**2).sum()]]) / area[t, k]
            harmonic[t, k] = _harmonics(cover, dx + 1j * dy)
    colour[~pure] = np.nan
    turn, fold = _orientation(harmonic)
    return Moments(seen, centroid, extent, area, spread, turn, fold, np.abs(harmonic), colour)


def _inner_colour(frame: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, bool]:
    """Median colour of the pixels that the object surely fills, and whether there are enough of them."""
    inner = cv2.erode(mask.astype(np.uint8), _SQUARE, borderValue=1).astype(bool)
    enough = bool(inner.sum() >= MIN_INNER_PX)
    return np.median(frame[inner if enough else mask], axis=0), enough


def _coverage(
    frame: np.ndarray, labels: np.ndarray, k: int, colours: np.ndarray, scene: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of each pixel near object k that it covers, and the pixels' x and y."""
    mask = labels == k + 1
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = max(rows[0] - 2, 0), max(columns[0] - 2, 0)
    cut = np.s_[top : min(rows[-1] + 3, len(labels)), left : min(columns[-1] + 3, labels.shape[1])]
    mask, pixels, near = mask[cut], frame[cut], labels[cut]
    solid = mask.astype(np.uint8)
    outer = (cv2.dilate(solid, _SQUARE) - solid).astype(bool)
    inner = (solid - cv2.erode(solid, _SQUARE, borderValue=1)).astype(bool)
    # What lies beside the object: the scene, or another object's colour.
    beside = scene[cut].copy()
    taken = (near > 0) & ~mask
    beside[taken] = colours[near[taken] - 1]
    weight = (~mask).astype(np.float32)
    known = cv2.blur(weight, (3, 3), borderType=cv2.BORDER_CONSTANT)
    mean = cv2.blur(np.where(mask[..., None], 0, beside).astype(np.float32), (3, 3), borderType=cv2.BORDER_CONSTANT)
    inside = inner & (known > 0)
    beside[inside] = mean[inside] / known[inside, None]
    rim = outer | inside
    axis = colours[k] - beside[rim]
    contrast = np.sum(axis**2, axis=1)
    share = np.sum((pixels[rim] - beside[rim]) * axis, axis=1) / np.maximum(contrast, 1.0)
    cover = mask.astype(float)
    cover[rim] = np.where(contrast >= MIN_CONTRAST**2, np.clip(share, 0.0, 1.0), cover[rim])
    y, x = np.mgrid[cut]
    return cover, x + 0.5, y + 0.5


def _extent(cover: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Left, right, top and bottom edge (4,) to a fraction of a pixel: the outermost lines count as far as covered."""
    across, down = cover.max(axis=0), cover.max(axis=1)
    columns, rows = np.flatnonzero(across > MIN_COVER), np.flatnonzero(down > MIN_COVER)
    left, right = x[0, columns[0]] + 0.5 - across[columns[0]], x[0, columns[-1]] - 0.5 + across[columns[-1]]
    top, bottom = y[rows[0], 0] + 0.5 - down[rows[0]], y[rows[-1], 0] - 0.5 + down[rows[-1]]
    return np.array([left, right, top, bottom])


def _harmonics(cover: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(4,) complex: mean of the unit direction to the power 1...4, weighted by the cubed distance from the centroid."""
    radius = np.abs(z)
    total = float((cover * radius**3).sum())
    unit = np.where(radius > 1e-9, z / np.maximum(radius, 1e-9), 0.0)
    return np.array([(cover * radius**3 * unit**m).sum() / max(total, 1e-9) for m in (1, 2, 3, 4)])


def _orientation(harmonic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unwrapped orientation (T, N) from the lowest fold that stands out, and the fold (N,); 0 and NaN for round."""
    num_frames, number = harmonic.shape[:2]
    turn = np.full((num_frames, number), np.nan)
    fold = np.zeros(number, int)
    for k in range(number):
        values = harmonic[:, k]
        ok = np.isfinite(values[:, 0])
        strength = np.median(np.abs(values[ok]), axis=0) if ok.any() else np.zeros(4)
        strong = np.flatnonzero(strength > ROUND_BELOW)
        if len(strong) == 0:
            continue
        fold[k] = m = int(strong[0]) + 1
        turn[ok, k] = np.unwrap(np.angle(values[ok, m - 1])) / m
    return turn, fold
