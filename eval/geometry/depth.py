"""Known depth and pose: warp one view into another, find what is occluded, and measure the flow that remains.

If a video shows one rigid world, its frame a, warped by true depth and pose to the viewpoint of frame b, equals frame b
wherever both see the same surface. What is left to move is measured by dense optical flow (DIS, Kroeger et al. 2016),
which sees a shift of a tenth of a pixel that colour differences hide in noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from eval.errors import MeasureError
from eval.geometry.lighting import Ball
from eval.geometry.pose import check_intrinsics, check_poses, invert, project, relative_pose, unproject

# Side of the images on which residual flow is measured; small frames are enlarged to it, large ones reduced.
FLOW_SIDE = 256
OCCLUSION_TOLERANCE = 0.03
# Standard error of flow in units of noise / gradient.
FLOW_ERROR = 0.2
# Median of the absolute value of a standard normal variable.
_MAD_OF_NORMAL = 0.6745


@dataclass(frozen=True, kw_only=True)
class View:
    """One frame with its geometry.

    Attributes:
        frame: uint8 (H, W, 3).
        depth_m: (H, W) along the optical axis; zero, negative or not finite where unknown.
        world_from_camera: (4, 4).
        segmentation: (H, W) integers, 0 background, k+1 the object in slot k; or None for a static world.
        world_from_object: (N, 4, 4) by slot, or None; without it segmented objects are left out.
        movers: Spheres around moving objects, whose shadows may change the picture.
    """

    frame: np.ndarray
    depth_m: np.ndarray
    world_from_camera: np.ndarray
    segmentation: np.ndarray | None = None
    world_from_object: np.ndarray | None = None
    movers: Sequence[Ball] = ()


@dataclass(frozen=True, kw_only=True)
class Correspondence:
    """Where the surface seen at each pixel of a target view lies in a source view.

    Attributes:
        pixels: float32 (H, W, 2) in the source, x then y, centres at +0.5; NaN where undefined.
        visible: (H, W) bool: the source sees the same surface point.
        magnification: (H, W) how much larger the target shows it than the source, by distance; NaN where undefined.
    """

    pixels: np.ndarray
    visible: np.ndarray
    magnification: np.ndarray


def correspond(target: View, source: View, K: np.ndarray, *, tolerance: float = OCCLUSION_TOLERANCE) -> Correspondence:
    """Follows every pixel of `target` into `source` by depth, camera motion and object motion.

    A pixel is visible where it lands inside the source image and its depth there agrees with the source's depth map
    within `tolerance` (relative). Inverse depth is interpolated, which is exact on planes; across an edge the
    interpolated value agrees with neither side, so edges count as occluded.

    Args:
        target: The view whose pixels are followed.
        source: The view they are looked up in, of the same size.
        K: (3, 3), pixels.
        tolerance: Relative depth disagreement that still counts as the same surface.

    Raises:
        MeasureError: If the depth maps have other shapes than the frames, or no valid pixel; if the views differ in
            size; if a pose is no rigid transform, `K` no intrinsics, or the tolerance not above 0.
    """
    _check_views(target, source, tolerance)
    K = check_intrinsics(K)
    height, width = target.depth_m.shape
    known = _valid(target.depth_m)
    points = unproject(np.where(known, target.depth_m, 1.0), K)
    moved = relative_pose(target.world_from_camera, source.world_from_camera)
    points_in_source = moved[:3, :3] @ points + moved[:3, 3:]
    known = known.ravel() & _follow_objects(points, points_in_source, target, source)
    pixels, depth_m = project(points_in_source, K)
    known &= np.isfinite(pixels).all(axis=1)
    pixels = pixels.astype(np.float32).reshape(height, width, 2)
    inverse_depth = np.where(_valid(source.depth_m), 1.0 / np.where(_valid(source.depth_m), source.depth_m, 1.0), 0.0)
    seen = sample(inverse_depth.astype(np.float32), pixels).ravel()
    # Samples at the image border would mix with the replicated border: half a pixel inside is where all four exist.
    x, y = pixels[..., 0].ravel(), pixels[..., 1].ravel()
    known &= (x >= 0.5) & (x <= width - 0.5) & (y >= 0.5) & (y <= height - 0.5)
    known &= np.abs(seen * np.where(known, depth_m, 1.0) - 1.0) <= tolerance
    visible = known.reshape(height, width)
    distance = depth_m.reshape(height, width)
    magnification = np.divide(distance, target.depth_m, out=np.full(visible.shape, np.nan), where=visible)
    return Correspondence(pixels=pixels, visible=visible, magnification=magnification)


def sample(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Bilinear samples of `image` (H, W[, C]) at `pixels` (H', W', 2) with centres at +0.5; borders replicate."""
    at = np.nan_to_num(pixels.astype(np.float32), nan=0.5, posinf=0.5, neginf=0.5) - np.float32(0.5)
    # remap keeps coordinates in 16 bits; anything far outside is clipped to just outside, with the same result.
    height, width = image.shape[:2]
    at = np.clip(at, -2.0, np.array([width + 1.0, height + 1.0], np.float32))
    return cv2.remap(image, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[arg-type]


def warp(
    target: View, source: View, K: np.ndarray, *, tolerance: float = OCCLUSION_TOLERANCE
) -> tuple[np.ndarray, np.ndarray]:
    """The source frame as seen from the target's viewpoint.

    Returns:
        uint8 (H, W, 3), zero where not visible; and visible (H, W) bool. See `correspond`.
    """
    found = correspond(target, source, K, tolerance=tolerance)
    return sample(source.frame, found.pixels) * found.visible[..., None], found.visible


def dense_flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Optical flow (DIS) from frame a to frame b: a(x) = b(x + flow).

    Both are resized so that their shorter side is `FLOW_SIDE`; the unit is a pixel of that size.

    Args:
        a: uint8 (H, W, 3).
        b: uint8 (H, W, 3).

    Returns:
        float32 (H, W, 2), x then y.

    Raises:
        MeasureError: If the frames differ in size, or are something else.
    """
    if a.shape != b.shape or a.ndim != 3 or a.shape[-1] != 3 or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise MeasureError(
            expected="two frames uint8 (H, W, 3) of one size",
            got=f"{a.dtype} {a.shape} and {b.dtype} {b.shape}",
            remedy="eval.clip.as_frames converts grey and float video.",
        )
    height, width = a.shape[:2]
    scale = FLOW_SIDE / min(height, width)
    size = (round(width * scale), round(height * scale))
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    # Grey first: the same result, and a third of the resizing.
    before, after = (cv2.resize(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), size, interpolation=method) for i in (a, b))
    flow = _dis().calc(before, after, np.zeros((size[1], size[0], 2), np.float32))
    return cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA)


def unexplained_levels(a: np.ndarray, b: np.ndarray, flow: np.ndarray, tested: np.ndarray) -> float:
    """Standard deviation, in grey levels, of a - b once the flow is undone: noise, codec, interpolation.

    By the median absolute deviation over the tested pixels, so that a part that does not match at all weighs little.

    Args:
        a: uint8 (H, W, 3).
        b: uint8 (H, W, 3).
        flow: (H, W, 2) from `dense_flow`.
        tested: (H, W) bool.
    """
    height, width = tested.shape
    at = still_pixels(height, width) + flow * (min(height, width) / FLOW_SIDE)
    grey_a, grey_b = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY).astype(np.float32) for i in (a, b))
    left = np.abs(sample(grey_b, at) - grey_a)[tested]
    return float(np.median(left)) / _MAD_OF_NORMAL if len(left) else 0.0


def flow_margin_px(levels: float, energy: np.ndarray) -> np.ndarray:
    """How far flow may be off by noise: two standard errors, in pixels at a shorter side of 256; (H, W).

    The error of matching is the noise over the gradient, less by the square root of the independent samples in the
    window. That factor, `FLOW_ERROR`, was measured on textured planes with added noise.

    Args:
        levels: Standard deviation of the noise, see `unexplained_levels`.
        energy: (H, W) gradients, see `eval.geometry.guards.texture_energy`.
    """
    return 2.0 * FLOW_ERROR * levels / np.maximum(energy, 1e-6)


def still_pixels(height: int, width: int) -> np.ndarray:
    """Pixel centres (H, W, 2), float32."""
    return np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1).astype(np.float32)


@cache
def _dis() -> cv2.DISOpticalFlow:
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)


def _follow_objects(points: np.ndarray, points_in_source: np.ndarray, target: View, source: View) -> np.ndarray:
    """Moves object points in place as their objects move; returns (H * W,) bool, False where motion is unknown."""
    known = np.ones(points.shape[1], dtype=bool)
    if target.segmentation is None:
        return known
    slots = target.segmentation.ravel()
    if target.world_from_object is None or source.world_from_object is None:
        return slots == 0
    for slot in np.unique(slots[slots > 0]):
        here = slots == slot
        if slot > len(target.world_from_object):
            known[here] = False
            continue
        then = target.world_from_object[slot - 1]
        now = source.world_from_object[slot - 1]
        if not (np.isfinite(then).all() and np.isfinite(now).all()):
            known[here] = False
        elif not np.array_equal(then, now):
            source_from_target = invert(source.world_from_camera) @ now @ invert(then) @ target.world_from_camera
            points_in_source[:, here] = source_from_target[:3, :3] @ points[:, here] + source_from_target[:3, 3:]
    return known


def _valid(depth_m: np.ndarray) -> np.ndarray:
    return np.isfinite(depth_m) & (depth_m > 0)


def _check_views(target: View, source: View, tolerance: float) -> None:
    _check_depth(target)
    _check_depth(source)
    if target.depth_m.shape != source.depth_m.shape:
        raise MeasureError(
            expected="two views of one size",
            got=f"{target.depth_m.shape} and {source.depth_m.shape}",
            remedy="Resize one, its depth and K with it.",
        )
    check_poses(np.stack([target.world_from_camera, source.world_from_camera]))
    if not tolerance > 0:
        raise MeasureError(expected="a tolerance above 0", got=tolerance, remedy="It is relative; 0.03 is usual.")


def _check_depth(view: View) -> None:
    if view.depth_m.shape != view.frame.shape[:2]:
        raise MeasureError(
            expected=f"depth of shape {view.frame.shape[:2]}, as the frame",
            got=str(view.depth_m.shape),
            remedy="Render depth at the frame's size.",
        )
    if not _valid(view.depth_m).any():
        raise MeasureError(
            expected="a depth map with finite positive metres", got="none", remedy="Check units and the invalid value."
        )
