"""Evaluators for video of which nothing is known: does any camera path and rigid scene explain the matches?"""

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.stats import binomtest

from eval.clip import Clip
from eval.geometry import guards
from eval.geometry.known_depth import frame_means
from eval.geometry.matching import Features, detect, match
from eval.geometry.parallax import MIN_MATCHES, TwoView, two_view
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error

MIN_SIDE = 128
# The shorter side at which the claims are validated; at half of it they are told at severity 1 alone.
CLAIMED_SIDE = 256
# Sparse matching gains nothing from more pixels than this and slows with them.
WORKING_SIDE = 512
# Median displacement below which a pair counts as unmoved: SIFT's own localisation noise is about 0.3 px.
STILL_PX = 1.0
# Share of the matches within a quarter of a pixel that SIFT's own errors leave at the least.
FULL_SHARE = 0.5
# Noise, in grey levels, that misplaces keypoints by as much again as SIFT does without: then variances add.
_NOISE_LEVELS = 5.0
# Fewer comparisons cannot be significant at this level even where all agree; more than the last add nothing.
_ORDER_LEVEL, _ORDER_LEAST, _ORDER_MOST = 0.05, 5, 24


def widening(clip: Clip) -> float:
    """By how much the video's own noise widens the error of matches: 1 without noise."""
    with guards.refusals():
        return float(np.hypot(1.0, guards.noise_levels(clip.frames) / _NOISE_LEVELS))


def working_frames(clip: Clip) -> np.ndarray:
    """Grey frames (T, H, W), reduced so that the shorter side is at most `WORKING_SIDE`."""
    height, width = clip.frames.shape[1:3]
    scale = min(1.0, WORKING_SIDE / min(height, width))
    size = (round(width * scale), round(height * scale))
    greys = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames)
    return np.stack([g if scale == 1.0 else cv2.resize(g, size, interpolation=cv2.INTER_AREA) for g in greys])


def pairs_at(clip: Clip, gap_s: float, max_pairs: int) -> list[tuple[int, int]]:
    """Frame pairs `gap_s` seconds apart (at least one frame), evenly spread over the clip."""
    gap = min(max(1, round(gap_s * clip.fps)), len(clip) - 1)
    return [(int(i), int(i) + gap) for i in guards.spread(len(clip) - gap, max_pairs)]


def fit_pairs(
    clip: Clip, *, gaps_s: Sequence[float], threshold_px: float, max_pairs: int, in_order: bool = False
) -> dict[tuple[int, int], TwoView | None]:
    """Two-view models of at most `max_pairs` frame pairs at each gap.

    None for a pair with too few matches, or blurred against the first frame. With `in_order`, frames in no order are
    refused, see `require_order`.

    Raises:
        Unmeasurable: If frames are too few or too small, none has texture, or they are in no order.
    """
    guards.require_frames(clip, 2)
    guards.require_side(clip, MIN_SIDE)
    with guards.refusals():
        frames = working_frames(clip)
        pairs = sorted({pair for gap in gaps_s for pair in pairs_at(clip, gap, max_pairs)})
        found = {i: detect(frames[i]) for i in sorted({i for pair in pairs for i in pair})}
        if max(len(f) for f in found.values()) < MIN_MATCHES:
            raise Unmeasurable("insufficient", f"too little texture: no frame has {MIN_MATCHES} SIFT keypoints")
        if in_order:
            require_order(frames, found, pairs)
        detail = guards.detail_kept(frames)
        fits: dict[tuple[int, int], TwoView | None] = {}
        for a, b in pairs:
            if min(detail[a], detail[b]) < guards.MIN_DETAIL:
                fits[a, b] = None
                continue
            in_a, in_b = match(found[a], found[b])
            fits[a, b] = two_view(found[a].points[in_a], found[b].points[in_b], threshold_px=threshold_px)
    return fits


def require_order(frames: np.ndarray, found: dict[int, Features], pairs: Sequence[tuple[int, int]]) -> None:
    """Refuses frames in no order: there the frames of a pair share as much as each shares with its neighbour in time.

    A camera that moves on loses matches with time. Of each pair two frames or more apart, the matches are compared with
    the mean of its ends' matches with the next frame inside the pair; a sign test asks whether neighbours share more.
    What the pair's frames lack themselves counts on both sides. Pairs whose ends match no neighbour are not compared,
    and with fewer than five comparisons nothing is asked.

    Args:
        frames: uint8 (T, H, W).
        found: Keypoints of the pairs' frames; those of their neighbours are added.
        pairs: Frames a < b.

    Raises:
        Unmeasurable: If neighbours do not share significantly more.
    """
    apart = [(a, b) for a, b in pairs if b - a > 1]
    nearer, compared = 0, 0
    for a, b in (apart[i] for i in guards.spread(len(apart), _ORDER_MOST)):
        for i in (a + 1, b - 1):
            found.setdefault(i, detect(frames[i]))
        far, first, last = (len(match(found[i], found[j])[0]) for i, j in ((a, b), (a, a + 1), (b - 1, b)))
        if min(first, last) < MIN_MATCHES or first + last == 2 * far:
            continue
        compared += 1
        nearer += first + last > 2 * far
    if compared >= _ORDER_LEAST and binomtest(nearer, compared, alternative="greater").pvalue > _ORDER_LEVEL:
        raise Unmeasurable(
            "inapplicable",
            f"frames in no order: in {compared - nearer} of {compared} pairs the frames share more matches with each "
            "other than with their neighbours in time (a shuffled video, or a camera that shakes more than it moves)",
        )


def require_parallax(fits: list[TwoView | None]) -> list[TwoView]:
    """The fits whose pictures moved.

    Raises:
        Unmeasurable: If no pair matches, nothing moves, or a homography explains every pair that moved.
    """
    matched = [fit for fit in fits if fit is not None]
    if not matched:
        raise Unmeasurable("insufficient", f"no pair has {MIN_MATCHES} SIFT matches")
    moving = [fit for fit in matched if fit.motion_px >= STILL_PX]
    if not moving:
        raise Unmeasurable(
            "inapplicable",
            "most matches stand still (a frozen picture, a standing camera, an overlay): nothing is tested",
        )
    if not any(fit.has_parallax for fit in moving):
        raise Unmeasurable(
            "insufficient", "not enough parallax: a homography explains the matches (plane, distant scene or pure turn)"
        )
    return moving


@evaluator(
    "epipolar_magsac",
    suite="geometry",
    unit="share",
    better="higher",
    claims=("frame_wobble",),
    version=4,
)
def epipolar_magsac(
    clip: Clip,
    *,
    gap_s: float = 0.6,
    threshold_px: float = 0.25,
    model_px: float = 1.0,
    max_pairs: int = 24,
) -> Measurement:
    """Share of SIFT matches that one rigid scene and a moving camera explain (MAGSAC), nothing known.

    Pairs lie `gap_s` apart, give or take a frame: what no scene explains grows with time, what SIFT misplaces does not,
    and three gaps give a short clip three times the pairs, each of whose fits has luck of its own. The model is fitted
    with the tolerance `model_px`; a match counts as explained within `threshold_px`, widened by what the video's own
    noise misplaces. Pairs without enough matches, or that lost the first frame's detail, count as 0.
    `normalised` is 1 from `FULL_SHARE` on: above, sharpness decides and not the scene. The Sampson error of *all*
    matches is in the details: the inliers' own error is bounded by the threshold and says nothing. Blind to changes
    that a camera motion could explain (scale drift, ignored actions), and to whatever destroys both views alike. Frames
    of a rigid scene in any order are a rigid scene, and a shuffled clip would compare neighbours that are easier to
    match: where neighbours in time share no more matches than the frames of a pair, there is no value. A room whose
    texture slides is nearly a room seen by another camera, and no claim is made of it: at 256 px and a tenth of the
    camera's speed, nine in ten such clips lie below a true one; below `CLAIMED_SIDE` what is left is within SIFT's own
    errors. `blind_to` in the details says so.

    Args:
        clip: Frames of at least 128 px.
        gap_s: Seconds between the frames of a pair, about.
        threshold_px: Sampson distance up to which a match is explained in a video without noise, in pixels of frames
            reduced to at most 512.
        model_px: Tolerance of the robust fit, same unit.
        max_pairs: At most this many pairs of each gap, evenly spread.
    """
    gaps_s = [gap_s + frames / clip.fps for frames in (-1, 0, 1)]
    fits = fit_pairs(clip, gaps_s=gaps_s, threshold_px=model_px, max_pairs=max_pairs, in_order=True)
    moving = require_parallax(list(fits.values()))
    limit = threshold_px * widening(clip)
    tested = {
        pair: 0.0 if fit is None else float((fit.sampson_px < limit).mean())
        for pair, fit in fits.items()
        if fit is None or (fit.motion_px >= STILL_PX and fit.has_parallax)
    }
    value = float(np.mean(list(tested.values())))
    errors = np.concatenate([fit.sampson_px for fit in moving if fit.has_parallax])
    return Measurement(
        value=value,
        normalised=min(1.0, value / FULL_SHARE),
        uncertainty=standard_error(np.array(list(tested.values()))),
        coverage=len(tested) / len(fits),
        per_frame=frame_means(tested, len(clip)),
        offending=tuple(b for (_, b), share in tested.items() if share < FULL_SHARE / 2),
        details={
            "threshold_px": limit,
            "pairs": len(fits),
            "pairs_unmatched": sum(fit is None for fit in fits.values()),
            "pairs_without_parallax": sum(not fit.has_parallax for fit in moving),
            "matches": int(np.median([len(fit.inliers) for fit in moving])),
            "sampson_all_median_px": float(np.median(errors)),
            "sampson_all_mean_px": float(np.mean(np.minimum(errors, 1e3))),
            "homography_share": float(np.mean([fit.homography_share for fit in moving])),
            "blind_to": _blind_to(min(clip.frames.shape[1:3])),
        },
    )


def _blind_to(side: int) -> str:
    """What a clip of this shorter side hides, in words."""
    if side < CLAIMED_SIDE:
        return f"sliding textures and slight bends: bends show from {CLAIMED_SIDE} px on, the frames have {side}"
    return "part of the textures that slide at less than a third of the camera's speed"
