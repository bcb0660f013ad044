"""Evaluator of objects: does their texture stay on them, from one frame to the next and over the whole clip?

Optical flow does not see the texture of a small object slide: its patches lie across the object's outline, and that
stands still. So no flow is looked for here. Two frames, warped onto each other by depth, pose and the object's own
motion, show the same points of its surface; a part of it looks different by some grey levels, and the steepest gradient
in it tells by how many pixels it must have slid *at least* to look so different. Frames far apart make a slow slide
large.

What a codec does to texture passes for a slide too, and no model of noise tells the two apart. The still room does: it
went through the same codec, so what its texture seems to slide by is taken off.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from eval.geometry.shift import LEAST_PIXELS, least_shift
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error

# Grey levels per pixel, at a shorter side of 256, that a tested part shows after smoothing.
_TEXTURE_LEVELS_PER_PX = 0.7
# Surfaces whose normal turns by more within a pixel have an edge there, where colours mix.
_CREASE_RAD = np.radians(30.0)
# A frame is named as offending from this share of one object's tested pixels on, if there are as many of them: beyond
# what the room shows, true objects reach an eighth.
OFFENDING_SHARE, OFFENDING_PIXELS = 0.3, 50
# The room seems to slide by this quantile of what its parts show, over as many pairs, if as many pixels can be tested.
_ROOM_QUANTILE, _ROOM_PAIRS, _ROOM_PIXELS = 0.99, 12, 500
# Beyond this, at a shorter side of 256, it is the room that is broken, and excuses nothing more.
MAX_ROOM_PX = 2.0
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


def room_px(
    seen: Sequence[View], pairs: Sequence[tuple[int, int]], K: np.ndarray, *, least_texture: float = 0.0
) -> float:
    """By how much the texture of what belongs to no object seems to slide: the error of the measure in this video.

    Args:
        seen: The views.
        pairs: Indices of the views to compare, target last.
        K: (3, 3), pixels.
        least_texture: As in `check_slide`.

    Returns:
        A high quantile, in pixels at a shorter side of 256, at most `MAX_ROOM_PX`; 0 where too little can be tested.
    """
    ready: dict[int, Faces] = {}
    found = []
    for a, b in pairs:
        for i in (a, b):
            if i not in ready:
                ready[i] = faces(_room_as_object(seen[i]), K)
        least_px = check_slide(ready[b], ready[a], K, least_texture=least_texture).least_px
        found.append(least_px[np.isfinite(least_px)])
    slid = np.concatenate(found)
    return min(float(np.quantile(slid, _ROOM_QUANTILE)), MAX_ROOM_PX) if len(slid) >= _ROOM_PIXELS else 0.0


def _room_as_object(view: View) -> View:
    """The view with the background as its only object, in a slot of its own that rests; objects are the background."""
    assert view.segmentation is not None
    poses = np.zeros((0, 4, 4)) if view.world_from_object is None else view.world_from_object
    # A slot that no object has, though it be named without a pose: movers shade what has another slot than their own.
    slot = max(len(poses), int(view.segmentation.max())) + 1
    rest = np.tile(np.eye(4), (slot - len(poses), 1, 1))
    return replace(
        view,
        segmentation=np.where(view.segmentation == 0, slot, 0),
        world_from_object=np.concatenate([poses, rest]),
    )


@evaluator(
    "object_flow",
    suite="geometry",
    unit="share",
    better="lower",
    needs=("depth_m", "world_from_camera", "K", "segmentation"),
    claims=("object_popping", "texture_swim_object"),
    version=5,
)
def object_flow(
    clip: Clip, *, threshold_px: float = 1.0, gaps: tuple[int, ...] = (1, 2, 4, 8), max_pairs: int = 200
) -> Measurement:
    """Share of the pixels of objects whose texture slid, or became another, since an earlier frame.

    A pixel's width around each face of an object is left out, where colours mix. An object counts as moving where its
    `world_from_object` says so. What the still room's own texture seems to slide by, in the same video, is taken off:
    noise, compression and sampling touch both.

    Args:
        clip: With depth, poses, intrinsics and segmentation.
        threshold_px: Least shift, beyond what the room shows, that counts, in pixels at a shorter side of 256. Two
            samplings of one surface rarely disagree by more than a quarter of a pixel, which is this at 64 pixels.
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
        control = [pairs[i] for i in guards.spread(len(pairs), _ROOM_PAIRS)]
        room = room_px(seen, control, K, least_texture=needed)
    require_motion([check.motion_px for check in checks.values() if np.isfinite(check.motion_px)])
    return _pooled(checks, len(clip), threshold_px, room)


def _pooled(
    checks: dict[tuple[int, int], SlideCheck], num_frames: int, threshold_px: float, room: float
) -> Measurement:
    """Over pixels, not pairs: one in which an object shows three pixels must not weigh as much as one with hundreds."""
    slots = max(int(check.segmentation.max()) for check in checks.values())
    counts = np.zeros((num_frames, 2, slots))
    for (_, frame), check in checks.items():
        counts[frame] += check.counts(threshold_px + room, slots)
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
            "room_px": room,
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
            if pixels >= LEAST_PIXELS:
                box = np.s_[top : top + height, left : left + width]
                found.append((box, labels[box] == part))
    return found


def _interior(view: View) -> np.ndarray:
    """Pixels of objects whose eight neighbours belong to the same object."""
    assert view.segmentation is not None
    labels = view.segmentation.astype(np.float32)
    return (labels > 0) & (cv2.erode(labels, _SQUARE) == labels) & (cv2.dilate(labels, _SQUARE) == labels)
