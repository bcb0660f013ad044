"""Evaluator for larger clips whose camera is known and depth is not: do matches lie on the commanded epipolar lines?"""

import numpy as np

from eval.clip import Clip
from eval.geometry import guards
from eval.geometry.epipolar import fundamental_from_poses, symmetric_epipolar_distance
from eval.geometry.known_depth import frame_means
from eval.geometry.known_pose import commanded_px
from eval.geometry.matching import Features, detect, match
from eval.geometry.parallax import transfer_error
from eval.geometry.pose import check_intrinsics, check_poses, median_parallax_px, relative_pose
from eval.score import Measurement, Unmeasurable, evaluator

TSED_SIDE = 128
# Parallax below this (pixels at a shorter side of 256) leaves the epipolar line undefined by matching noise.
NO_BASELINE_PX = 1.0


@evaluator(
    "tsed",
    suite="geometry",
    unit="share",
    better="higher",
    needs=("world_from_camera", "K"),
    claims=("camera_wobble",),
)
def tsed(
    clip: Clip,
    *,
    threshold_px: float = 2.0,
    min_matches: int = 10,
    gaps: tuple[int, ...] = (1, 2, 4),
    curve_px: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0),
    typical_depth_m: float = 3.0,
    max_pairs: int = 48,
) -> Measurement:
    """Share of frame pairs whose SIFT matches lie on the commanded epipolar lines (TSED, arXiv 2304.10700).

    Pairs without enough matches count as inconsistent. Where the commanded camera only turns, epipolar lines do not
    exist and matches are held against the homography of the turn. Blind to errors along the lines: see `plane_sweep`.

    Args:
        clip: With poses and intrinsics, frames of at least 128 px.
        threshold_px: The median distance must stay below, in pixels at a shorter side of 256.
        min_matches: Matches that a pair needs.
        gaps: Frame distances.
        curve_px: Thresholds of the curve in the details.
        typical_depth_m: Depth at which a translation must cause a pixel of parallax to count as one.
        max_pairs: At most this many pairs a gap, evenly spread.
    """
    guards.require_frames(clip, 2)
    guards.require_side(clip, TSED_SIDE)
    with guards.refusals():
        poses = check_poses(clip.truth["world_from_camera"], num_frames=len(clip))
        K = check_intrinsics(clip.truth["K"])
        scale = 256.0 / min(clip.frames.shape[1:3])
        pairs = [(int(i), int(i) + g) for g in gaps if g < len(clip) for i in guards.spread(len(clip) - g, max_pairs)]
        if commanded_px(poses, K, clip.frames.shape[1:3], max(gaps), typical_depth_m) < threshold_px:
            raise Unmeasurable("inapplicable", "the commanded camera stands still: a frozen picture would pass")
        found = {i: detect(clip.frames[i]) for i in sorted({i for pair in pairs for i in pair})}
        if max(len(f) for f in found.values()) < min_matches:
            raise Unmeasurable("insufficient", f"too little texture: no frame has {min_matches} SIFT keypoints")
        flat = np.full(clip.frames.shape[1:3], typical_depth_m)
        medians, counts, turns = {}, {}, 0
        for a, b in pairs:
            b_from_a = relative_pose(poses[a], poses[b])
            is_turn = median_parallax_px(b_from_a, K, flat) * scale < NO_BASELINE_PX
            turns += is_turn
            distances = _distances(found[a], found[b], b_from_a, K, is_turn=is_turn) * scale
            counts[a, b] = len(distances)
            medians[a, b] = float(np.median(distances)) if len(distances) else np.inf

    def consistent(limit: float) -> dict[tuple[int, int], float]:
        return {pair: float(counts[pair] >= min_matches and medians[pair] < limit) for pair in pairs}

    shares = consistent(threshold_px)
    value = float(np.mean(list(shares.values())))
    return Measurement(
        value=value,
        normalised=value,
        uncertainty=float(np.sqrt(value * (1 - value) / len(pairs))),
        per_frame=frame_means(shares, len(clip)),
        offending=tuple(sorted({b for (_, b), good in shares.items() if not good})),
        details={
            "pairs": len(pairs),
            "pairs_unmatched": sum(n < min_matches for n in counts.values()),
            "pairs_turning_only": int(turns),
            "curve_px": list(curve_px),
            "curve_share": [float(np.mean(list(consistent(limit).values()))) for limit in curve_px],
            "by_gap": {
                g: float(np.mean([v for (a, b), v in shares.items() if b - a == g])) for g in gaps if g < len(clip)
            },
            "median_px": float(np.median(list(medians.values()))),
        },
    )


def _distances(a: Features, b: Features, b_from_a: np.ndarray, K: np.ndarray, *, is_turn: bool) -> np.ndarray:
    in_a, in_b = match(a, b)
    if is_turn:
        return transfer_error(a.points[in_a], b.points[in_b], K @ b_from_a[:3, :3] @ np.linalg.inv(K))
    return symmetric_epipolar_distance(a.points[in_a], b.points[in_b], fundamental_from_poses(b_from_a, K, K))
