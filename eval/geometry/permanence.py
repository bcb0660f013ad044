"""Evaluator of object permanence in 3D: an object that left the view must be there when the camera looks again."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from eval.clip import Clip
from eval.geometry import guards
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error

# An object counts as seen from this many pixels on, at a shorter side of 64, and as gone below a tenth of it.
_SEEN_PX, _SIDE = 24, 64
# Contrast of an object to its surroundings (grey levels) below which its absence could not be noticed.
_MIN_CONTRAST = 12.0
# Colours are alike up to this distance (grey levels): light on an object changes a little with the side that is seen.
_ALIKE = 24.0
_COLOURS = 256
_MIN_PIXELS = 6


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
    version=2,
)
def object_permanence(clip: Clip, *, absent_frames: int = 4, settle_frames: int = 4) -> Measurement:
    """How much of each object is still where it was when the camera looks at it again.

    Where the true world shows a returned object (its mask), the frame's pixels must have colours that the object had
    before; the value is the mean over objects of the share that do. Blind to an object of the same colour that takes
    its place, and to one that has grown.

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
    verdicts = {r: _kept(clip, segmentation, r, settle_frames) for r in found}
    judged = {r: v for r, v in verdicts.items() if v is not None}
    if not judged:
        raise Unmeasurable("insufficient", "no returned object differs from its surroundings in colour")
    value = float(np.mean(list(judged.values())))
    per_frame = np.full(len(clip), np.nan)
    for r, kept in judged.items():
        per_frame[r.after] = np.nanmean([per_frame[r.after], kept])
    return Measurement(
        value=value,
        normalised=value,
        uncertainty=standard_error(np.array(list(judged.values()))),
        coverage=len(judged) / len(found),
        per_frame=per_frame,
        offending=tuple(sorted({r.after for r, kept in judged.items() if kept < 0.5})),
        details={"returns": len(found), "returns_judged": len(judged)},
    )


def _kept(clip: Clip, segmentation: np.ndarray, returned: Reappearance, settle_frames: int) -> float | None:
    """Share of the object that is found where it must be; None if colour does not set it apart from its surroundings.

    A pixel of its mask shows it if it is like one that showed it before, and no less so than like what was around it.
    The share is relative to that before, which the object's own colours limit.
    """
    label = returned.slot + 1
    last = min(returned.after + settle_frames, len(clip) - 1)
    area = (segmentation[returned.after : last + 1] == label).sum(axis=(1, 2))
    after = returned.after + int(area.argmax())
    before, now = clip.frames[returned.before], clip.frames[after]
    was, was_around = _object(segmentation[returned.before], label)
    inside, _ = _object(segmentation[after], label)
    if min(was.sum(), was_around.sum(), inside.sum()) < _MIN_PIXELS:
        return None
    own, other = (_palette(before[m]) for m in (was, was_around))
    if np.linalg.norm(np.median(own, axis=0) - np.median(other, axis=0)) < _MIN_CONTRAST:
        return None
    shown, was_shown = (float(_shows(pixels, own, other).mean()) for pixels in (now[inside], before[was]))
    return min(1.0, shown / was_shown) if was_shown > 0 else None


def _object(segmentation: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    """The object's pixels without its edge, where colours mix, and the background's around it."""
    mask = (segmentation == label).astype(np.uint8)
    around = cv2.dilate(mask, np.ones((7, 7), np.uint8)) - cv2.dilate(mask, np.ones((3, 3), np.uint8))
    return cv2.erode(mask, np.ones((3, 3), np.uint8)) > 0, (around > 0) & (segmentation == 0)


def _palette(pixels: np.ndarray) -> np.ndarray:
    """At most `_COLOURS` of the pixels' colours, float64 (n, 3)."""
    return pixels[guards.spread(len(pixels), _COLOURS)].astype(np.float64)


def _shows(pixels: np.ndarray, own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Which pixels (N, 3) are within `_ALIKE` of one of the object's colours, and no nearer to another: (N,) bool."""
    to_own, to_other = (np.linalg.norm(pixels[:, None] - c[None], axis=2).min(axis=1) for c in (own, other))
    return (to_own <= _ALIKE) & (to_own <= to_other)
