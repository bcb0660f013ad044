"""PhyWorld's ball tracker and the arithmetic of its errors (see `eval.physics.phyworld`)."""

from typing import Literal, NamedTuple

import cv2
import numpy as np

from eval.errors import MeasureError

WORLD_SIZE = 10.0
DT_S = 0.1
# Highest training speed: the least that a ball which is not there is charged, in the fixed mode.
MISSING_SPEED = 4.0

Colour = Literal["red", "blue"]


class BallTrack(NamedTuple):
    """One ball, frame by frame, in world units.

    Attributes:
        xy: (n, 2) centroid of the ball's pixels, NaN where there are none.
        radius: (n,) of the disc of equal area, NaN where there are no pixels.
        blobs: (n,) number of connected regions of the ball's colour.
    """

    xy: np.ndarray
    radius: np.ndarray
    blobs: np.ndarray


def track_ball(frames: np.ndarray, *, colour: Colour = "red", fixed: bool = False) -> BallTrack:
    """Finds the ball of a colour in every frame.

    Args:
        frames: uint8 (n, S, S, 3), RGB.
        colour: Red: R > 127, G < 127, B < 127; blue alike.
        fixed: Pixel index i lies at 10·i/(S-1), as the renderer puts it, instead of 10·i/S.

    Raises:
        MeasureError: If `frames` is not uint8 (n, S, S, 3).
    """
    is_video = getattr(frames, "dtype", None) == np.uint8 and frames.ndim == 4 and frames.shape[-1] == 3
    if not is_video or frames.shape[1] != frames.shape[2]:
        got = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise MeasureError(expected="square frames, uint8 (n, S, S, 3)", got=got, remedy="Crop or pad the video.")
    strong, weak = (0, 2) if colour == "red" else (2, 0)
    mask = (frames[..., strong] > 127) & (frames[..., weak] < 127) & (frames[..., 1] < 127)
    size = frames.shape[2]
    area = mask.sum(axis=(1, 2)).astype(float)
    index = np.arange(size, dtype=float)
    with np.errstate(invalid="ignore"):
        x, y = mask.sum(axis=1) @ index / area, mask.sum(axis=2) @ index / area
    span = size - 1 if fixed else size
    radius = np.where(area > 0, np.sqrt(area / np.pi) / size * WORLD_SIZE, np.nan)
    blobs = np.array([cv2.connectedComponents(m.view(np.uint8))[0] - 1 for m in mask])
    return BallTrack(np.stack([x, y], axis=-1) / span * WORLD_SIZE, radius, blobs)


def filled(track: BallTrack, *, edge: float) -> BallTrack:
    """As published: a ball that is not seen sits at the edge, with the y and the radius of the frame before."""
    lost = np.isnan(track.radius)
    last = np.maximum.accumulate(np.where(lost, -1, np.arange(len(lost))))
    known = last >= 0
    y = np.where(known, track.xy[last, 1], np.nan)
    radius = np.where(known, track.radius[last], np.nan)
    return BallTrack(np.stack([np.where(lost, edge, track.xy[:, 0]), y], axis=-1), radius, track.blobs)


def charged(velocity: np.ndarray, true_velocity: np.ndarray) -> float:
    """Mean length of the velocity error; where the velocity is NaN the true speed, but at least `MISSING_SPEED`."""
    if not len(velocity):
        return np.nan
    error = np.linalg.norm(velocity - true_velocity, axis=-1)
    charge = np.maximum(np.linalg.norm(true_velocity, axis=-1), MISSING_SPEED)
    return float(np.where(np.isnan(error), charge, error).mean())


def fitted_velocity(x: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Least-squares velocity (N,) of positions (n, N) at (n,) times; NaN for a ball seen fewer than twice."""
    fitted = np.full(x.shape[1], np.nan)
    for ball, values in enumerate(x.T):
        seen = ~np.isnan(values)
        if seen.sum() >= 2:
            fitted[ball] = np.polyfit(times_s[seen], values[seen], 1)[0]
    return fitted


def acceleration_error(xy: np.ndarray, truth: np.ndarray, times_s: np.ndarray) -> float:
    """Length of the difference of two paths' accelerations, from a quadratic fit to the difference of positions."""
    seen = ~np.isnan(xy[:, 0])
    if seen.sum() < 3:
        return np.nan
    difference = np.polyfit(times_s[seen] - times_s[seen].mean(), xy[seen] - truth[seen], 2)[0]
    return float(np.linalg.norm(2 * difference))


def mean(values: np.ndarray, *, skip_missing: bool = False) -> np.ndarray:
    """Mean over the first axis; NaN for none."""
    if skip_missing:
        values = values[~np.isnan(values).any(axis=tuple(range(1, values.ndim)))]
    return values.mean(axis=0) if len(values) else np.full(values.shape[1:], np.nan)


def last_ema(values: np.ndarray) -> np.ndarray:
    """Last value of pandas' ewm(span=n, adjust=False).mean() of (n, k) values.

    A gap lets the weight of the past decay, and is not observed.
    """
    keep = 1 - 2 / (len(values) + 1)
    average, weight = values[0], np.ones(values.shape[1])
    for value in values[1:]:
        weight = weight * keep
        blended = (weight * average + (1 - keep) * value) / (weight + 1 - keep)
        seen, started = ~np.isnan(value), ~np.isnan(average)
        average = np.where(seen, np.where(started, blended, value), average)
        weight = np.where(seen | ~started, 1.0, weight)
    return average
