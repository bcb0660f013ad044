"""Evaluator for clips whose depth and camera are known: does each frame, warped, land on the others?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.clip import Clip
from eval.geometry import guards
from eval.geometry.convention import Misfit, require_convention
from eval.geometry.depth import (
    FLOW_SIDE,
    Correspondence,
    View,
    correspond,
    dense_flow,
    flow_margin_px,
    sample,
    still_pixels,
    unexplained_levels,
)
from eval.geometry.guards import structure_tensor, visible_flow
from eval.geometry.lighting import may_be_shaded, moving_balls, turned_m
from eval.geometry.pose import check_intrinsics, check_poses, unproject
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error

# Noise excuses no more flow than this, or pictures that match nowhere would pass; pixels at a shorter side of 256.
MAX_MARGIN_PX = 1.0
# A surface is compared between views that show it at up to this ratio of sizes.
MAX_MAGNIFICATION = 1.3
# Commanded image motion below which a frozen picture could not be told from a true one.
STILL_PX = 0.5
# A frame is named as offending from this share on; true renders stay below a hundredth.
OFFENDING_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class PairCheck:
    """One pair of frames compared through known depth.

    Attributes:
        flow_px: (H, W) residual flow in pixels at a shorter side of 256, NaN where not visible or lit otherwise.
        tested: (H, W) bool: visible in both, by the same light, and with texture enough to see half a pixel.
        margin_px: (H, W) by how much noise may have moved the flow, same unit.
        motion_px: Median image motion that depth and camera command, same unit.
    """

    flow_px: np.ndarray
    tested: np.ndarray
    margin_px: np.ndarray
    motion_px: float

    def share_above(self, threshold_px: float) -> float:
        """Share of the tested pixels whose residual flow exceeds the threshold by more than noise explains."""
        return float(self.above(threshold_px)[self.tested].mean())

    def above(self, threshold_px: float) -> np.ndarray:
        """(H, W) bool."""
        return self.flow_px > threshold_px + np.minimum(self.margin_px, MAX_MARGIN_PX)


def views(clip: Clip) -> tuple[list[View], np.ndarray]:
    """The clip's frames with their geometry, and K (3, 3).

    Raises:
        MeasureError: On poses or intrinsics that are none.
    """
    truth = clip.truth
    poses = check_poses(truth["world_from_camera"], num_frames=len(clip))
    K = check_intrinsics(truth["K"])
    segmentation, objects = truth.get("segmentation"), truth.get("world_from_object")
    movers = None if segmentation is None else moving_balls(truth["depth_m"], segmentation, poses, K, objects)
    made = [
        View(
            frame=clip.frames[i],
            depth_m=truth["depth_m"][i],
            world_from_camera=poses[i],
            segmentation=None if segmentation is None else segmentation[i],
            world_from_object=None if objects is None else objects[i],
            movers=() if movers is None else movers[i],
        )
        for i in range(len(clip))
    ]
    return made, K


def check_pair(
    target: View, source: View, K: np.ndarray, *, least_texture: float = guards.TEXTURE_LEVELS_PER_PX
) -> PairCheck | None:
    """Warps `source` to `target` and measures what still moves.

    Args:
        target: The view to which is warped.
        source: The view that is warped.
        K: (3, 3), pixels.
        least_texture: What a tested pixel needs, see `eval.geometry.guards.least_texture`.

    Returns:
        None if the views share less than `MIN_TESTED` of the picture.
    """
    found = correspond(target, source, K)
    if found.visible.mean() < guards.MIN_TESTED:
        return None
    steady = found.visible & ~relit(target, source, K)
    warped = sample(source.frame, found.pixels) * steady[..., None]
    # Enlarged pictures are soft, reduced ones alias: flow between unequal resolutions is biased.
    alike = np.abs(np.log(np.where(found.visible, found.magnification, 1.0))) < np.log(MAX_MAGNIFICATION)
    # The others are filled from the real frame, so that the edges of holes do not move.
    filled = np.where(steady[..., None], warped, target.frame)
    flow = dense_flow(filled, target.frame)
    tensor, other = structure_tensor(target.frame), structure_tensor(filled)
    tensor = np.where((other[..., ::2].sum(-1) > tensor[..., ::2].sum(-1))[..., None], other, tensor)
    energy = np.sqrt(tensor[..., 0] + tensor[..., 2])
    tested = steady & alike & (energy > least_texture)
    noise = unexplained_levels(filled, target.frame, flow, tested)
    return PairCheck(
        flow_px=np.where(steady, visible_flow(flow, tensor), np.float32(np.nan)),
        tested=tested,
        margin_px=flow_margin_px(noise, energy),
        motion_px=commanded_motion_px(found),
    )


def relit(target: View, source: View, K: np.ndarray) -> np.ndarray:
    """Where moving objects may have changed the light between two views, (H, W) bool."""
    if target.segmentation is None or not (target.movers or source.movers):
        return np.zeros(target.depth_m.shape, bool)
    depth_m = np.where(np.isfinite(target.depth_m) & (target.depth_m > 0), target.depth_m, 1.0)
    pose, labels = target.world_from_camera, target.segmentation.ravel()
    points = pose[:3, :3] @ unproject(depth_m, K) + pose[:3, 3:]
    turned = turned_m(points, labels, target.world_from_object, source.world_from_object)
    turned_px = turned * K[0, 0] / depth_m.ravel() * (FLOW_SIDE / min(depth_m.shape))
    changed = may_be_shaded(points, labels, [*target.movers, *source.movers]) | (turned_px > guards.CERTAIN_PX)
    return changed.reshape(depth_m.shape)


def commanded_motion_px(found: Correspondence) -> float:
    """Median displacement of the visible pixels of a correspondence, in pixels at a shorter side of 256."""
    height, width = found.visible.shape
    shift = np.linalg.norm((found.pixels - still_pixels(height, width))[found.visible], axis=1)
    return float(np.median(shift)) * FLOW_SIDE / min(height, width)


@evaluator(
    "residual_flow",
    suite="geometry",
    unit="share",
    better="lower",
    needs=("depth_m", "world_from_camera", "K"),
    claims=("camera_wobble", "texture_swim_room", "object_popping", "scale_drift", "ignored_actions"),
    version=2,
)
def residual_flow(
    clip: Clip, *, threshold_px: float = 0.5, gaps: tuple[int, ...] = (1, 2), max_pairs: int = 200
) -> Measurement:
    """Share of pixels that still move after warping by the commanded depth and camera.

    Every frame is warped into the frames `gaps` later; occluded pixels are found by depth, moving objects follow
    `world_from_object` where it is known and are masked by `segmentation` where it is not. Pixels without texture, or
    that a moving object may shade, are not tested. Poses that fit under another camera convention are refused with its
    name.

    Args:
        clip: With depth, poses and intrinsics.
        threshold_px: Residual flow beyond the margin of noise that counts, in pixels at a shorter side of 256.
        gaps: Frame distances of the compared pairs.
        max_pairs: At most this many pairs, evenly spread.
    """
    checks = _check(clip, gaps, max_pairs)
    require_motion([check.motion_px for check in checks.values() if check is not None])
    found = _summary(checks, clip, threshold_px)

    def misfit(poses: np.ndarray) -> Misfit:
        other = _check(replace(clip, truth={**clip.truth, "world_from_camera": poses}), gaps[:1], max_pairs=12)
        return Misfit.of(
            [
                (c.share_above(threshold_px), c.motion_px)
                for c in other.values()
                if c is not None and c.tested.mean() >= guards.MIN_TESTED
            ],
            pairs=len(other),
        )

    require_convention(np.asarray(clip.truth["world_from_camera"]), found.value, misfit)
    return found


def _check(clip: Clip, gaps: tuple[int, ...], max_pairs: int) -> dict[tuple[int, int], PairCheck | None]:
    guards.require_frames(clip, 2)
    with guards.refusals():
        seen, K = views(clip)
        pairs = [(i, i + gap) for gap in gaps for i in range(len(clip) - gap)]
        pairs = [pairs[i] for i in guards.spread(len(pairs), max_pairs)]
        needed = guards.least_texture(clip.frames)
        return {(a, b): check_pair(seen[b], seen[a], K, least_texture=needed) for a, b in pairs}


def require_motion(motions_px: Sequence[float]) -> None:
    """Raises `Unmeasurable` unless some pair of frames overlaps and its commanded motion can be told from none."""
    if not motions_px:
        raise Unmeasurable("insufficient", "no pair of frames sees the same part of the world")
    if max(motions_px) < STILL_PX:
        raise Unmeasurable("inapplicable", "the commanded camera stands still: a frozen picture would pass")


def _summary(checks: dict[tuple[int, int], PairCheck | None], clip: Clip, threshold_px: float) -> Measurement:
    """Mean over the pairs that test at least `MIN_TESTED` of the picture."""
    tested = {pair: c for pair, c in checks.items() if c is not None and c.tested.mean() >= guards.MIN_TESTED}
    if not tested:
        raise Unmeasurable("insufficient", "too little texture, for its noise, to see a shift of half a pixel")
    shares = {pair: check.share_above(threshold_px) for pair, check in tested.items()}
    per_frame = frame_means(shares, len(clip))
    value = float(np.mean(list(shares.values())))
    return Measurement(
        value=value,
        normalised=1.0 - value,
        uncertainty=standard_error(per_frame),
        coverage=sum(float(check.tested.mean()) for check in tested.values()) / len(checks),
        per_frame=per_frame,
        offending=tuple(int(i) for i in np.flatnonzero(per_frame > OFFENDING_SHARE)),
        details={
            "pairs": len(checks),
            "pairs_measured": len(tested),
            "median_flow_px": float(np.median([np.median(c.flow_px[c.tested]) for c in tested.values()])),
            "commanded_motion_px": float(np.median([c.motion_px for c in tested.values()])),
        },
    )


def frame_means(values: dict[tuple[int, int], float], num_frames: int) -> np.ndarray:
    """Mean over the pairs that end in each frame, (T,); NaN where none does."""
    total, count = np.zeros(num_frames), np.zeros(num_frames)
    for (_, target), value in values.items():
        total[target] += value
        count[target] += 1
    return np.divide(total, count, out=np.full(num_frames, np.nan), where=count > 0)
