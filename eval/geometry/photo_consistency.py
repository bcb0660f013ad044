"""Evaluator of what vanishes, for clips whose camera is known and depth is not: are colours where they must be?

Flow, which `plane_sweep` looks at, does not see a thing that vanishes: its patches straddle the outline, a depth edge.
"""

import cv2
import numpy as np

from eval.clip import Clip
from eval.geometry import guards
from eval.geometry.colours import compare_colours
from eval.geometry.convention import Misfit, require_convention
from eval.geometry.known_depth import STILL_PX, frame_means
from eval.geometry.known_pose import SWEEP_SIDE, commanded_px, movers, movers_in_space, sweep_clip
from eval.geometry.pose import check_intrinsics, check_poses
from eval.geometry.sharpness import require_sharp
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error

# A frame is named as offending from this share of its tested pixels on.
OFFENDING_SHARE = 0.01
# From this share on the poses are doubted: wrong ones contradict far more than things that come and go.
_DOUBT_SHARE = 0.05


@evaluator(
    "photo_consistency",
    suite="geometry",
    unit="share",
    better="lower",
    needs=("world_from_camera", "K"),
    claims=("object_popping",),
    version=2,
)
def photo_consistency(
    clip: Clip,
    *,
    offsets: tuple[int, ...] = (1, 2),
    near_m: float = 0.25,
    far_m: float = 12.0,
    planes: int = 48,
) -> Measurement:
    """Share of pixels whose colour other frames do not show where they must; depth need not be known.

    For each frame depth is found by plane sweep. A pixel that a neighbour shows in another colour at every depth found
    around the pixel, and that nothing confirmed hides there, is contradicted: a thing has vanished, appeared, shrunk or
    changed its colour. The frames on both sides of the change are named. What merely slides or drifts is explained by
    another depth: see `plane_sweep`. Moving objects, and what they may shade, are left out where `segmentation` and
    `world_from_object` name them; otherwise the world is taken as static, and the details say so under `assumes`.
    Blurred frames are refused: blur lowers the contrast by which a colour could differ, and with it the value.

    Args:
        clip: With poses and intrinsics.
        offsets: Distances of the neighbours in frames, taken on both sides.
        near_m: Nearest depth that is believed.
        far_m: Farthest depth that is believed.
        planes: Number of depth hypotheses.
    """
    guards.require_frames(clip, 3)
    with guards.refusals():
        poses = check_poses(clip.truth["world_from_camera"], num_frames=len(clip))
        K = check_intrinsics(clip.truth["K"])
        light = movers_in_space(clip, poses, K)
        frames, K, left_out = _small(clip, K)
        middle_m = float(np.sqrt(near_m * far_m))
        if commanded_px(poses, K, frames.shape[1:3], max(offsets), middle_m) < STILL_PX:
            raise Unmeasurable("inapplicable", "the commanded camera stands still: no depth can be found")
        require_sharp(frames)
        asked = {"offsets": offsets, "near_m": near_m, "far_m": far_m, "planes": planes}
        shares: dict[tuple[int, int], float] = {}
        tested = []
        for pair in compare_colours(frames, poses, K, left_out=left_out, light=light, **asked):
            tested.append(float(pair.tested.mean()))
            if tested[-1] >= guards.MIN_TESTED:
                shares[pair.source, pair.target] = float(pair.contradicted.sum() / pair.tested.sum())
        if not shares:
            raise Unmeasurable(
                "insufficient", "too little overlap, or too little texture for its noise, to compare frames"
            )
        value = float(np.mean(list(shares.values())))
        if value > _DOUBT_SHARE:
            _require_convention(frames, poses, K, asked)
    per_frame = frame_means(shares, len(clip))
    return Measurement(
        value=value,
        normalised=1.0 - value,
        uncertainty=standard_error(per_frame),
        coverage=float(np.mean(tested)),
        per_frame=per_frame,
        offending=tuple(int(i) for i in np.flatnonzero(per_frame > OFFENDING_SHARE)),
        details={"pairs": len(tested), "pairs_measured": len(shares), "assumes": _assumed(clip)},
    )


def _assumed(clip: Clip) -> str:
    if "segmentation" not in clip.truth:
        return "a static world: no segmentation names what moves"
    if "world_from_object" not in clip.truth:
        return "that every segmented object may move: all are left out"
    return "that only what world_from_object moves does move"


def _require_convention(frames: np.ndarray, poses: np.ndarray, K: np.ndarray, asked: dict) -> None:
    """Refuses poses of another convention. Flow tells them apart: of colour, a wrong depth explains too much."""

    def misfit(read: np.ndarray) -> Misfit:
        few = slice(0, 2 * max(asked["offsets"]) + 4)
        swept = list(sweep_clip(frames[few], read[few], K, **asked))
        motion = commanded_px(read[few], K, frames.shape[1:3], 1, np.sqrt(asked["near_m"] * asked["far_m"]))
        tested = [s for s in swept if s.tested.mean() >= guards.MIN_TESTED]
        return Misfit.of([(s.share_above(0.25), motion) for s in tested], pairs=len(swept))

    require_convention(poses, misfit(poses).share, misfit)


def _small(clip: Clip, K: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Frames, intrinsics and mask of movers at a shorter side of at most `SWEEP_SIDE`."""
    height, width = clip.frames.shape[1:3]
    masks = movers(clip)
    scale = SWEEP_SIDE / min(height, width)
    if scale >= 1.0:
        return clip.frames, K, masks
    size = (round(width * scale), round(height * scale))

    def shrink(pictures: np.ndarray) -> np.ndarray:
        return np.stack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures])

    K = np.diag([size[0] / width, size[1] / height, 1.0]) @ K
    return shrink(clip.frames), K, None if masks is None else shrink(masks.astype(np.uint8)) > 0
