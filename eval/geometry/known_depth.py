"""Evaluator for clips whose depth and camera are known: does each frame, warped, land on the others?"""

from dataclasses import dataclass

import numpy as np

from eval.clip import Clip
from eval.geometry import guards
from eval.geometry.depth import FLOW_SIDE, Correspondence, View, correspond, residual_flow_px, sample
from eval.geometry.guards import textured
from eval.geometry.pose import check_intrinsics, check_poses, pixel_grid
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error

# A frame is named as offending from this share on; true renders stay below a hundredth.
OFFENDING_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class PairCheck:
    """One pair of frames compared through known depth.

    Attributes:
        flow_px: (H, W) residual flow in pixels at a shorter side of 256, NaN where not visible.
        tested: (H, W) bool: visible in both, and with texture enough to see half a pixel.
        motion_px: Median image motion that depth and camera command, same unit.
    """

    flow_px: np.ndarray
    tested: np.ndarray
    motion_px: float

    def share_above(self, threshold_px: float) -> float:
        """Share of the tested pixels whose residual flow exceeds the threshold."""
        return float((self.flow_px[self.tested] > threshold_px).mean())


def views(clip: Clip) -> tuple[list[View], np.ndarray]:
    """The clip's frames with their geometry, and K (3, 3).

    Raises:
        MeasureError: On poses or intrinsics that are none.
    """
    truth = clip.truth
    poses = check_poses(truth["world_from_camera"], num_frames=len(clip))
    segmentation, objects = truth.get("segmentation"), truth.get("world_from_object")
    made = [
        View(
            frame=clip.frames[i],
            depth_m=truth["depth_m"][i],
            world_from_camera=poses[i],
            segmentation=None if segmentation is None else segmentation[i],
            world_from_object=None if objects is None else objects[i],
        )
        for i in range(len(clip))
    ]
    return made, check_intrinsics(truth["K"])


def check_pair(target: View, source: View, K: np.ndarray) -> PairCheck | None:
    """Warps `source` to `target` and measures what still moves; None if they share less than `guards.MIN_TESTED`."""
    found = correspond(target, source, K)
    if found.visible.mean() < guards.MIN_TESTED:
        return None
    warped = sample(source.frame, found.pixels) * found.visible[..., None]
    tested = found.visible & textured(target.frame, np.where(found.visible[..., None], warped, target.frame))
    return PairCheck(
        flow_px=residual_flow_px(warped, target.frame, found.visible),
        tested=tested,
        motion_px=commanded_motion_px(found),
    )


def commanded_motion_px(found: Correspondence) -> float:
    """Median displacement of the visible pixels of a correspondence, in pixels at a shorter side of 256."""
    height, width = found.visible.shape
    still = pixel_grid(height, width)[:2].T.reshape(height, width, 2)
    shift = np.linalg.norm((found.pixels - still)[found.visible], axis=1)
    return float(np.median(shift)) * FLOW_SIDE / min(height, width)


@evaluator("residual_flow", suite="geometry", unit="share", better="lower", needs=("depth_m", "world_from_camera", "K"))
def residual_flow(
    clip: Clip, *, threshold_px: float = 0.5, gaps: tuple[int, ...] = (1, 4), max_pairs: int = 200
) -> Measurement:
    """Share of pixels that still move after warping by the commanded depth and camera.

    Every frame is warped into the frames `gaps` later; occluded pixels are found by depth, moving objects follow
    `world_from_object` where it is known and are masked by `segmentation` where it is not. Lower is better; a true
    render stays below 0.01.

    Args:
        clip: With depth, poses and intrinsics.
        threshold_px: Residual flow that counts, in pixels at a shorter side of 256.
        gaps: Frame distances of the compared pairs.
        max_pairs: At most this many pairs, evenly spread.
    """
    guards.require_frames(clip, 2)
    with guards.refusals():
        seen, K = views(clip)
        pairs = [(i, i + gap) for gap in gaps for i in range(len(clip) - gap)]
        pairs = [pairs[i] for i in guards.spread(len(pairs), max_pairs)]
        checks = {(a, b): check_pair(seen[b], seen[a], K) for a, b in pairs}
    overlapping = {pair: check for pair, check in checks.items() if check is not None}
    if not overlapping:
        raise Unmeasurable("insufficient", "no pair of frames sees the same part of the world")
    if max(check.motion_px for check in overlapping.values()) < threshold_px:
        raise Unmeasurable("inapplicable", "the commanded camera stands still: a frozen picture would pass")
    # A pair without texture would be 0/0; the share of tested pixels below says how much of the clip has any.
    measured = {pair: check for pair, check in overlapping.items() if check.tested.mean() >= guards.MIN_TESTED}
    if not measured:
        raise Unmeasurable("insufficient", "too little texture to see a shift of half a pixel")
    shares = {pair: check.share_above(threshold_px) for pair, check in measured.items()}
    per_frame = frame_means(shares, len(clip))
    value = float(np.mean(list(shares.values())))
    tested = sum(float(check.tested.mean()) for check in measured.values())
    return Measurement(
        value=value,
        normalised=1.0 - value,
        uncertainty=standard_error(np.array(list(shares.values()))),
        coverage=tested / len(pairs),
        per_frame=per_frame,
        offending=tuple(int(i) for i in np.flatnonzero(per_frame > OFFENDING_SHARE)),
        details={
            "pairs": len(pairs),
            "pairs_measured": len(measured),
            "median_flow_px": float(np.median([np.median(c.flow_px[c.tested]) for c in measured.values()])),
            "commanded_motion_px": float(np.median([c.motion_px for c in overlapping.values()])),
        },
    )


def frame_means(values: dict[tuple[int, int], float], num_frames: int) -> np.ndarray:
    """Mean over the pairs that end in each frame, (T,); NaN where none does."""
    total, count = np.zeros(num_frames), np.zeros(num_frames)
    for (_, target), value in values.items():
        total[target] += value
        count[target] += 1
    return np.divide(total, count, out=np.full(num_frames, np.nan), where=count > 0)
