"""Evaluator of object permanence in 3D: an object that left the view must be there when the camera looks again."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from eval.clip import Clip
from eval.geometry import guards
from eval.score import Measurement, Unmeasurable, evaluator

# An object counts as seen from this many pixels on, at a shorter side of 64, and as gone below a tenth of it.
_SEEN_PX, _SIDE = 24, 64
# Contrast of an object to its surroundings (grey levels) below which its absence could not be noticed.
_MIN_CONTRAST = 12.0


@dataclass(frozen=True, kw_only=True)
class Reappearance:
    """An object's return: slot (from 0), the frame that saw most of it before, the frame that sees it again."""

    slot: int
    before: int
    after: int


def reappearances(segmentation: np.ndarray, *, absent_frames: int) -> Iterator[Reappearance]:
    """Objects that leave the commanded view for at least `absent_frames` frames and come back.

    Args:
        segmentation: (T, H, W), 0 background, k+1 the object in slot k.
        absent_frames: Frames without the object.
    """
    enough = _SEEN_PX * (min(segmentation.shape[1:]) / _SIDE) ** 2
    for label in np.unique(segmentation[segmentation > 0]):
        area = (segmentation == label).sum(axis=(1, 2))
        seen = np.flatnonzero(area >= enough)
        for before, after in pairwise(seen.tolist()):
            if (area[before + 1 : after] < enough / 10).sum() >= absent_frames:
                yield Reappearance(slot=int(label) - 1, before=int(area[: before + 1].argmax()), after=after)


@evaluator(
    "object_permanence",
    suite="geometry",
    unit="share",
    better="higher",
    needs=("segmentation",),
    claims=("world_forgotten",),
)
def object_permanence(clip: Clip, *, absent_frames: int = 4, settle_frames: int = 4) -> Measurement:
    """Share of objects that are still there when the camera looks at them again.

    Where the true world shows a returned object (its mask, from depth and pose), the frame's colours must be nearer to
    the colours that the object had before than to those around the mask. Blind to an object of the same colour that
    takes its place, and to shape.

    Args:
        clip: With the commanded views' segmentation.
        absent_frames: Frames for which the object must have been out of view.
        settle_frames: Frames after the return on which it is looked for, at most: at the border little is seen.
    """
    guards.require_frames(clip, absent_frames + 2)
    segmentation = clip.truth["segmentation"]
    if segmentation.shape != clip.frames.shape[:3]:
        raise Unmeasurable("failed", f"segmentation {segmentation.shape} does not fit frames {clip.frames.shape[:3]}")
    found = list(reappearances(segmentation, absent_frames=absent_frames))
    if not found:
        raise Unmeasurable("inapplicable", f"no object returns after {absent_frames} frames out of view")
    verdicts = {r: _is_there(clip, segmentation, r, settle_frames) for r in found}
    judged = {r: v for r, v in verdicts.items() if v is not None}
    if not judged:
        raise Unmeasurable("insufficient", "no returned object differs from its surroundings in colour")
    value = float(np.mean(list(judged.values())))
    per_frame = np.full(len(clip), np.nan)
    for r, there in judged.items():
        per_frame[r.after] = np.nanmean([per_frame[r.after], float(there)])
    return Measurement(
        value=value,
        normalised=value,
        uncertainty=float(np.sqrt(value * (1 - value) / len(judged))),
        coverage=len(judged) / len(found),
        per_frame=per_frame,
        offending=tuple(sorted({r.after for r, there in judged.items() if not there})),
        details={"returns": len(found), "returns_judged": len(judged)},
    )


def _is_there(clip: Clip, segmentation: np.ndarray, returned: Reappearance, settle_frames: int) -> bool | None:
    """Whether the object is found where it must be; None if its colour does not set it apart from its surroundings."""
    label = returned.slot + 1
    last = min(returned.after + settle_frames, len(clip) - 1)
    area = (segmentation[returned.after : last + 1] == label).sum(axis=(1, 2))
    after = returned.after + int(area.argmax())
    inside = segmentation[after] == label
    around = cv2.dilate(inside.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    around &= segmentation[after] == 0
    was = segmentation[returned.before] == label
    was_around = cv2.dilate(was.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    was_around &= segmentation[returned.before] == 0
    if not around.any() or not was_around.any():
        return None
    before, now = clip.frames[returned.before], clip.frames[after]
    colour, backdrop = (np.median(before[m], axis=0) for m in (was, was_around))
    if np.linalg.norm(colour - backdrop) < _MIN_CONTRAST:
        return None
    here, beside = (np.median(now[m], axis=0) for m in (inside, around))
    return bool(np.linalg.norm(here - colour) < np.linalg.norm(here - beside))
