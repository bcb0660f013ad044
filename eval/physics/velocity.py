"""Velocity error against the true video, in the manner of PhyWorld, for any still camera and any coloured bodies."""

import numpy as np

from eval.clip import Clip
from eval.fidelity import evidence, paired
from eval.physics.phyworld_tracking import MISSING_SPEED, WORLD_SIZE
from eval.physics.tracks import Tracks, track
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error

# Objects whose colours are nearer than this, in grey levels, are followed together, by their common centroid.
SAME_COLOUR_LEVELS = 48.0
# A pixel must be covered by this share of a body to count; less is noise.
FAINT_SHARE = 0.15
# Below this share of its true area a body is missing; and it is not judged where the truth itself hides it so far.
MISSING_SHARE = 0.25
# Sides of the frame per second that a missing body is charged at least: PhyWorld's highest training speed.
CHARGE_PER_S = MISSING_SPEED / WORLD_SIZE
# Speed in sides per second below which a true video is taken as motionless.
STILL_PER_S = 1e-3


@evaluator(
    "velocity_error", suite="fidelity", unit="side/s", better="lower", needs=("reference",), claims=("late", "impulse")
)
def velocity_error(clip: Clip, *, context: int = 1) -> Measurement:
    """Mean error of the bodies' velocities, in shorter sides of the frame per second.

    Bodies are found in the reference (from its segmentation where given), then followed by colour in both videos with
    one and the same tracker, so that its bias cancels. A body that is missing in a frame is charged its true speed, but
    at least 0.4. `details["floor"]` is the tracker's own error on the reference, `details["relative"]` the error over
    it; normalised: 1 - error / error of a video that stands still.
    """
    frames, reference = paired(clip, context)
    assert clip.reference is not None
    truth = track(clip.reference)
    if truth.scale != 1:
        raise Unmeasurable("failed", f"frames larger than the tracker takes, by {truth.scale}")
    groups, colours = _groups(truth)
    ground = _ground(reference, truth.labels)
    (true_xy, true_area), (xy, area) = (_follow(v, ground, colours) for v in (reference, frames))
    side = min(reference.shape[1:3])
    # Where the truth shows the body, and where this video does.
    judged = true_area >= np.maximum(MISSING_SHARE * true_area.max(axis=0), 1.0)
    shown = area >= MISSING_SHARE * true_area
    pairs = judged[1:] & judged[:-1]
    # The pair that leads from the last given frame to the first predicted one is a prediction.
    first = max(context - 1, 0)
    pairs[:first] = False
    if not pairs.any():
        raise Unmeasurable("inapplicable", "no body is visible in two predicted frames that follow each other")
    scale = clip.fps / side
    true_velocity, velocity = np.diff(true_xy, axis=0) * scale, np.diff(xy, axis=0) * scale
    speed = np.linalg.norm(true_velocity, axis=-1)
    if speed[pairs].mean() < STILL_PER_S:
        raise Unmeasurable("inapplicable", "the true bodies do not move")
    error = np.linalg.norm(velocity - true_velocity, axis=-1)
    error = np.where(shown[1:] & shown[:-1], error, np.maximum(speed, CHARGE_PER_S))
    value = float(error[pairs].mean())
    per_frame = np.full(len(clip), np.nan)
    counted = pairs.sum(axis=1)
    per_frame[1:] = np.divide(
        (error * pairs).sum(axis=1), counted, out=np.full(len(counted), np.nan), where=counted > 0
    )
    lost = judged & ~shown
    floor = _floor(truth, groups, true_xy, pairs, scale)
    return Measurement(
        value=value,
        normalised=max(0.0, 1.0 - value / float(speed[pairs].mean())),
        uncertainty=standard_error(evidence(per_frame, 1)),
        coverage=float(pairs.sum() / pairs[first:].size),
        per_frame=per_frame,
        offending=tuple((np.flatnonzero(lost[context:].any(axis=1)) + context).tolist()),
        details={
            "floor": floor,
            "relative": value / floor if floor > 0 else float("nan"),
            "missing": float(lost[context:].sum() / max(judged[context:].sum(), 1)),
            "followed_together": [len(g) for g in groups],
        },
    )


def _groups(truth: Tracks) -> tuple[list[list[int]], np.ndarray]:
    """Objects by colour, and the groups' colours (K, 3); an object whose colour cannot be read is left out."""
    with np.errstate(invalid="ignore"):
        readable = [k for k in range(len(truth)) if not np.isnan(truth.colour[:, k]).all()]
    groups: list[list[int]] = []
    colours: list[np.ndarray] = []
    for k in readable:
        colour = np.nanmedian(truth.colour[:, k], axis=0)
        near = [i for i, other in enumerate(colours) if np.linalg.norm(colour - other) < SAME_COLOUR_LEVELS]
        if near:
            groups[near[0]].append(k)
        else:
            groups.append([k])
            colours.append(colour)
    if not groups:
        raise Unmeasurable("insufficient", "no object is large enough for its colour to be read")
    return groups, np.array(colours)


def _ground(reference: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(H, W, 3) what lies behind the bodies: the median over the frames in which none is there."""
    free = np.where((labels > 0)[..., None], np.nan, reference.astype(np.float32))
    hidden = np.isnan(free[..., 0]).all(axis=0)
    free[:, hidden] = reference[:, hidden]
    return np.nanmedian(free, axis=0).astype(np.float64)


def _follow(frames: np.ndarray, ground: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centroids (T, K, 2) in pixels and areas (T, K) of bodies of given colours before a ground."""
    height, width = frames.shape[1:3]
    grid = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    tints = colours[:, None, None] - ground
    power = np.maximum(np.sum(tints**2, axis=-1), 1.0)
    centroid, area = np.full((len(frames), len(colours), 2), np.nan), np.zeros((len(frames), len(colours)))
    for t, frame in enumerate(frames):
        along = np.einsum("khwc,hwc->khw", tints, frame - ground)
        share = np.clip(along / power, 0.0, 1.0)
        residual = share * (share * power - 2 * along)
        share = np.where((residual == residual.min(axis=0)) & (share > FAINT_SHARE), share, 0.0)
        area[t] = share.sum(axis=(1, 2))
        seen = area[t] > 0
        centroid[t, seen] = np.einsum("khw,hwc->kc", share[seen], grid) / area[t, seen, None]
    return centroid, area


def _floor(truth: Tracks, groups: list[list[int]], true_xy: np.ndarray, pairs: np.ndarray, scale: float) -> float:
    """Mean velocity error of the colour tracker against the tracks of the reference, over objects followed alone."""
    errors = []
    for column, members in enumerate(groups):
        if len(members) == 1:
            whole = truth.whole[:, members[0]]
            at = pairs[:, column] & whole[1:] & whole[:-1]
            difference = np.diff(true_xy[:, column] - truth.centroid_px[:, members[0]], axis=0)[at]
            errors.append(np.linalg.norm(difference, axis=-1) * scale)
    pooled = np.concatenate(errors) if errors else np.empty(0)
    return float(pooled.mean()) if len(pooled) else float("nan")
