"""Evaluator of objects: does their texture stay on them, from one frame to the next and over the whole clip?

Optical flow does not see the texture of a small object slide: its patches lie across the object's outline, and that
stands still. So no flow is looked for here. Two frames, warped onto each other by depth, pose and the object's own
motion, show the same points of its surface; a part of it looks different by some grey levels, and the steepest gradient
in it tells by how many pixels it must have slid *at least* to look so different. Frames far apart make a slow slide
large.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from eval.clip import Clip
from eval.geometry import guards
from eval.geometry.depth import FLOW_SIDE, Correspondence, View, correspond
from eval.geometry.known_depth import (
    MAX_MAGNIFICATION,
    commanded_motion_px,
    relit,
    require_motion,
    views,
)
from eval.geometry.pose import unproject
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error

# Pictures are smoothed by a Gaussian of this many pixels: what two samplings of one surface disagree on lies above it.
SOFT_PX = 1.0
# What a Gaussian of that width leaves of white noise, over what it takes away: sqrt(a / (1 - 2b + a)), where
# a = 1 / (4 pi s^2) and b = 1 / (2 pi s^2) are the sum of its squares and its centre.
_NOISE_LEFT = 0.32
_WINDOW = 9
# Fewer pixels than these, or fewer gradients among them, make no window.
_LEAST_PIXELS, _LEAST_GRADIENTS = 12, 4
# Grey levels per pixel, at a shorter side of 256, that a tested part shows after smoothing.
_TEXTURE_LEVELS_PER_PX = 0.7
# Surfaces whose normal turns by more within a pixel have an edge there, where colours mix.
_CREASE_RAD = np.radians(30.0)
# A frame is named as offending from this share of one object's tested pixels on, if there are as many of them.
OFFENDING_SHARE, OFFENDING_PIXELS = 0.6, 50
_SQUARE = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Faces:
    """The objects of one view, ready to be compared.

    Attributes:
        view: The view.
        inside: (H, W) bool: pixels of smooth faces of objects, none on an edge.
        extended: float32 (H, W, 3), the frame, with the faces' colours carried over their edges, so that samples
            between pixels do not mix with what lies beyond.
    """

    view: View
    inside: np.ndarray
    extended: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SlideCheck:
    """The objects of one pair of frames.

    Attributes:
        least_px: (H, W) by how many pixels, at a shorter side of 256, texture slid at least; NaN where not tested.
        segmentation: (H, W), of the target view.
        motion_px: Median image motion that depth and camera command, same unit; NaN where nothing is seen by both.
    """

    least_px: np.ndarray
    segmentation: np.ndarray
    motion_px: float

    def counts(self, threshold_px: float, slots: int) -> np.ndarray:
        """(2, slots) pixels of each object: tested ones, and those among them that slid by more than the threshold."""
        masks = np.isfinite(self.least_px), self.least_px > threshold_px
        return np.stack([np.bincount(self.segmentation[m], minlength=slots + 1)[1:] for m in masks])


def faces(view: View, K: np.ndarray) -> Faces:
    """Finds the faces of a view's objects; K (3, 3). The view must have a segmentation."""
    inside = _interior(view) & ~creases(view.depth_m, K)
    mask, frame = inside.astype(np.float32), view.frame.astype(np.float32)
    spread = cv2.blur(frame * mask[..., None], (3, 3)) / np.maximum(cv2.blur(mask, (3, 3)), 1e-6)[..., None]
    rim = (cv2.dilate(inside.astype(np.uint8), _SQUARE) > 0) & ~inside
    return Faces(view=view, inside=inside, extended=np.where(rim[..., None], spread, frame))


def creases(depth_m: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool at which a surface turns by more than `_CREASE_RAD` from one pixel to the next.

    Args:
        depth_m: (H, W); where it is unknown the result means nothing.
        K: (3, 3), pixels.
    """
    height, width = depth_m.shape
    known = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, 1.0)
    points = unproject(known, K).T.reshape(height, width, 3)
    normal = np.cross(np.diff(points, axis=1)[:-1], np.diff(points, axis=0)[:, :-1])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    # Between the squares of four pixels left and right of a column, and above and below a row.
    across = (normal[:, 1:] * normal[:, :-1]).sum(-1) < np.cos(_CREASE_RAD)
    down = (normal[1:] * normal[:-1]).sum(-1) < np.cos(_CREASE_RAD)
    found = np.zeros(depth_m.shape, bool)
    found[:-1, 1:-1] |= across
    found[1:, 1:-1] |= across
    found[1:-1, :-1] |= down
    found[1:-1, 1:] |= down
    return found


def check_slide(target: Faces, source: Faces, K: np.ndarray, *, least_texture: float = 0.0) -> SlideCheck:
    """Warps the objects of `source` to `target` and measures how far their texture slid at least.

    Args:
        target: The view to which is warped.
        source: The view that is warped.
        K: (3, 3), pixels.
        least_texture: Gradient that tested parts need beside `_TEXTURE_LEVELS_PER_PX`, same unit.
    """
    found = correspond(target.view, source.view, K)
    per_px = FLOW_SIDE / min(found.visible.shape)
    least_px = np.full(found.visible.shape, np.nan, np.float32)
    at = np.nan_to_num(found.pixels, nan=0.5, posinf=0.5, neginf=0.5) - np.float32(0.5)
    at = np.clip(at, -2.0, max(found.visible.shape) + 1.0)
    shown = _same_surface(target, source, found, at, K)
    warped = cv2.remap(source.extended, at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[arg-type]
    needed = max(_TEXTURE_LEVELS_PER_PX, least_texture) * per_px
    for box, part in _parts(shown, target.view):
        slid = least_shift(target.extended[box], warped[box], part, needed)
        least_px[box] = np.where(np.isfinite(slid), slid * per_px, least_px[box])
    assert target.view.segmentation is not None
    return SlideCheck(
        least_px=least_px,
        segmentation=target.view.segmentation,
        motion_px=commanded_motion_px(found) if found.visible.any() else np.nan,
    )


def least_shift(a: np.ndarray, b: np.ndarray, mask: np.ndarray, least_texture: float) -> np.ndarray:
    """By how many pixels texture must have slid, at least, for two pictures of a face to differ as they do.

    In a window, b is fitted to a by a gain and an offset, so light that changes evenly costs nothing. What is left,
    less what the pictures' own noise explains, over the steepest gradient of either, is the least shift: no texture
    changes by more than shift times gradient. Noise is what smoothing removes from the difference, taken as white.

    Args:
        a: (H, W, C) float32.
        b: (H, W, C) float32.
        mask: (H, W) bool, the pixels of the face in both.
        least_texture: Root of the mean square gradient, along the steepest direction, that a tested window shows.

    Returns:
        (H, W) float32, NaN where not tested.
    """
    inside = mask.astype(np.float32)
    count = _sums(inside)
    smooth_a, smooth_b = _smooth(a, inside), _smooth(b, inside)
    noise = _noise(a, b, smooth_a, smooth_b, mask)
    a_variance, b_variance, covariance = _moments(smooth_a, smooth_b, inside, count)
    alike = np.maximum(covariance, 0.0) ** 2 / np.maximum(a_variance * b_variance, 1e-9)
    left = (1.0 - np.minimum(alike, 1.0)) * np.maximum(a_variance, b_variance)
    core = cv2.erode(inside, _SQUARE)
    gradients = _sums(core)
    steepest = np.maximum(_steepest(smooth_a, core, gradients), _steepest(smooth_b, core, gradients))
    tested = mask & (count >= _LEAST_PIXELS) & (gradients >= _LEAST_GRADIENTS) & (steepest > least_texture**2)
    slid = np.sqrt(np.maximum(left - noise, 0.0) / np.maximum(steepest, 1e-9))
    return np.where(tested, slid, np.float32(np.nan))


@evaluator(
    "object_flow",
    suite="geometry",
    unit="share",
    better="lower",
    needs=("depth_m", "world_from_camera", "K", "segmentation"),
    claims=("object_popping", "texture_swim_object"),
    version=4,
)
def object_flow(
    clip: Clip, *, threshold_px: float = 1.0, gaps: tuple[int, ...] = (1, 2, 4, 8), max_pairs: int = 200
) -> Measurement:
    """Share of the pixels of objects whose texture slid, or became another, since an earlier frame.

    A pixel's width around each face of an object is left out, where colours mix. An object counts as moving where its
    `world_from_object` says so.

    Args:
        clip: With depth, poses, intrinsics and segmentation.
        threshold_px: Least shift that counts, in pixels at a shorter side of 256. Two samplings of one surface rarely
            disagree by more than a quarter of a pixel, which is this at 64 pixels.
        gaps: Frame distances of the compared pairs; slow slides show in the long ones.
        max_pairs: At most this many pairs, evenly spread.
    """
    guards.require_frames(clip, 2)
    with guards.refusals():
        seen, K = views(clip)
        pairs = [(i, i + gap) for gap in gaps for i in range(len(clip) - gap)]
        pairs = [pairs[i] for i in guards.spread(len(pairs), max_pairs)]
        needed = guards.least_texture(clip.frames)
        needed = needed if needed > guards.TEXTURE_LEVELS_PER_PX else 0.0
        ready = [faces(view, K) for view in seen]
        checks = {(a, b): check_slide(ready[b], ready[a], K, least_texture=needed) for a, b in pairs}
    require_motion([check.motion_px for check in checks.values() if np.isfinite(check.motion_px)])
    return _pooled(checks, len(clip), threshold_px)


def _pooled(checks: dict[tuple[int, int], SlideCheck], num_frames: int, threshold_px: float) -> Measurement:
    """Over pixels, not pairs: one in which an object shows three pixels must not weigh as much as one with hundreds."""
    slots = max(int(check.segmentation.max()) for check in checks.values())
    counts = np.zeros((num_frames, 2, slots))
    for (_, frame), check in checks.items():
        counts[frame] += check.counts(threshold_px, slots)
    tested, above = counts.sum(axis=2).T
    if not tested.any():
        raise Unmeasurable("insufficient", "no object shows texture enough, and the same part of itself, twice")
    value = float(above.sum() / tested.sum())
    per_frame = np.divide(above, tested, out=np.full(num_frames, np.nan), where=tested > 0)
    # Object by object: one that breaks among many that do not is named all the same.
    broken = (counts[:, 0] >= OFFENDING_PIXELS) & (counts[:, 1] > OFFENDING_SHARE * counts[:, 0])
    return Measurement(
        value=value,
        normalised=1.0 - value,
        uncertainty=standard_error(per_frame),
        coverage=float(tested.sum()) / sum(int((check.segmentation > 0).sum()) for check in checks.values()),
        per_frame=per_frame,
        offending=tuple(int(i) for i in np.flatnonzero(broken.any(axis=1))),
        details={
            "pairs": len(checks),
            "pixels": int(tested.sum()),
            "commanded_motion_px": float(np.nanmedian([check.motion_px for check in checks.values()])),
        },
    )


def _same_surface(target: Faces, source: Faces, found: Correspondence, at: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Pixels of faces seen by both views, by the same light and at about the same size; (H, W) bool."""
    sampled = cv2.remap(source.inside.astype(np.float32), at, None, cv2.INTER_LINEAR)  # type: ignore[arg-type]
    alike = np.abs(np.log(np.where(found.visible, found.magnification, 1.0))) < np.log(MAX_MAGNIFICATION)
    return found.visible & target.inside & (sampled > 0.99) & alike & ~relit(target.view, source.view, K)


def _parts(shown: np.ndarray, view: View) -> list[tuple[tuple[slice, slice], np.ndarray]]:
    """Connected parts of `shown`, object by object: bounding box and mask within it. Edges part the faces of a box."""
    assert view.segmentation is not None
    found = []
    for slot in np.unique(view.segmentation[shown]):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            (shown & (view.segmentation == slot)).astype(np.uint8), connectivity=4
        )
        for part in range(1, count):
            left, top, width, height, pixels = stats[part]
            if pixels >= _LEAST_PIXELS:
                box = np.s_[top : top + height, left : left + width]
                found.append((box, labels[box] == part))
    return found


def _interior(view: View) -> np.ndarray:
    """Pixels of objects whose eight neighbours belong to the same object."""
    assert view.segmentation is not None
    labels = view.segmentation.astype(np.float32)
    return (labels > 0) & (cv2.erode(labels, _SQUARE) == labels) & (cv2.dilate(labels, _SQUARE) == labels)


def _smooth(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A Gaussian that looks at pixels of the mask (H, W) float32 alone."""
    weight = cv2.GaussianBlur(inside, (0, 0), SOFT_PX)
    blurred = cv2.GaussianBlur(image * inside[..., None], (0, 0), SOFT_PX)
    return blurred.reshape(image.shape) / np.maximum(weight, 1e-6)[..., None]


def _sums(values: np.ndarray) -> np.ndarray:
    """Sums over windows; outside the picture there is nothing."""
    return cv2.boxFilter(values, -1, (_WINDOW, _WINDOW), normalize=False, borderType=cv2.BORDER_CONSTANT)


def _noise(a: np.ndarray, b: np.ndarray, smooth_a: np.ndarray, smooth_b: np.ndarray, mask: np.ndarray) -> float:
    """Variance, summed over channels, of what noise is left in the difference of the smoothed pictures."""
    # By the brighter picture's measure, as the least shift is: a paler one is made to look like it.
    spread_a, spread_b = (float(s[mask].std(axis=0).sum()) for s in (smooth_a, smooth_b))
    most = max(spread_a, spread_b)
    if min(spread_a, spread_b) <= 1e-3 * most:
        return 0.0
    rough = ((a - smooth_a) * (most / spread_a) - (b - smooth_b) * (most / spread_b))[mask]
    return _NOISE_LEFT**2 * float((rough**2).sum()) / max(len(rough), 1)


def _moments(
    a: np.ndarray, b: np.ndarray, inside: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variances of a and b and their covariance in windows of the mask, summed over channels; (H, W) each."""
    mask, many = inside[..., None], np.maximum(count, 1.0)[..., None]
    # Offsets cancel; without them, float32 keeps the small differences of large squares.
    a, b = a - a[inside > 0].mean(axis=0), b - b[inside > 0].mean(axis=0)

    def mean(values: np.ndarray) -> np.ndarray:
        return _sums(values * mask).reshape(values.shape) / many

    mean_a, mean_b = mean(a), mean(b)
    moments = mean(a * a) - mean_a * mean_a, mean(b * b) - mean_b * mean_b, mean(a * b) - mean_a * mean_b
    a_variance, b_variance, covariance = (m.sum(axis=-1) for m in moments)
    return np.maximum(a_variance, 0.0), np.maximum(b_variance, 0.0), covariance


def _steepest(image: np.ndarray, core: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Mean square gradient along the steepest direction in windows of the mask, summed over channels; (H, W)."""
    dx, dy = (
        cv2.Sobel(image, cv2.CV_32F, *order, ksize=3, scale=1 / 8).reshape(image.shape) for order in ((1, 0), (0, 1))
    )
    xx, xy, yy = (
        _sums(product.sum(axis=-1) * core) / np.maximum(count, 1.0) for product in (dx * dx, dx * dy, dy * dy)
    )
    return 0.5 * (xx + yy) + np.sqrt(0.25 * (xx - yy) ** 2 + xy * xy)
