"""Evaluators for clips whose camera is known and depth is not: does any depth map explain the frames?"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from eval.clip import Clip
from eval.geometry import guards
from eval.geometry.convention import Misfit, require_convention
from eval.geometry.depth import flow_margin_px
from eval.geometry.known_depth import MAX_MARGIN_PX, STILL_PX, frame_means
from eval.geometry.lighting import Ball, may_be_shaded, moves
from eval.geometry.planesweep import Explained, Neighbour, explain, hidden, hypotheses
from eval.geometry.pose import (
    check_intrinsics,
    check_poses,
    relative_pose,
    rotation_angle,
    unproject,
)
from eval.score import Measurement, Unmeasurable, evaluator
from eval.uncertainty import standard_error

# Larger frames are reduced to this shorter side: the residual is measured in 256ths of the picture anyway.
SWEEP_SIDE = 128
# A frame is named as offending from this share on: without depth, true renders reach three quarters of it.
OFFENDING_SHARE = 0.2
# Depth edges over more of the picture than this are no scene's: they excuse nothing.
MAX_EDGES = 1 / 3
# A camera that turns less than this tells nothing of the scale of its way.
MIN_TURN_RAD = np.radians(2.0)


@dataclass(frozen=True, kw_only=True)
class Swept:
    """One (target, source) pair of a plane sweep.

    Attributes:
        target: Frame index.
        source: Frame index.
        residual_px: (H, W) flow that no depth explains, pixels at a shorter side of 256.
        tested: (H, W) bool.
        margin_px: (H, W) by how much noise may have moved the flow.
    """

    target: int
    source: int
    residual_px: np.ndarray
    tested: np.ndarray
    margin_px: np.ndarray

    def share_above(self, threshold_px: float) -> float:
        """Share of the tested pixels above the threshold by more than noise explains."""
        limit = threshold_px + np.minimum(self.margin_px, MAX_MARGIN_PX)
        return float((self.residual_px > limit)[self.tested].mean())


def sweep_clip(
    frames: np.ndarray,
    world_from_camera: np.ndarray,
    K: np.ndarray,
    *,
    offsets: tuple[int, ...] = (1, 2),
    near_m: float = 0.25,
    far_m: float = 12.0,
    planes: int = 48,
    left_out: np.ndarray | None = None,
    light: Sequence[Sequence[Ball]] | None = None,
) -> Iterator[Swept]:
    """Sweeps every frame against its neighbours on both sides; memory does not grow with the clip.

    Args:
        frames: uint8 (T, H, W, 3).
        world_from_camera: (T, 4, 4).
        K: (3, 3), pixels.
        offsets: Distances of the neighbours in frames.
        near_m: Nearest depth that the scene may have.
        far_m: Farthest.
        planes: Number of hypotheses between them.
        left_out: (T, H, W) bool, pixels of moving objects, or None.
        light: The moving objects of each frame, whose shadows may fall on what the sweep finds below them, or None.

    Yields:
        One `Swept` a pair, in order of the target.

    Raises:
        MeasureError: On an empty depth range.
    """
    inverse_depths = hypotheses(near_m, far_m, planes)
    found: dict[int, tuple[list[tuple[int, Neighbour]], Explained]] = {}
    reach = max(offsets)
    needed = guards.least_texture(frames)

    def solve(target: int) -> None:
        around = [target + sign * offset for offset in offsets for sign in (-1, 1)]
        near = [
            (
                j,
                Neighbour(
                    frame=frames[j], source_from_target=relative_pose(world_from_camera[target], world_from_camera[j])
                ),
            )
            for j in sorted(around)
            if 0 <= j < len(frames)
        ]
        found[target] = near, explain(frames[target], [n for _, n in near], K, inverse_depths)

    for target in range(len(frames)):
        for ahead in range(target, min(target + reach, len(frames) - 1) + 1):
            if ahead not in found:
                solve(ahead)
        neighbours, explained = found[target]
        energy = guards.texture_energy(frames[target])
        for index, (source, neighbour) in enumerate(neighbours):
            tested = explained.inside[index] & (energy > needed)
            tested &= ~hidden(explained, index, neighbour, found[source][1].inverse_depth, K)
            if left_out is not None:
                tested &= ~left_out[target]
            edge = explained.edge[index]
            # A scene has few depth edges; a depth map that is all edges has explained nothing, and excuses nothing.
            if edge.mean() <= MAX_EDGES:
                tested &= ~edge
            if light is not None:
                tested &= ~_shaded(explained, world_from_camera[target], K, [*light[target], *light[source]])
            yield Swept(
                target=target,
                source=source,
                residual_px=explained.residual_px[index],
                tested=tested,
                margin_px=flow_margin_px(float(explained.noise_levels[index]), energy),
            )
        found.pop(target - reach, None)


def _shaded(explained: Explained, pose: np.ndarray, K: np.ndarray, balls: Sequence[Ball]) -> np.ndarray:
    """Where, at the found depth, moving objects may change the light: (H, W) bool."""
    points = pose[:3, :3] @ unproject(1.0 / explained.inverse_depth, K) + pose[:3, 3:]
    return may_be_shaded(points, np.zeros(points.shape[1], int), balls).reshape(explained.inverse_depth.shape)


def movers_in_space(clip: Clip, poses: np.ndarray, K: np.ndarray) -> list[list[Ball]] | None:
    """Spheres around the moving objects of each frame, without depth; None where nothing is known to move.

    The place is `world_from_object`'s; the size follows from the largest extent that any frame shows, at that distance.
    """
    segmentation, objects = clip.truth.get("segmentation"), clip.truth.get("world_from_object")
    if segmentation is None or objects is None:
        return None
    balls: list[list[Ball]] = [[] for _ in poses]
    for slot in np.flatnonzero(moves(objects)):
        centres = objects[:, slot, :3, 3]
        depth_m = np.einsum("ti,ti->t", poses[:, :3, 2], centres - poses[:, :3, 3])
        extent_px = np.array([_extent(s == slot + 1) for s in segmentation])
        radius_m = float((extent_px * depth_m / (2.0 * K[0, 0]))[depth_m > 0].max(initial=0.0))
        if radius_m > 0 and np.isfinite(centres).all():
            for t, centre in enumerate(centres):
                balls[t].append(Ball(int(slot) + 1, centre, radius_m))
    return balls if any(balls) else None


def _extent(mask: np.ndarray) -> float:
    """Diagonal of the box around a mask, pixels; 0 for an empty one."""
    rows, columns = np.nonzero(mask)
    return float(np.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1)) if len(rows) else 0.0


def movers(clip: Clip) -> np.ndarray | None:
    """Pixels (T, H, W) of objects that move, or of all segmented objects if their motion is unknown; None without any.

    One pixel around them belongs to them too: edges are mixtures.
    """
    segmentation = clip.truth.get("segmentation")
    if segmentation is None:
        return None
    objects = clip.truth.get("world_from_object")
    moving = segmentation > 0
    if objects is not None:
        moves = np.abs(np.diff(objects, axis=0, prepend=objects[:1])).max(axis=(0, 2, 3)) > 1e-3
        moving = np.isin(segmentation, 1 + np.flatnonzero(moves))
    return np.stack([cv2.dilate(m.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0 for m in moving])


@evaluator(
    "plane_sweep",
    suite="geometry",
    unit="share",
    better="lower",
    needs=("world_from_camera", "K"),
    claims=("camera_wobble", "texture_swim_room", "scale_drift", "ignored_turns"),
    version=3,
)
def plane_sweep(
    clip: Clip,
    *,
    threshold_px: float = 0.25,
    offsets: tuple[int, ...] = (1, 2),
    near_m: float = 0.25,
    far_m: float = 12.0,
    planes: int = 48,
) -> Measurement:
    """Share of pixels that no depth map explains under the commanded camera; depth need not be known.

    For each frame the depth map is sought under which its neighbours, warped by the commanded motion, land on it; what
    still moves by more than `threshold_px` counts; patches across depth edges are no evidence. Weaker than
    `residual_flow`: errors that look like another depth pass. Above all, a camera that never turns and obeys in part
    sees what a larger world would show: the details then say so under `blind_to`. Moving objects, and what they may
    shade, are left out where `segmentation` and `world_from_object` name them.

    Args:
        clip: With poses and intrinsics.
        threshold_px: Unexplained flow beyond the margin of noise that counts, in pixels at a shorter side of 256.
        offsets: Distances of the neighbours in frames, taken on both sides.
        near_m: Nearest depth that is believed.
        far_m: Farthest depth that is believed: without a limit a frozen picture passes as a distant world.
        planes: Number of depth hypotheses.
    """
    guards.require_frames(clip, 3)
    with guards.refusals():
        poses = check_poses(clip.truth["world_from_camera"], num_frames=len(clip))
        K = check_intrinsics(clip.truth["K"])
        frames, K, left_out = _reduced(clip, K)
        if commanded_px(poses, K, frames.shape[1:3], max(offsets), np.sqrt(near_m * far_m)) < STILL_PX:
            raise Unmeasurable("inapplicable", "the commanded camera stands still: a frozen picture would pass")
        light = movers_in_space(clip, poses, check_intrinsics(clip.truth["K"]))
        asked = {"offsets": offsets, "near_m": near_m, "far_m": far_m, "planes": planes}
        swept = sweep_clip(frames, poses, K, left_out=left_out, light=light, **asked)
        shares, tested, pairs = _tally(swept, threshold_px)
        if not shares:
            raise Unmeasurable(
                "insufficient", "too little overlap, or too little texture for its noise, to compare frames"
            )
        per_frame = frame_means(shares, len(clip))
        value = float(np.mean(list(shares.values())))

        def misfit(read: np.ndarray) -> Misfit:
            few = slice(0, 2 * max(offsets) + 4)
            swept = sweep_clip(frames[few], read[few], K, **asked)
            shares, _, pairs = _tally(swept, threshold_px)
            motion = commanded_px(read[few], K, frames.shape[1:3], 1, np.sqrt(near_m * far_m))
            return Misfit.of([(share, motion) for share in shares.values()], pairs=pairs)

        require_convention(poses, value, misfit)
    turn = float(rotation_angle(poses[0, :3, :3].T @ poses[:, :3, :3]).max())
    blind = {} if turn > MIN_TURN_RAD else {"blind_to": "speed: a slower camera would see the same in a larger world"}
    return Measurement(
        value=value,
        normalised=1.0 - value,
        uncertainty=standard_error(per_frame),
        coverage=tested / pairs,
        per_frame=per_frame,
        offending=tuple(int(i) for i in np.flatnonzero(per_frame > OFFENDING_SHARE)),
        details={"pairs": pairs, "pairs_measured": len(shares), "turn_deg": float(np.degrees(turn)), **blind},
    )


def _tally(swept: Iterable[Swept], threshold_px: float) -> tuple[dict[tuple[int, int], float], float, int]:
    """Share above the threshold of each pair with enough tested pixels, sum of tested shares, number of all pairs."""
    shares: dict[tuple[int, int], float] = {}
    tested, pairs = 0.0, 0
    for one in swept:
        pairs += 1
        if one.tested.mean() >= guards.MIN_TESTED:
            shares[one.source, one.target] = one.share_above(threshold_px)
            tested += float(one.tested.mean())
    return shares, tested, pairs


def commanded_px(poses: np.ndarray, K: np.ndarray, size: tuple[int, ...], gap: int, depth_m: float) -> float:
    """Largest mean motion, over pairs `gap` apart, of the picture's centre and corners at one depth; 256 px a side."""
    height, width = size
    gap = min(gap, len(poses) - 1)
    corners = np.array([[0.5, 0.5, 1], [0.25, 0.25, 1], [0.75, 0.25, 1], [0.25, 0.75, 1], [0.75, 0.75, 1]])
    pixels = (corners * [width, height, 1]).T
    points = np.linalg.inv(K) @ pixels * depth_m
    b_from_a = relative_pose(poses[:-gap], poses[gap:])
    moved = K @ (b_from_a[:, :3, :3] @ points + b_from_a[:, :3, 3:])
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.linalg.norm(moved[:, :2] / moved[:, 2:] - pixels[:2], axis=1)
    shift = np.where(moved[:, 2] > 0, shift, np.inf)
    return float(shift.mean(axis=1).max()) * 256.0 / min(height, width)


def _reduced(clip: Clip, K: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Frames, intrinsics and mask of movers at a shorter side of at most `SWEEP_SIDE`."""
    height, width = clip.frames.shape[1:3]
    left_out = movers(clip)
    scale = SWEEP_SIDE / min(height, width)
    if scale >= 1.0:
        return clip.frames, K, left_out
    size = (round(width * scale), round(height * scale))
    frames = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in clip.frames])
    K = np.diag([size[0] / width, size[1] / height, 1.0]) @ K
    if left_out is not None:
        left_out = np.stack([cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0 for m in left_out])
    return frames, K, left_out
