"""Evaluator of objects: does their texture stay on them, from one frame to the next and over the whole clip?

Optical flow does not see the texture of a small object slide: its patches lie across the object's outline, and that
stands still. So no flow is looked for here. Two frames, warped onto each other by depth, pose and the object's own
motion, show the same points of its surface; a part of it looks different by some grey levels, and the steepest gradient
in it tells by how many pixels it must have slid *at least* to look so different. Frames far apart make a slow slide
large, and noise no larger: an object's slide is the mean over its pixels, weighed by how far apart the frames are.

What a codec does to texture passes for a slide too, and no model of noise tells the two apart. The still room does: it
went through the same codec, so what its texture seems to slide by is taken off.
"""

from collections.abc import Mapping, Sequence
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
_TEXTURE_LEVELS_PER_PX = 0.4
# Under noise, this share of the texture that flow needs: what noise explains of a difference is taken off besides.
_NOISY_TEXTURE_SHARE = 0.58
# Surfaces whose normal turns by more within a pixel have an edge there, where colours mix.
_CREASE_RAD = np.radians(30.0)
# A frame is named as offending from this share of one object's tested pixels on, if there are as many of them: beyond
# what the room shows, true objects reach an eighth.
OFFENDING_SHARE, OFFENDING_PIXELS = 0.3, 50
# An object that shows fewer pixels than these, over all pairs, has no slide of its own.
LEAST_OBJECT_PIXELS = 50
# A surface may be shown so many times smaller by the target: detail is lost on the way there, and none is missed.
MAX_REDUCTION = 2.0
# What the room seems to slide by at most: this quantile of what its parts show, over as many pairs, if as many pixels
# can be tested.
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
        extended: float32 (H, W), the frame's grey levels, with those of the faces carried over their edges, so that
            samples between pixels do not mix with what lies beyond. Codecs keep colour at half the resolution.
        seen: By object, its median distance in metres and the pixels of its faces.
    """

    view: View
    inside: np.ndarray
    extended: np.ndarray
    seen: Mapping[int, tuple[float, int]]


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

    def sums(self, threshold_px: float, slots: int) -> np.ndarray:
        """(3, slots) of each object: tested pixels, those that slid by more than the threshold, sum of slides."""
        tested = np.isfinite(self.least_px)
        labels, slid = self.segmentation[tested], self.least_px[tested]
        return np.stack([np.bincount(labels, w, slots + 1)[1:] for w in (None, slid > threshold_px, slid)])


def faces(view: View, K: np.ndarray) -> Faces:
    """Finds the faces of a view's objects; K (3, 3). The view must have a segmentation."""
    inside = _interior(view) & ~creases(view.depth_m, K)
    mask, grey = inside.astype(np.float32), cv2.cvtColor(view.frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    spread = cv2.blur(grey * mask, (3, 3)) / np.maximum(cv2.blur(mask, (3, 3)), 1e-6)
    rim = (cv2.dilate(inside.astype(np.uint8), _SQUARE) > 0) & ~inside
    assert view.segmentation is not None
    known = inside & np.isfinite(view.depth_m) & (view.depth_m > 0)
    found = {int(k): view.depth_m[known & (view.segmentation == k)] for k in np.unique(view.segmentation[known])}
    return Faces(
        view=view,
        inside=inside,
        extended=np.where(rim, spread, grey),
        seen={slot: (float(np.median(depth_m)), len(depth_m)) for slot, depth_m in found.items()},
    )


def smaller_first(a: Faces, b: Faces) -> tuple[Faces, Faces]:
    """Two views, first the one that shows most of what both show from further away.

    Warped to that one, a picture loses detail that the other has not; the other way it lacks detail, which differs.
    """
    further = sum(
        min(pixels, b.seen[slot][1]) * np.log(distance_m / b.seen[slot][0])
        for slot, (distance_m, pixels) in a.seen.items()
        if slot in b.seen
    )
    return (a, b) if further > 0 else (b, a)


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
        target: The view to which is warped; of the two the one that shows objects smaller, see `smaller_first`.
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
        slid = least_shift(target.extended[box][..., None], warped[box][..., None], part, needed)
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
        pairs: Indices of the views to compare.
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
        least_px = check_slide(*smaller_first(ready[a], ready[b]), K, least_texture=least_texture).least_px
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
    unit="px",
    better="lower",
    needs=("depth_m", "world_from_camera", "K", "segmentation"),
    claims=("object_popping", "texture_swim_object"),
    version=6,
)
def object_flow(
    clip: Clip, *, threshold_px: float = 1.0, gaps: tuple[int, ...] = (1, 2, 4, 8), max_pairs: int = 200
) -> Measurement:
    """By how far the texture of the worst object slid at least, or became another, since earlier frames.

    The mean over the object's pixels, weighed by the distance of the frames that are compared: a slide grows with it
    and what noise leaves does not, so that these are the weights of least squares. A pixel's width around each face is
    left out, where colours mix. An object counts as moving where its `world_from_object` says so.

    Args:
        clip: With depth, poses, intrinsics and segmentation.
        threshold_px: Mean slide at which the normalised value is a half, in pixels at a shorter side of 256: a quarter
            of a pixel at 64, about the most that two samplings of one surface disagree. Frames are named as offending
            where more than this, and than the still room shows in the same video, slid.
        gaps: Frame distances of the compared pairs; slow slides show in the long ones.
        max_pairs: At most this many pairs, evenly spread.
    """
    guards.require_frames(clip, 2)
    with guards.refusals():
        seen, K = views(clip)
        pairs = [(i, i + gap) for gap in gaps for i in range(len(clip) - gap)]
        pairs = [pairs[i] for i in guards.spread(len(pairs), max_pairs)]
        needed = guards.least_texture(clip.frames)
        needed = _NOISY_TEXTURE_SHARE * needed if needed > guards.TEXTURE_LEVELS_PER_PX else 0.0
        ready = [faces(view, K) for view in seen]
        checks = {(a, b): check_slide(*smaller_first(ready[a], ready[b]), K, least_texture=needed) for a, b in pairs}
        control = [pairs[i] for i in guards.spread(len(pairs), _ROOM_PAIRS)]
        room = room_px(seen, control, K, least_texture=needed)
    require_motion([check.motion_px for check in checks.values() if np.isfinite(check.motion_px)])
    return worst_object(checks, len(clip), threshold_px, room)


def worst_object(
    checks: Mapping[tuple[int, int], SlideCheck], num_frames: int, threshold_px: float, room: float
) -> Measurement:
    """The verdict on the object whose texture slid most.

    Over pixels, not pairs: one in which an object shows three pixels must not weigh as much as one with hundreds.

    Args:
        checks: By indices of the compared frames, earlier first.
        num_frames: Of the clip.
        threshold_px: See `object_flow`.
        room: See `room_px`.

    Raises:
        Unmeasurable: No object shows `LEAST_OBJECT_PIXELS`.
    """
    slots = max(int(check.segmentation.max()) for check in checks.values())
    # Pixels, those beyond the threshold, weights and weighted slides, by frame and object.
    found = np.zeros((num_frames, 4, slots))
    for (first, last), check in checks.items():
        pixels, above, slid = check.sums(threshold_px + room, slots)
        found[last] += pixels, above, pixels * (last - first), slid * (last - first)
    tested, _, weights, slides = found.sum(axis=0)
    enough = tested >= LEAST_OBJECT_PIXELS
    if not enough.any():
        raise Unmeasurable("insufficient", "no object shows texture enough, and the same part of itself, twice")
    means = np.divide(slides, weights, out=np.zeros(slots), where=enough)
    worst = int(means.argmax())
    _, _, weights, slides = found[:, :, worst].T
    per_frame = np.divide(slides, weights, out=np.full(num_frames, np.nan), where=weights > 0)
    # Object by object: one that breaks among many that do not is named all the same.
    broken = (found[:, 0] >= OFFENDING_PIXELS) & (found[:, 1] > OFFENDING_SHARE * found[:, 0])
    return Measurement(
        value=float(means[worst]),
        normalised=float(1.0 / (1.0 + (means[worst] / threshold_px) ** 2)),
        uncertainty=standard_error(per_frame),
        coverage=float(tested.sum()) / sum(int((check.segmentation > 0).sum()) for check in checks.values()),
        per_frame=per_frame,
        offending=tuple(int(i) for i in np.flatnonzero(broken.any(axis=1))),
        details={
            "object": worst + 1,
            "pairs": len(checks),
            "pixels": int(tested.sum()),
            "room_px": room,
            "commanded_motion_px": float(np.nanmedian([check.motion_px for check in checks.values()])),
        },
    )


def _same_surface(target: Faces, source: Faces, found: Correspondence, at: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Pixels of faces seen by both views, by the same light, and by the target hardly larger; (H, W) bool."""
    sampled = cv2.remap(source.inside.astype(np.float32), at, None, cv2.INTER_LINEAR)  # type: ignore[arg-type]
    size = np.where(found.visible, found.magnification, 1.0)
    alike = (size < MAX_MAGNIFICATION) & (size * MAX_REDUCTION > 1.0)
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
