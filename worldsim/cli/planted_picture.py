"""Cases for the cards of quality and fidelity: planted defects of the picture, and departures from the true video.

None of this breaks a law; the cards say that each measure sees what it claims to see, how that grows with severity, and
what harmless changes it ignores. Each measure has cases of its own: a mode of its name decides its card. The mode
"beyond" shows what it was not made for: cameras that turn or circle faster than optical flow can follow, and changes of
the picture that do change what it measures.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from envs.room.violations import pair as room_pair
from envs.violations import NUISANCES, Record, makers, nuisance, pair
from eval import Clip
from eval.validity import Case, Variant, degenerate
from worldsim.cli.planted import NUISANCE_LEVEL, SEVERITIES, coded

ROOM_FRAMES = 24
# Sizes of the defects are given at this side and grow with the frames.
SIDE_PX = 64

Planter = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Job:
    """One seed of one measure.

    Attributes:
        evaluator: Whose card.
        seed: Of the scene.
        size: Side of the frames in pixels.
        fast: Whether the camera moves faster than optical flow can follow.
    """

    evaluator: str
    seed: int
    size: int
    fast: bool = False


def jobs(evaluator: str, *, pairs: int, size: int, first_seed: int) -> list[Job]:
    """`pairs` seeds of a measure, half in Bounce and half in Room with a gliding camera; then some with a fast one."""
    planned = [Job(evaluator, first_seed + s, size) for s in range(pairs)]
    if evaluator in DEFECTS:
        planned += [Job(evaluator, first_seed + s, size, fast=True) for s in range(-(-pairs // 3))]
    return planned


def build(job: Job) -> list[Case]:
    """The cases of a job."""
    return _fidelity_cases(job) if job.evaluator in DEPARTURES else _quality_cases(job)


PARITY: Mapping[str, str] = {
    "ssim": "equal to the definition, window by window (tests/eval/test_fidelity.py)",
    "perceptual": "equal to the published network to 1e-5 (tests/eval/test_perceptual.py)",
    "physics_iq_agreement": "masks and metrics equal the published code's (tests/eval/test_physics_iq.py)",
    "velocity_error": "its model, PhyWorld's error, equals the published code (tests/eval/test_phyworld.py)",
}
"""How far measures agree with published ones."""


# --- defects of the picture -------------------------------------------------------------------------------------------


def alternation(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Brightness goes up and down from frame to frame by 10 levels times the severity."""
    sign = (-1.0) ** (np.arange(len(frames)) + rng.integers(2))
    return _levels(frames + 10.0 * severity * sign[:, None, None, None])


def softening(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001 - one form
    """Gaussian blur of 3 pixels times the severity, on frames of 64."""
    sigma = 3.0 * severity * frames.shape[1] / SIDE_PX
    return np.stack([cv2.GaussianBlur(f, (0, 0), sigma) for f in frames])


def stutter(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """The picture hangs for one to three frames and catches up; half of the severity is the share of such frames."""
    made, taken, total = frames.copy(), np.zeros(len(frames), bool), 0
    for start in rng.permutation(np.arange(2, len(frames) - 4)):
        length = int(rng.integers(1, 4))
        if total < 0.5 * severity * len(frames) and not taken[start - 2 : start + length + 2].any():
            made[start : start + length] = frames[start - 1]
            taken[start : start + length] = True
            total += length
    return made


def jitter(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Every frame is shifted by itself; standard deviation 6 pixels times the severity, on frames of 64."""
    size = frames.shape[2], frames.shape[1]
    made = []
    for frame, shift in zip(frames, rng.normal(0.0, 6.0 * severity * size[1] / SIDE_PX, (len(frames), 2)), strict=True):
        matrix = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
        made.append(cv2.warpAffine(frame, matrix, size, borderMode=cv2.BORDER_REFLECT))
    return np.stack(made)


def swapped(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Neighbouring frames change places; at severity 1 three frames in four."""
    made, slots = frames.copy(), np.arange(1, len(frames) - 2, 3)
    for t in rng.choice(slots, size=max(1, round(severity * len(slots))), replace=False):
        made[[t, t + 1]] = frames[[t + 1, t]]
    return made


def grain(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Every frame gets a fresh texture of 2 pixels; standard deviation 40 levels times the severity."""
    count, height, width, _ = frames.shape
    cells = rng.normal(0.0, 40.0 * severity, (count, -(-height // 2), -(-width // 2)))
    texture = cells.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]
    return _levels(frames + texture[..., None])


DEFECTS: Mapping[str, Mapping[str, Planter]] = {
    "flicker": {"alternation": alternation},
    "blur": {"softening": softening},
    "freeze": {"stutter": stutter},
    "mid_frame": {"jitter": jitter, "swapped": swapped},
    "warping": {"grain": grain},
}
"""What each measure of quality claims to see."""

CHANGES: Mapping[str, tuple[str, ...]] = {
    "flicker": (),
    # Noise and blocks are fine detail, and so is its loss.
    "blur": ("noise", "compression", "codec"),
    "freeze": (),
    # Noise cannot be predicted; at half the rate bodies move twice as far from frame to frame.
    "mid_frame": ("noise", "compression", "frame_rate"),
    "warping": ("noise", "compression", "frame_rate"),
}
"""Harmless changes that do change what a measure measures: shown on its card, and not held against it."""


def _quality_cases(job: Job) -> list[Case]:
    lawful = _lawful(job)
    rng = np.random.default_rng(job.seed)
    changed = {n: nuisance(n, lawful, NUISANCE_LEVEL, rng) for n in NUISANCES}
    changed["codec"] = coded(lawful)
    changed["size"] = _lawful(replace(job, size=2 * job.size))
    planted = [
        Variant(
            kind="violation", name=name, severity=s, clip=_clip(replace(lawful, frames=plant(lawful.frames, s, rng)))
        )
        for name, plant in DEFECTS[job.evaluator].items()
        for s in SEVERITIES
    ]
    if job.fast:
        return [_case(job, "beyond", lawful, planted)]
    variants = {
        n: Variant(kind="nuisance", name=n, severity=NUISANCE_LEVEL, clip=_clip(record))
        for n, record in changed.items()
    }
    beyond = [variants.pop(n) for n in CHANGES[job.evaluator]]
    still = [v for v in degenerate(_clip(lawful), rng) if v.name == "static"]
    cases = [_case(job, job.evaluator, lawful, [*planted, *variants.values(), *still])]
    return [*cases, _case(job, "beyond", lawful, beyond)] if beyond else cases


# --- departures from the true video -----------------------------------------------------------------------------------


def late(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001 - one form
    """The same, later: by 6 frames times the severity, at least by one."""
    lag = max(1, round(6.0 * severity))
    return frames[np.maximum(np.arange(len(frames)) - lag, 0)]


def fading(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001 - one form
    """What moves fades into what is usually there, from nothing at the start to the severity in the middle."""
    share = severity * np.minimum(np.arange(len(frames)) / (0.5 * len(frames)), 1.0)[:, None, None, None]
    return _levels((1.0 - share) * frames + share * np.median(frames, axis=0))


PICTURE = ("late", "softening", "grain")
DEPARTURES: Mapping[str, tuple[str, ...]] = {
    "psnr": (*PICTURE, "fading"),
    "ssim": PICTURE,
    "perceptual": PICTURE,
    "divergence_horizon": ("impulse",),
    "physics_iq_agreement": ("late", "impulse"),
    "velocity_error": ("late", "impulse"),
}
"""What each measure of fidelity claims to see; "impulse" is Bounce's violation, judged against the lawful video."""

ALTERED = {"late": late, "fading": fading, "softening": softening, "grain": grain}
FIDELITY_CHANGES: Mapping[str, tuple[str, ...]] = {
    # Noise and blocks differ in either video; in larger frames edges are a smaller share.
    **dict.fromkeys(("psnr", "ssim", "perceptual"), ("noise", "compression", "size")),
    # A video that never leaves the truth scores its length, and these shorten it.
    "divergence_horizon": ("frame_rate", "start_offset"),
}
"""As `CHANGES`."""


def _fidelity_cases(job: Job) -> list[Case]:
    """A video that was only coded is the faithful one; all others are coded too. Harmless changes befall both sides."""
    rng = np.random.default_rng(job.seed)
    size = job.size, job.size
    truth, planted = pair("impulse", job.seed, SEVERITIES[-1], size=size)[0], []
    for name in DEPARTURES[job.evaluator]:
        for severity in SEVERITIES:
            frames = ALTERED[name](truth.frames, severity, rng) if name in ALTERED else None
            made = pair(name, job.seed, severity, size=size)[1] if frames is None else replace(truth, frames=frames)
            clip = _clip(coded(made), truth.frames)
            planted.append(Variant(kind="violation", name=name, severity=severity, clip=clip))
    changed = {n: nuisance(n, truth, NUISANCE_LEVEL, rng) for n in NUISANCES}
    changed["size"] = pair("impulse", job.seed, SEVERITIES[-1], size=(2 * job.size, 2 * job.size))[0]
    faithful = _clip(coded(truth), truth.frames)
    variants = {
        n: Variant(kind="nuisance", name=n, severity=NUISANCE_LEVEL, clip=_clip(coded(record), record.frames))
        for n, record in changed.items()
    }
    beyond = tuple(variants.pop(n) for n in FIDELITY_CHANGES.get(job.evaluator, ()))
    worthless = [replace(v, clip=replace(v.clip, reference=faithful.reference)) for v in degenerate(faithful, rng)]
    own = (*planted, *variants.values(), *worthless)
    cases = [Case(mode=job.evaluator, seed=job.seed, lawful=faithful, variants=own)]
    return [*cases, Case(mode="beyond", seed=job.seed, lawful=faithful, variants=beyond)] if beyond else cases


def _case(job: Job, mode: str, lawful: Record, variants: list[Variant]) -> Case:
    return Case(mode=mode, seed=job.seed, lawful=_clip(lawful), variants=tuple(variants))


def _lawful(job: Job) -> Record:
    size = job.size, job.size
    if job.seed % 2 and not job.fast:
        names = list(makers("bounce"))
        return pair(names[job.seed // 2 % len(names)], job.seed, 0.0, size=size)[0]
    path = ("orbit", "look_away")[job.seed % 2] if job.fast else "dolly"
    return room_pair("camera_wobble", job.seed, 0.0, size=size, num_frames=ROOM_FRAMES, camera_path=path)[0]


def _clip(record: Record, reference: np.ndarray | None = None) -> Clip:
    other = None if reference is None else Clip(frames=reference, fps=record.fps)
    return Clip(frames=record.frames, fps=record.fps, reference=other)


def _levels(frames: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)
