"""Cases for `worldsim validate --world room`: planted violations of geometry, nuisances, degenerate clips, by size.

Evaluators are given all truth and take from it what they need. Cards are decided at the size for which an evaluator is
made: 64 pixels where depth or camera are known, 256 where sparse matching finds the geometry.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import replace

import cv2
import numpy as np

from envs.room.violations import RECIPES, pair
from envs.violations import PIXEL_NUISANCES, Record, nuisance
from eval import Clip
from eval.validity import Case, Variant, degenerate
from worldsim.cli.planted import NUISANCE_LEVEL, SEVERITIES, Job

SIZES = (128, 256)
"""Sizes beside the one that was asked for; matching is judged at the largest."""
OTHER_SIZES, FOR_MATCHING = 0.5, 1.5
"""Seeds at the other sizes over those at the first; and at the largest for matching, which some clips do not allow."""

LARGEST_SHOWS = ("frame_wobble", "camera_wobble", "texture_swim_room")
"""Violations at the largest size: what matching claims, and what it is blind to."""

MATCHING = ("tsed", "epipolar_magsac", "sfm")
MEMORY = ("revisit", "world_stability", "object_permanence")
RETURNING = "returning"
"""What is planted, and nuisances, on clips that look away and return: the only ones that test memory."""
FRAMES, LARGE_FRAMES, LOOK_AWAY_FRAMES = 16, 9, 32
WOBBLE = 0.02
"""Of the frame's side, the standard deviation of `frame_wobble` at severity 1."""

TRUTH = ("depth_m", "segmentation", "world_from_camera", "K", "world_from_object")


def deciding_mode(evaluator: str, size: int) -> str:
    """The mode in which an evaluator's claims are judged."""
    return mode_of(max(SIZES) if evaluator in MATCHING else size, returning=evaluator in MEMORY)


def mode_of(size: int, *, returning: bool = False) -> str:
    """How cards name a size, and clips that look away and return."""
    return f"{size} px, {RETURNING}" if returning else f"{size} px"


def mode(job: Job) -> str:
    """The mode of a job's case."""
    return mode_of(job.size, returning=job.name in ("world_forgotten", RETURNING))


def jobs(*, pairs: int, size: int, first_seed: int, evaluators: Collection[str]) -> list[Job]:
    """`pairs` seeds of each violation and of the nuisances at the evaluators' size, others at the other sizes.

    Looking away takes many frames and is measured at the first size alone; the largest shows what matching is for.
    """
    names = [n for n in (*RECIPES, *EXTRA) if n not in ("impossible_support", "world_forgotten")]
    planned = []
    if any(e in MEMORY for e in evaluators):
        kinds = (("violation", "world_forgotten"), ("nuisance", RETURNING))
        planned += [Job("room", kind, name, first_seed + s, size) for kind, name in kinds for s in range(pairs)]
    matching = any(e in MATCHING for e in evaluators)
    others = any(e not in (*MEMORY, *MATCHING) for e in evaluators)
    for side in (size, *(s for s in SIZES if s != size)) if matching or others else ():
        if side not in SIZES and not others:
            continue
        share = 1.0 if side == size else FOR_MATCHING if matching and side == max(SIZES) else OTHER_SIZES
        seeds = range(first_seed, first_seed + math.ceil(pairs * share))
        shown = names if others and side != max(SIZES) else LARGEST_SHOWS
        planned += [Job("room", "violation", n, s, side) for n in shown for s in seeds]
        planned += [Job("room", "nuisance", "", s, side) for s in seeds]
    return planned


def build(job: Job) -> list[Case]:
    """The case of a job."""
    if job.kind == "violation":
        made = [(s, *_pair(job, s)) for s in SEVERITIES]
        variants = [
            Variant(kind="violation", name=job.name, severity=s, clip=_clip(violated)) for s, _, violated in made
        ]
        return [Case(mode=mode(job), seed=job.seed, lawful=_clip(made[0][1]), variants=tuple(variants))]
    lawful = _lawful(job)
    clip = _clip(lawful)
    changed = [*_nuisances(job, lawful), *degenerate(clip, np.random.default_rng(job.seed))]
    return [Case(mode=mode(job), seed=job.seed, lawful=clip, variants=tuple(_with_truth(v, clip) for v in changed))]


def _pair(job: Job, severity: float) -> tuple[Record, Record]:
    size = (job.size, job.size)
    if job.name in EXTRA:
        return EXTRA[job.name](job.seed, severity, size)
    frames = LOOK_AWAY_FRAMES if job.name == "world_forgotten" else _frames(job.size)
    return pair(job.name, job.seed, severity, size=size, num_frames=frames)


def _lawful(job: Job, motion: str = "rest") -> Record:
    """A lawful recording; the look away is long enough to leave the view."""
    path = "look_away" if job.name == RETURNING else ("dolly", "orbit")[job.seed % 2]
    frames = LOOK_AWAY_FRAMES if path == "look_away" else _frames(job.size)
    env = {"factors": {"motion": motion}}
    return pair(
        "camera_wobble", job.seed, 0.0, size=(job.size, job.size), num_frames=frames, camera_path=path, env=env
    )[0]


def _frames(size: int) -> int:
    return LARGE_FRAMES if size in SIZES else FRAMES


def _nuisances(job: Job, lawful: Record) -> list[Variant]:
    rng = np.random.default_rng(job.seed)
    changed = {n: nuisance(n, lawful, NUISANCE_LEVEL, rng) for n in (*PIXEL_NUISANCES, "start_offset")}
    # Solids that fall and roll: their motion is known, and must be followed or masked.
    changed["movers"] = _lawful(job, motion="mixed")
    return [
        Variant(kind="nuisance", name=name, severity=NUISANCE_LEVEL, clip=_clip(record))
        for name, record in changed.items()
    ]


def _with_truth(variant: Variant, lawful: Clip) -> Variant:
    """Degenerate clips keep the commanded segmentation too: here it is no evidence but a command."""
    if variant.kind != "degenerate":
        return variant
    return replace(variant, clip=replace(variant.clip, truth=lawful.truth))


def _clip(record: Record) -> Clip:
    truth = {k: np.asarray(record.truth[k]) for k in TRUTH}
    return Clip(frames=record.frames, fps=record.fps, truth=truth, actions=record.actions, text=record.text)


# --- violations of the picture, whatever the world --------------------------------------------------------------------


def frame_wobble(seed: int, severity: float, size: tuple[int, int]) -> tuple[Record, Record]:
    """Every frame after the first is bent by a smooth field of its own: no rigid scene explains the video."""
    lawful, _ = pair(
        "camera_wobble", seed, 0.0, size=size, num_frames=_frames(min(size)), camera_path=("dolly", "orbit")[seed % 2]
    )
    rng = np.random.default_rng(seed)
    bent = [lawful.frames[0]]
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    for frame in lawful.frames[1:]:
        knots = rng.normal(0.0, WOBBLE * min(size), (6, 6, 2)).astype(np.float32) * np.float32(severity)
        field = cv2.resize(knots, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
        bent.append(
            cv2.remap(frame, x + field[..., 0], y + field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        )
    return lawful, replace(lawful, frames=np.stack(bent), onset=1, name="frame_wobble", severity=severity)


def ignored_turns(seed: int, severity: float, size: tuple[int, int]) -> tuple[Record, Record]:
    """Ignored actions on paths that turn: on straight ones, a slower camera sees what a larger world would show."""
    path = ("orbit", "look_away")[seed % 2]
    return pair("ignored_actions", seed, severity, size=size, num_frames=_frames(min(size)), camera_path=path)


EXTRA: dict[str, Callable[[int, float, tuple[int, int]], tuple[Record, Record]]] = {
    "frame_wobble": frame_wobble,
    "ignored_turns": ignored_turns,
}
