"""Colours held against neighbouring frames: does a neighbour show what it must, under any depth found nearby?

A point of a static world that one frame shows has its colour in every other frame too, unless it lies outside that
picture or behind something there. Space carving builds a shape from that rule (Kutulakos and Seitz 2000, *A theory of
shape by space carving*); here the rule judges the video. Depth comes from a plane sweep (Collins 1996). Colours are
compared with what the neighbour shows within half a pixel, which forgives sampling (Birchfield and Tomasi 1998, *A
pixel dissimilarity measure that is insensitive to image sampling*), and what differs must be as wide as the window.

What is ours: the pixel may have any of the depths found around it, for it may lie beside an edge; and only a surface
that is itself *confirmed* hides it, one whose colour other frames show at the depth found for it. Without that, the gap
that a vanished thing leaves, which no other frame shows and which gets any depth, would excuse its own cause.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from eval.geometry import guards
from eval.geometry.depth import sample
from eval.geometry.lighting import Ball, may_be_shaded
from eval.geometry.planesweep import Neighbour, best_inverse_depth, hypotheses, sweep_cost
from eval.geometry.pose import pixel_grid, relative_pose

# Grey levels, beyond three standard deviations of the video's noise, by which one surface may look different: shading,
# rounding, what is left of sampling.
LEVELS = 16.0
_SIGMAS = 3.0
# What two samplings of one texture disagree on lies above a Gaussian of this many pixels.
_SOFT_PX = 0.7
# What that leaves of white noise: 1 / sqrt(4 pi s^2).
_NOISE_LEFT = 0.4
# Half the width of the window whose nearest and farthest depths a pixel may have as well.
_BESIDE = 2
# How much nearer a confirmed surface must be to hide a pixel, relatively.
_IN_FRONT = 0.1
# Parallax, in pixels, below which a surface hides nothing and no depth can be told.
_PARALLAX_PX = 1.0
# Frames that must show a surface's colour, if so many look there, before it may hide another.
_CONFIRMED_BY = 2
# At the picture's border the windows of the sweep are cut off, and its depth is a guess: half of their width.
_BORDER_PX = 2
_SQUARE = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The colours of one frame, held against one of its neighbours.

    Attributes:
        target: Frame index.
        source: Frame index of the neighbour.
        compared: (H, W) bool: inside the neighbour, hidden by nothing there.
        contradicted: (H, W) bool: compared, and of a colour that the neighbour shows at none of the depths, as are all
            of a window of 3 x 3 around or beside it.
        textured: (H, W) bool: the target has the texture by which a depth can be found.
    """

    target: int
    source: int
    compared: np.ndarray
    contradicted: np.ndarray
    textured: np.ndarray

    @property
    def tested(self) -> np.ndarray:
        """(H, W) bool: a plain surface has any depth, so its agreement says nothing; its disagreement does."""
        return self.compared & (self.textured | self.contradicted)


@dataclass(frozen=True, kw_only=True)
class _Colours:
    """A frame smoothed, and the least and most that it shows within half a pixel; float32 (H, W, 3) each."""

    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A frame with the depth that was found for it, in 1/m, and whether other frames confirm it; (H, W) each.

    `found` is false at the far end of the range, unless the camera moves too little there to tell any depth: a frozen
    picture would be a world too far to move.
    `landings`, by neighbour: pixels (3, H, W, 2) and depths (3, H, W) there, of a pixel's own depth, and of the
    farthest and the nearest around it. `excess` (H, W), by neighbour: grey levels by which its colour is off at the
    best of them.
    """

    inverse_depth: np.ndarray
    confirmed: np.ndarray
    found: np.ndarray
    landings: dict[int, tuple[np.ndarray, np.ndarray]]
    excess: dict[int, np.ndarray]


def compare_colours(
    frames: np.ndarray,
    world_from_camera: np.ndarray,
    K: np.ndarray,
    *,
    offsets: Sequence[int] = (1, 2),
    near_m: float = 0.25,
    far_m: float = 12.0,
    planes: int = 48,
    left_out: np.ndarray | None = None,
    light: Sequence[Sequence[Ball]] | None = None,
) -> Iterator[Comparison]:
    """Holds every frame against its neighbours on both sides; memory does not grow with the clip.

    Args:
        frames: uint8 (T, H, W, 3).
        world_from_camera: (T, 4, 4).
        K: (3, 3), pixels.
        offsets: Distances of the neighbours in frames.
        near_m: Nearest depth that the scene may have.
        far_m: Farthest.
        planes: Number of hypotheses between them.
        left_out: (T, H, W) bool, pixels of moving objects, or None.
        light: The moving objects of each frame, which change the light around them, or None.

    Yields:
        One `Comparison` a pair, in order of the target.

    Raises:
        MeasureError: On an empty depth range.
    """
    inverse_depths = hypotheses(near_m, far_m, planes)
    limit = LEVELS + _SIGMAS * _NOISE_LEFT * guards.noise_levels(frames)
    needed = guards.least_texture(frames)
    reach = max(offsets)
    colours: dict[int, _Colours] = {}
    placed: dict[int, _Placed] = {}

    def place(target: int) -> None:
        near = [i for i in range(target - reach, target + reach + 1) if abs(i - target) in offsets]
        near = [i for i in near if 0 <= i < len(frames)]
        for i in (target, *near):
            if i not in colours:
                colours[i] = _colours(frames[i])
        poses = {i: relative_pose(world_from_camera[target], world_from_camera[i]) for i in near}
        neighbours = [Neighbour(frame=frames[i], source_from_target=poses[i]) for i in near]
        found = best_inverse_depth(sweep_cost(frames[target], neighbours, K, inverse_depths), inverse_depths)
        placed[target] = _place(found, colours, target, poses, K, limit, inverse_depths)

    for target in range(len(frames)):
        for ahead in range(target, min(target + reach, len(frames) - 1) + 1):
            if ahead not in placed:
                place(ahead)
        own = placed[target]
        textured = guards.texture_energy(frames[target]) > needed
        for source, (pixels, depth_m) in own.landings.items():
            compared = own.found & _inside(pixels, depth_m).all(axis=0) & _off_border(textured.shape)
            moved = relative_pose(world_from_camera[target], world_from_camera[source])
            compared &= ~_hidden(placed[source], pixels, depth_m, moved, K)
            if left_out is not None:
                # A mover also hides what is behind it in the neighbour, at a depth that the sweep cannot know.
                there = left_out[source].astype(np.float32)
                compared &= ~left_out[target] & ~np.any([sample(there, at) > 0 for at in pixels], axis=0)
            if light is not None:
                at = _points(own.inverse_depth, world_from_camera[target], K)
                balls = [*light[target], *light[source]]
                compared &= ~may_be_shaded(at, np.zeros(at.shape[1], int), balls).reshape(compared.shape)
            yield Comparison(
                target=target,
                source=source,
                compared=compared,
                contradicted=_whole(compared & (own.excess[source] > limit)),
                textured=textured,
            )
        for kept in (placed, colours):
            kept.pop(target - reach, None)


def _colours(frame: np.ndarray) -> _Colours:
    soft = cv2.GaussianBlur(frame, (0, 0), _SOFT_PX).astype(np.float32)
    # Halfway to the least and the most of the eight neighbours: what linear interpolation gives half a pixel away.
    low, high = (0.5 * (soft + extreme(soft, _SQUARE)) for extreme in (cv2.erode, cv2.dilate))
    return _Colours(middle=soft, low=low, high=high)


def _place(
    inverse_depth: np.ndarray,
    colours: dict[int, _Colours],
    target: int,
    poses: dict[int, np.ndarray],
    K: np.ndarray,
    limit: float,
    inverse_depths: np.ndarray,
) -> _Placed:
    """Looks up a frame's pixels in its neighbours, at the depth found for them and at those beside."""
    window = np.ones((2 * _BESIDE + 1, 2 * _BESIDE + 1), np.uint8)
    depths = np.stack([inverse_depth, cv2.erode(inverse_depth, window), cv2.dilate(inverse_depth, window)])
    shown = np.zeros(inverse_depth.shape, int)
    looked = np.zeros(inverse_depth.shape, int)
    moves = np.zeros(inverse_depth.shape, bool)
    ends = np.stack([np.full(inverse_depth.shape, end) for end in (inverse_depths[0], inverse_depths[-1])])
    landings, excess = {}, {}
    for source, pose in poses.items():
        pixels, depth_m = landings[source] = _landing(depths, pose, K)
        inside = _inside(pixels, depth_m)
        wanted = colours[target].middle * _gain(colours[target], colours[source], pixels[0], inside[0])
        off = [_excess(wanted, colours[source], at) for at in pixels]
        excess[source] = _blur(np.minimum.reduce(off))
        shown += inside[0] & (_blur(off[0]) <= limit)
        looked += inside[0]
        far, near = _landing(ends, pose, K)[0]
        # NaN: so near that it lies behind the neighbour.
        moves |= ~(np.linalg.norm(near - far, axis=-1) <= _PARALLAX_PX)
    confirmed = shown >= np.clip(looked, 1, _CONFIRMED_BY)
    at_end = inverse_depth < 0.5 * (inverse_depths[0] + inverse_depths[1])
    return _Placed(
        inverse_depth=inverse_depth,
        confirmed=confirmed,
        found=~(at_end & moves),
        landings=landings,
        excess=excess,
    )


def _landing(inverse_depths: np.ndarray, pose: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels of inverse depths (N, H, W) land: pixels float32 (N, H, W, 2), and depths (N, H, W), <= 0 behind."""
    height, width = inverse_depths.shape[1:]
    # A point at depth d lands at R d ray + t; all of it over d leaves the pixel and makes the sum one of inverse depth.
    far = (K @ pose[:3, :3] @ np.linalg.inv(K) @ pixel_grid(height, width)).reshape(3, 1, height, width)
    at = far + (K @ pose[:3, 3]).reshape(3, 1, 1, 1) * inverse_depths
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = np.moveaxis(at[:2] / at[2], 0, -1)
    pixels[~(at[2] > 0)] = np.nan
    return pixels.astype(np.float32), at[2] / inverse_depths


def _inside(pixels: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
    """Whether a landing lies in the picture, where all four pixels around it exist; NaN does not."""
    height, width = depth_m.shape[-2:]
    x, y = pixels[..., 0], pixels[..., 1]
    return (depth_m > 0) & (x >= 0.5) & (x <= width - 0.5) & (y >= 0.5) & (y <= height - 0.5)


def _off_border(size: tuple[int, ...]) -> np.ndarray:
    kept = np.zeros(size, bool)
    kept[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX] = True
    return kept


def _gain(target: _Colours, source: _Colours, pixels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Median ratio (3,) of the neighbour's colours to the target's: exposure is no contradiction."""
    if not inside.any():
        return np.ones(3, np.float32)
    ratio = sample(source.middle, pixels) / np.maximum(target.middle, 8.0)
    return np.median(ratio[inside], axis=0).astype(np.float32)


def _excess(wanted: np.ndarray, source: _Colours, pixels: np.ndarray) -> np.ndarray:
    """By how many grey levels a colour (H, W, 3) lies outside of what the source shows around (H, W, 2): (H, W)."""
    low, high = sample(source.low, pixels), sample(source.high, pixels)
    return np.maximum(np.maximum(wanted - high, low - wanted), 0.0).max(axis=-1)


def _blur(levels: np.ndarray) -> np.ndarray:
    return cv2.blur(levels, _SQUARE.shape)


def _whole(pixels: np.ndarray) -> np.ndarray:
    """Those of some pixels (H, W) that fill a window among them.

    Colours are averaged over that window; what is narrower is an outline that two samplings put in different places.
    """
    return cv2.morphologyEx(pixels.astype(np.uint8), cv2.MORPH_OPEN, _SQUARE) > 0


def _hidden(
    source: _Placed, pixels: np.ndarray, depth_m: np.ndarray, source_from_target: np.ndarray, K: np.ndarray
) -> np.ndarray:
    """Where a confirmed surface of the neighbour lies in front of any of a pixel's depths: (H, W) bool.

    A surface hides a strip of what is behind as wide as the parallax between the two; below a pixel that is nothing.
    """
    surface = cv2.dilate(np.where(source.confirmed, source.inverse_depth, 0.0).astype(np.float32), _SQUARE)
    moved = K @ source_from_target[:3, 3]
    hidden = np.zeros(surface.shape, bool)
    for at, deep in zip(pixels, depth_m, strict=True):
        front = sample(surface, at)
        per_inverse_m = np.linalg.norm(moved[:2] - at * moved[2], axis=-1)
        hidden |= (front * deep > 1.0 + _IN_FRONT) & ((front - 1.0 / deep) * per_inverse_m > _PARALLAX_PX)
    return hidden


def _points(inverse_depth: np.ndarray, pose: np.ndarray, K: np.ndarray) -> np.ndarray:
    """World points (3, H * W) of a depth map."""
    rays = np.linalg.inv(K) @ pixel_grid(*inverse_depth.shape)
    return pose[:3, :3] @ (rays / inverse_depth.ravel()) + pose[:3, 3:]
