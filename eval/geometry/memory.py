"""Evaluators of memory: what was seen, lost from view and seen again must be the same."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eval import perceptual
from eval.clip import Clip
from eval.fidelity import psnr, ssim
from eval.geometry import guards
from eval.geometry.depth import View, correspond, sample
from eval.geometry.known_depth import relit, views
from eval.geometry.known_pose import movers
from eval.geometry.pose import check_poses, relative_pose, rotation_angle
from eval.geometry.revisit import changed_levels, loop_consistency, world_stability
from eval.score import Measurement, Unmeasurable, evaluator

# Two views whose overlap is at most this show different places; from `RETURNED` on, the same one.
AWAY, RETURNED = 0.25, 0.5
# Interpolation of a true frame leaves less than this share of the distance between two places.
_RESOLUTION = 0.005
# Perceptual distance takes a network some time: at most so many returns, evenly spread.
_PERCEPTUAL_PAIRS = 8


@dataclass(frozen=True, kw_only=True)
class Revisit:
    """A return to a place.

    Attributes:
        before: Frame that saw the place first.
        after: Frame that sees it again.
        away: Number of frames in between that looked elsewhere.
        elsewhere: One of those frames, the one that overlaps least.
    """

    before: int
    after: int
    away: int
    elsewhere: int


def overlaps(seen: list[View], K: np.ndarray) -> np.ndarray:
    """(T, T) share of the pixels of frame row that frame column sees too, by depth and pose; 1 on the diagonal."""
    stride = max(1, min(seen[0].depth_m.shape) // 32)
    half = stride // 2
    thin = [
        View(
            frame=v.frame[half::stride, half::stride],
            depth_m=v.depth_m[half::stride, half::stride],
            world_from_camera=v.world_from_camera,
        )
        for v in seen
    ]
    # A thinned pixel i stands for the full pixel half + i * stride, whose centre is at half + i * stride + 0.5.
    offset = (half + 0.5) / stride - 0.5
    thin_K = np.array([[1 / stride, 0, -offset], [0, 1 / stride, -offset], [0, 0, 1.0]]) @ K
    share = np.eye(len(seen))
    for i, target in enumerate(thin):
        for j, source in enumerate(thin):
            if i != j:
                # Coarse sampling: a looser test of occlusion than for warping.
                share[i, j] = correspond(target, source, thin_K, tolerance=0.1).visible.mean()
    return share


def find_revisits(overlap: np.ndarray, *, context_frames: int) -> list[Revisit]:
    """Returns to a place after looking away for longer than the context.

    A frame returns to the earlier one that it overlaps most, by at least `RETURNED`, if in between at least
    `context_frames` frames in a row overlapped by at most `AWAY` with that earlier one.

    Args:
        overlap: (T, T), see `overlaps`.
        context_frames: What a model still sees of the past, in frames.
    """
    found = []
    for after in range(len(overlap)):
        candidates = np.flatnonzero(overlap[after, : max(0, after - context_frames)] >= RETURNED)
        for before in candidates[np.argsort(-overlap[after, candidates], kind="stable")]:
            between = np.arange(before + 1, after)
            is_away = overlap[before, between] <= AWAY
            away = _longest_run(is_away)
            if away >= max(1, context_frames):
                least = int(between[is_away][overlap[after, between[is_away]].argmin()])
                found.append(Revisit(before=int(before), after=after, away=away, elsewhere=least))
                break
    return found


@evaluator(
    "revisit",
    suite="geometry",
    unit="share",
    better="higher",
    needs=("depth_m", "world_from_camera", "K"),
    claims=("world_forgotten",),
    version=3,
)
def revisit(clip: Clip, *, context_frames: int = 8) -> Measurement:
    """How much of a place is still the same when the camera returns after looking away for longer than the context.

    The frame from before, warped by depth to the returned viewpoint, is compared with what is seen then, by how far the
    picture differs beyond the video's own noise. 1 is a perfect memory, 0 no more alike than the picture of another
    place of the same clip. The details hold the closure's PSNR, SSIM and, where its network is installed, perceptual
    distance; and the forgetting curve by number of frames looked away, also for the true video where a reference is
    given.

    Args:
        clip: With depth, poses and intrinsics.
        context_frames: Frames that the model under test still sees; only longer absences test memory.
    """
    guards.require_frames(clip, context_frames + 2)
    with guards.refusals():
        seen, K = views(clip)
        found = find_revisits(overlaps(seen, K), context_frames=context_frames)
        if not found:
            raise Unmeasurable("inapplicable", f"the camera never returns after {context_frames} frames elsewhere")
        closures = [c for r in found if (c := close(r, seen, K, clip.frames)) is not None]
        if not closures:
            raise Unmeasurable("insufficient", "too little texture in the places that are seen again")
        noise = guards.noise_levels(clip.frames)
        measured = [(c.visit, *c.distances(noise)) for c in closures]
        visits, distance, null = (list(column) for column in zip(*measured, strict=True))
        if not sum(null) > 0:
            raise Unmeasurable("inapplicable", "the places of the clip do not differ beyond its noise")
        kept = loop_consistency(np.array(distance), np.array(null))
        reference = _in_reference(clip, visits, seen, K)
    per_frame = np.full(len(clip), np.nan)
    for visit, d, n in measured:
        per_frame[visit.after] = 1.0 - d / n if n > 0 else np.nan
    details = {
        "revisits": len(found),
        "revisits_measured": len(measured),
        "distance": kept.distance,
        "null": kept.null,
        **_closeness(*(np.stack([getattr(c, side) for c in closures]) for side in ("after", "predicted"))),
        **forgetting_curve([v.away for v in visits], distance, null, reference),
    }
    value = kept.share
    if reference is not None:
        details["reference_share"] = loop_consistency(*map(np.array, reference)).share
    return Measurement(
        value=value,
        normalised=float(np.clip(value, 0.0, 1.0)),
        uncertainty=None if np.isnan(kept.standard_error) else kept.standard_error,
        coverage=len(measured) / len(found),
        per_frame=per_frame,
        offending=tuple(v.after for v in visits if per_frame[v.after] < 0.5),
        details=details,
    )


@dataclass(frozen=True, kw_only=True)
class Closure:
    """The pictures of a revisit.

    Attributes:
        visit: Which.
        after: uint8 (H, W, 3) the returned frame.
        predicted: uint8 (H, W, 3) the earlier frame, warped to its viewpoint; the returned frame outside the mask.
        elsewhere: uint8 (H, W, 3) a frame of another place.
        mask: (H, W) bool, what both saw, where either has texture.
    """

    visit: Revisit
    after: np.ndarray
    predicted: np.ndarray
    elsewhere: np.ndarray
    mask: np.ndarray

    def distances(self, noise_levels: float) -> tuple[float, float]:
        """Of the returned frame to what the earlier one predicts, and to the picture of elsewhere."""
        there = changed_levels(self.after, self.predicted, noise_levels, self.mask)
        elsewhere = changed_levels(self.after, self.elsewhere, noise_levels, self.mask)
        return max(0.0, there - _RESOLUTION * elsewhere), elsewhere


def close(visit: Revisit, seen: list[View], K: np.ndarray, frames: np.ndarray) -> Closure | None:
    """The pictures of a revisit; None where too little of the place is textured in either picture."""
    found = correspond(seen[visit.after], seen[visit.before], K)
    predicted, after = sample(frames[visit.before], found.pixels), frames[visit.after]
    mask = found.visible & ~relit(seen[visit.after], seen[visit.before], K)
    mask &= guards.textured(after, np.where(found.visible[..., None], predicted, 0))
    if mask.mean() < guards.MIN_TESTED:
        return None
    predicted = np.where(mask[..., None], predicted, after)
    return Closure(visit=visit, after=after, predicted=predicted, elsewhere=frames[visit.elsewhere], mask=mask)


def _closeness(frames: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """How alike frames (P, H, W, 3) are to others, by the customary measures; perceptually where that is installed."""
    found = {"closure_psnr_db": float(psnr(frames, others).mean()), "closure_ssim": float(ssim(frames, others).mean())}
    if perceptual.is_installed() and min(frames.shape[1:3]) >= perceptual.MIN_SIDE_PX:
        few = guards.spread(len(frames), _PERCEPTUAL_PAIRS)
        found["closure_perceptual"] = float(perceptual.perceptual_distance(frames[few], others[few]).mean())
    return found


def forgetting_curve(
    away: list[int],
    distance: list[float],
    null: list[float],
    reference: tuple[list[float], list[float]] | None = None,
) -> dict[str, list[float]]:
    """Share of a place that is kept, by number of frames looked away.

    Args:
        away: (P,) frames looked away.
        distance: (P,) distances of the revisits.
        null: (P,) distances to other places.
        reference: Distances and null distances of the same revisits in the true video, or None.

    Returns:
        `curve_away_frames`, `curve_share` and, with a reference, `curve_reference_share`.
    """
    lengths = sorted(set(away))

    def shares(distance: list[float], null: list[float]) -> list[float]:
        groups = [[i for i, a in enumerate(away) if a == length] for length in lengths]
        return [1.0 - sum(distance[i] for i in g) / max(sum(null[i] for i in g), 1e-9) for g in groups]

    curve = {"curve_away_frames": [float(v) for v in lengths], "curve_share": shares(distance, null)}
    return curve if reference is None else curve | {"curve_reference_share": shares(*reference)}


def _in_reference(
    clip: Clip, visits: list[Revisit], seen: list[View], K: np.ndarray
) -> tuple[list[float], list[float]] | None:
    """Distances and null distances of the same revisits in the true video; None without one of the same size."""
    if clip.reference is None or clip.reference.frames.shape != clip.frames.shape:
        return None
    closures = [close(v, seen, K, clip.reference.frames) for v in visits]
    noise = guards.noise_levels(clip.reference.frames)
    known = [c.distances(noise) for c in closures if c is not None]
    return ([d for d, _ in known], [n for _, n in known]) if len(known) == len(closures) else None


@evaluator(
    "world_stability",
    suite="geometry",
    unit="1",
    better="lower",
    needs=("world_from_camera",),
    claims=("world_forgotten",),
    version=2,
)
def world_stability_score(
    clip: Clip, *, same_m: float = 0.05, same_rad: float = 0.02, away_m: float = 0.5, away_rad: float = 0.3
) -> Measurement:
    """World Stability of the returns to the same pose (arXiv 2503.08122): 0 perfect, 2 the turning point again.

    Distances are mean absolute differences beyond the video's own noise, segmented objects that move aside; with all
    differences, as published, the value is in the details. Over several returns the distances are averaged before the
    ratio is taken.

    Args:
        clip: With poses.
        same_m: Distance up to which a camera counts as returned.
        same_rad: Angle up to which it does.
        away_m: Distance, or
        away_rad: angle, that the turning point must reach.
    """
    guards.require_frames(clip, 3)
    with guards.refusals():
        poses = check_poses(clip.truth["world_from_camera"], num_frames=len(clip))
    triples = list(_closures(poses, same_m, same_rad, away_m, away_rad))
    if not triples:
        raise Unmeasurable("inapplicable", "the camera never returns to a pose that it had left")
    start, _, back = (list(column) for column in zip(*triples, strict=True))
    with guards.refusals():
        noise = guards.noise_levels(clip.frames)
        moving = movers(clip)
    sides = [((a, c), (a, b), (b, c)) for a, b, c in triples]
    d = np.array([[_changed(clip, i, j, noise, moving) for i, j in s] for s in sides])
    plain = np.array([[_difference(clip, i, j) for i, j in s] for s in sides])
    value = float(world_stability(*d.mean(axis=0)))
    if np.isnan(value):
        raise Unmeasurable("inapplicable", "the picture never changes: World Stability is 0/0")
    per_frame = np.full(len(clip), np.nan)
    each = world_stability(*d.T)
    per_frame[back] = each
    return Measurement(
        value=value,
        normalised=float(np.clip(1.0 - value, 0.0, 1.0)),
        coverage=len(triples) / len(clip),
        per_frame=per_frame,
        offending=tuple(c for (_, _, c), ws in zip(triples, each, strict=True) if ws > 0.5),
        details={
            "returns": len(triples),
            "mean_of_ratios": float(np.nanmean(each)),
            "published": float(world_stability(*plain.mean(axis=0))),
            "noise_levels": noise,
            **_closeness(clip.frames[start], clip.frames[back]),
        },
    )


def _closures(
    poses: np.ndarray, same_m: float, same_rad: float, away_m: float, away_rad: float
) -> Iterator[tuple[int, int, int]]:
    """Start, turning point and return of every frame that comes back to an earlier pose (the earliest such)."""
    for after in range(2, len(poses)):
        motion = relative_pose(poses[:after], poses[after])
        distance, angle = np.linalg.norm(motion[:, :3, 3], axis=1), rotation_angle(motion[:, :3, :3])
        for before in np.flatnonzero((distance <= same_m) & (angle <= same_rad)):
            left = np.maximum(distance[before:after] / away_m, angle[before:after] / away_rad)
            if left.max() >= 1.0:
                yield int(before), int(before + left.argmax()), after
                break


def _changed(clip: Clip, a: int, b: int, noise_levels: float, moving: np.ndarray | None) -> float:
    """What differs between two frames beyond noise, moving objects aside."""
    still = None if moving is None or (moving[a] | moving[b]).all() else ~(moving[a] | moving[b])
    return changed_levels(clip.frames[a], clip.frames[b], noise_levels, still)


def _difference(clip: Clip, a: int, b: int) -> float:
    return float(np.abs(clip.frames[a].astype(np.int16) - clip.frames[b]).mean()) / 255.0


def _longest_run(flags: np.ndarray) -> int:
    best = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        best = max(best, run)
    return best
