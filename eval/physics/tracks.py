"""Tracks: where every object is, how big, how turned, of which colour, how near to others, and how surely.

Objects come from `truth["segmentation"]` where the clip has it, else from pixels (`segmentation`, `assignment`) or from
a tracker that the caller plugs in. Either way the same sub-pixel measurement follows: on an object's rim, the share of
a pixel that it covers is read from the mixture of its colour with what lies beside it.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np

from eval.clip import Clip
from eval.errors import MeasureError
from eval.physics import moments
from eval.physics.assignment import identify
from eval.physics.segmentation import even_exposure, segment
from eval.physics.surroundings import Surroundings, survey
from eval.score import Unmeasurable

# What the rendering and the mixture model leave at best (0.008 px against the truth of Bounce, and half as much again):
# third differences cannot see errors that vary slowly.
NOISE_FLOOR_PX = 0.012
# Error of an edge read from the outermost pixels.
BORDER_ERROR_PX = 0.3
APART_PX = 1.5
# Error of the centroid of what is not apart, against the truth of Bounce.
TOUCHING_ERROR_PX = 0.07
MAX_TRUTH_OBJECTS = 64
MAX_SIDE_PX = 256


class Tracker(Protocol):
    """A learned or other tracker: `tracker(frames) -> labels`.

    Takes uint8 (T, H, W, 3), gives int (T, H, W): 0 for none, k + 1 for object k, the same k in every frame. Nothing is
    ever downloaded here: the caller makes the tracker and its weights.
    """

    def __call__(self, frames: np.ndarray, /) -> np.ndarray:
        """Labels (T, H, W) of the frames' objects."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """N objects over T frames of H x W pixels; x right, y down, pixel centres at +0.5.

    Attributes:
        labels: (T, H, W) int16; 0 none, k + 1 object k.
        seen: (T, N) bool; any pixel of the object is visible.
        whole: (T, N) bool; all of it is visible, so that its centroid and area mean what they say.
        centroid_px: (T, N, 2), NaN where not seen.
        extent_px: (T, N, 4) left, right, top and bottom edge, NaN where not seen.
        area_px: (T, N) covered area, NaN where not seen.
        spread_px2: (T, N, 2, 2) second central moments of the covered area per unit area (moment of inertia over mass
            is their trace), NaN where not seen.
        turn_rad: (T, N) orientation, clockwise as seen, unwrapped in time; NaN where not seen or round.
        fold: (N,) rotational symmetry with which `turn_rad` was read (1 to 4); 0 for a round object.
        outline: (T, N, 4) how far the shape departs from round with 1 to 4 folds, whatever its orientation.
        colour: (T, N, 3) median RGB of its inner pixels at even exposure, NaN where too few are seen.
        noise_px: (N,) standard deviation of a whole object's centroid per axis, measured from third differences; see
            `error_px` for each point.
        around: Distances to everything that the object may touch.
        source: "segmentation", "colour", "motion" or "tracker".
        scale: How many pixels of the clip one pixel here stands for; clips larger than `MAX_SIDE_PX` are shrunk.
    """

    labels: np.ndarray
    seen: np.ndarray
    whole: np.ndarray
    centroid_px: np.ndarray
    extent_px: np.ndarray
    area_px: np.ndarray
    spread_px2: np.ndarray
    turn_rad: np.ndarray
    fold: np.ndarray
    outline: np.ndarray
    colour: np.ndarray
    noise_px: np.ndarray
    around: Surroundings
    source: str
    scale: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.labels.shape[1], self.labels.shape[2]

    @property
    def border_px(self) -> np.ndarray:
        """(T, N, 4) distance from the left, right, top and bottom of the frame."""
        return _border(self.extent_px, self.size)

    @property
    def apart(self) -> np.ndarray:
        """(T, N) bool; near no other object and no scenery, so that its rim mixes with the background alone."""
        return self.around.gap_px > APART_PX

    @property
    def error_px(self) -> np.ndarray:
        """(T, N) standard error of each centroid per axis; NaN where the object is not whole.

        The noise of the object, and more where it touches another: there its rim mixes three colours.
        """
        error = np.where(self.apart, self.noise_px, np.hypot(self.noise_px, TOUCHING_ERROR_PX))
        return np.where(self.whole, error, np.nan)

    def __len__(self) -> int:
        return self.seen.shape[1]


def track(clip: Clip, tracker: Tracker | None = None) -> Tracks:
    """Tracks the objects of a clip. Computed once per clip content; `tracker` replaces segmentation from pixels.

    Raises:
        Unmeasurable: If no objects can be cut out (no motion, moving camera, too many regions, under three frames).
        MeasureError: If `tracker` returns something other than labels of the frames' shape.
    """
    if tracker is not None:
        labels = np.asarray(tracker(clip.frames))
        if labels.shape != clip.frames.shape[:3] or labels.dtype.kind not in "iu":
            raise MeasureError(
                expected=f"integer labels {clip.frames.shape[:3]} from the tracker",
                got=f"{labels.dtype} {labels.shape}",
                remedy="Give 0 for none and k + 1 for object k in every frame.",
            )
        return measure(clip.frames, labels, "tracker")
    found = _cached(ClipKey(clip))
    if isinstance(found, Unmeasurable):
        raise Unmeasurable(found.status, found.reason)
    return found


def planar_track(clip: Clip) -> Tracks:
    """`track`, for laws that hold in the plane of the picture.

    Raises:
        Unmeasurable: Also if the clip is known to be a perspective view, in which motion and size in the picture follow
            other rules, and if objects were cut out by motion alone.
    """
    if any(clip.truth.get(key) is not None for key in ("depth_m", "world_from_camera")):
        raise Unmeasurable("inapplicable", "a perspective view; the laws are tested in the plane of the picture")
    found = track(clip)
    if found.source == "motion":
        raise Unmeasurable(
            "insufficient",
            "objects before a textured scene are known by their motion alone: what they touch, and whether they are "
            "rigid, cannot be told",
        )
    return found


def measure(frames: np.ndarray, labels: np.ndarray, source: str, scale: int = 1) -> Tracks:
    """Measures labelled objects.

    Args:
        frames: uint8 (T, H, W, 3).
        labels: int (T, H, W); 0 none, k + 1 object k.
        source: Where the labels come from.
        scale: How many pixels of the clip one pixel of `frames` stands for.

    Raises:
        Unmeasurable: If there are no labels, too many, or under three frames.
    """
    if len(frames) < 3:
        raise Unmeasurable("insufficient", f"{len(frames)} frames; motion needs at least three")
    number = int(labels.max(initial=0))
    if number <= 0:
        raise Unmeasurable("inapplicable", "no object is visible")
    if number > MAX_TRUTH_OBJECTS:
        raise Unmeasurable("insufficient", f"{number} objects, more than {MAX_TRUTH_OBJECTS}")
    labels = labels.astype(np.int16)
    steady = even_exposure(frames)
    around = survey(steady, labels, number)
    read = moments.read(steady, labels, number, around.scene)
    whole = read.seen & _is_whole(read, around, _border(read.extent_px, labels.shape[1:]))
    return Tracks(
        labels=labels,
        seen=read.seen,
        whole=whole,
        centroid_px=read.centroid_px,
        extent_px=read.extent_px,
        area_px=read.area_px,
        spread_px2=read.spread_px2,
        turn_rad=read.turn_rad,
        fold=read.fold,
        outline=read.outline,
        colour=read.colour,
        noise_px=_noise(read.centroid_px, whole),
        around=around,
        source=source,
        scale=scale,
    )


class ClipKey:
    """A clip as a dictionary key: equal content, equal key."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def __hash__(self) -> int:
        return hash(self.clip.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClipKey) and self.clip.digest == other.clip.digest


@lru_cache(maxsize=4)
def _cached(key: ClipKey) -> "Tracks | Unmeasurable":
    try:
        return _track(key.clip)
    except Unmeasurable as refusal:
        return refusal


def _track(clip: Clip) -> Tracks:
    if len(clip) < 3:
        raise Unmeasurable("insufficient", f"{len(clip)} frames; motion needs at least three")
    scale = max(1, math.ceil(max(clip.frames.shape[1:3]) / MAX_SIDE_PX))
    frames = clip.frames if scale == 1 else _shrink(clip.frames, scale)
    given = clip.truth.get("segmentation")
    if given is not None:
        half = scale // 2
        labels = np.maximum(given, 0)[:, half::scale, half::scale][:, : frames.shape[1], : frames.shape[2]]
        return measure(frames, labels, "segmentation", scale)
    found = segment(frames)
    return measure(frames, identify(found.regions, even_exposure(frames)), found.source, scale)


def _shrink(frames: np.ndarray, scale: int) -> np.ndarray:
    """Mean over blocks of `scale` x `scale` pixels; what does not fill a block is cut off."""
    _, height, width, _ = frames.shape
    size = (width // scale, height // scale)
    cut = frames[:, : size[1] * scale, : size[0] * scale]
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in cut])


def _border(extent: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    height, width = size
    left, right, top, bottom = np.moveaxis(extent, -1, 0)
    return np.stack([left, width - right, top, height - bottom], axis=-1)


def _is_whole(read: moments.Moments, around: Surroundings, border: np.ndarray) -> np.ndarray:
    """(T, N): fully in view, and either apart from everything or as large as when apart."""
    inside = np.where(read.seen, border.min(axis=-1), 0.0) > BORDER_ERROR_PX
    apart = around.gap_px > APART_PX
    whole = np.zeros(read.seen.shape, bool)
    for k in range(read.seen.shape[1]):
        reference = read.seen[:, k] & inside[:, k]
        if (reference & apart[:, k]).sum() >= 3:
            reference &= apart[:, k]
        if not reference.any():
            continue
        # The upper quartile: what hides a part of the object only makes it smaller.
        usual = np.percentile(read.area_px[reference, k], 75)
        # 4 % of the area is the error of the mixture where three colours meet on the rim.
        complete = np.abs(read.area_px[:, k] / usual - 1.0) < 0.04
        whole[:, k] = inside[:, k] & (apart[:, k] | complete)
    return whole


def _noise(centroid: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """(N,) robust standard deviation of the centroids from third differences, whose variance is 20 times theirs.

    A third difference is blind to constant acceleration; contacts disturb few of them, and a median ignores few.
    """
    third = np.diff(centroid, n=3, axis=0) if len(centroid) > 3 else np.empty((0, *centroid.shape[1:]))
    usable = whole[3:] & whole[2:-1] & whole[1:-2] & whole[:-3] if len(centroid) > 3 else np.empty((0, whole.shape[1]))
    noise = np.full(centroid.shape[1], np.nan)
    samples = [np.abs(third[usable[:, k].astype(bool), k]).ravel() for k in range(centroid.shape[1])]
    everything = np.concatenate(samples) if samples else np.empty(0)
    for k, own in enumerate(samples):
        values = own if len(own) >= 16 else everything
        if len(values) >= 4:
            noise[k] = np.median(values) / 0.6745 / np.sqrt(20.0)
    noise = np.where(np.isfinite(noise), noise, 0.1)
    return np.hypot(noise, NOISE_FLOOR_PX)


def clear_cache() -> None:
    """Forgets the tracks of clips seen before."""
    _cached.cache_clear()
