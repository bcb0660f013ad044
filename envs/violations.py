"""Violations of law, and nuisances that break none: the ground on which evaluators are tested.

`pair` gives two recordings from one seed, a lawful and a violated one, rendered alike. `severity` goes from 0 (the two
are equal) continuously to 1. What violates, and how severity acts, is documented with each world's own violations:
`envs.bounce.violations` and `envs.room.violations`. Each such module has `VIOLATIONS`, a dictionary from name to a
function `(rng, severity, size) -> (lawful, violated)` of `Record`s.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module

import numpy as np

from envs.errors import SceneError, SeverityError, UnknownNameError

WORLDS: dict[str, str] = {"bounce": "envs.bounce.violations", "room": "envs.room.violations"}


@dataclass(frozen=True, kw_only=True)
class Record:
    """An episode as arrays.

    Attributes:
        frames: (T+1, H, W, 3) uint8.
        actions: (T, ...) as the world's action space has them.
        truth: The keys of docs/architecture.md, each stacked over T+1 frames.
        fps: Frames a second.
        text: The caption of the lawful scene.
        onset: First frame that differs from the law, or None in a lawful recording.
        name: Of the violation, or None.
        severity: 0 in a lawful recording.
    """

    frames: np.ndarray
    actions: np.ndarray
    truth: Mapping[str, np.ndarray]
    fps: float
    text: str
    onset: int | None = None
    name: str | None = None
    severity: float = 0.0


Maker = Callable[[np.random.Generator, float, tuple[int, int]], tuple[Record, Record]]


def check_severity(severity: float) -> float:
    """The severity as a float.

    Raises:
        SeverityError: Not a number in [0, 1].
    """
    if not isinstance(severity, int | float | np.number) or not 0.0 <= severity <= 1.0:
        raise SeverityError(
            expected="a severity in [0, 1]", got=repr(severity), remedy="0 is no violation, 1 the strongest."
        )
    return float(severity)


def makers(world: str) -> Mapping[str, Maker]:
    """The violations of a world by name.

    Raises:
        UnknownNameError: No such world.
    """
    if world not in WORLDS:
        raise UnknownNameError(kind="world", name=str(world), known=WORLDS)
    return import_module(WORLDS[world]).VIOLATIONS


def names(world: str | None = None) -> tuple[str, ...]:
    """Names of the violations of one world, or of all."""
    return tuple(n for w in ([world] if world else WORLDS) for n in makers(w))


def pair(name: str, seed: int, severity: float, *, size: tuple[int, int] = (64, 64)) -> tuple[Record, Record]:
    """A lawful and a violated recording that are alike in all but the violation.

    Args:
        name: One of `names()`.
        seed: The same seed gives the same scene at every severity.
        severity: From 0 (nothing is violated: the frames are equal) to 1.
        size: Height and width of the frames.

    Returns:
        lawful, violated: With `onset` set in the violated one where severity is above 0.

    Raises:
        UnknownNameError: No world has such a violation.
        SeverityError: Severity outside [0, 1].
    """
    severity = check_severity(severity)
    for world in WORLDS:
        if name in makers(world):
            lawful, violated = makers(world)[name](np.random.default_rng(seed), severity, size)
            if severity == 0.0:
                return lawful, replace(lawful, name=name)
            return lawful, replace(violated, name=name, severity=severity)
    raise UnknownNameError(kind="violation", name=str(name), known=names())


# ---------------------------------------------------------------------- nuisances


def noise(frames: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian pixel noise with a standard deviation of 20·level grey values."""
    noisy = frames + rng.normal(0.0, 20.0 * check_severity(level), frames.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def exposure(frames: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Constant gain: darker or brighter by up to 40 % at level 1."""
    sign = 1.0 if rng.random() < 0.5 else -1.0
    return np.clip(np.rint(frames * (1.0 + 0.4 * sign * check_severity(level))), 0, 255).astype(np.uint8)


# The luminance table of the JPEG standard (ITU-T T.81, Annex K).
_JPEG = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=float,
)


def compression(frames: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001 - one form
    """JPEG's block quantisation: 8x8 cosine coefficients rounded to `level` times the standard's luminance table."""
    check_severity(level)
    if level == 0:
        return frames.copy()
    k = np.arange(8)
    basis = np.sqrt(2.0 / 8.0) * np.cos(np.pi * (2 * k[None] + 1) * k[:, None] / 16.0)
    basis[0] /= np.sqrt(2.0)
    t, h, w, c = frames.shape
    padded = np.pad(frames.astype(float) - 128.0, ((0, 0), (0, -h % 8), (0, -w % 8), (0, 0)), mode="edge")
    blocks = padded.reshape(t, padded.shape[1] // 8, 8, padded.shape[2] // 8, 8, c)
    spectrum = np.einsum("ui,tyixjc,vj->tyuxvc", basis, blocks, basis, optimize=True)
    step = np.maximum(_JPEG * level, 1e-9)[None, None, :, None, :, None]
    coarse = np.rint(spectrum / step) * step
    back = np.einsum("ui,tyuxvc,vj->tyixjc", basis, coarse, basis, optimize=True).reshape(padded.shape)[:, :h, :w]
    return np.clip(np.rint(back + 128.0), 0, 255).astype(np.uint8)


PIXEL_NUISANCES: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "noise": noise,
    "exposure": exposure,
    "compression": compression,
}
TIME_NUISANCES = ("frame_rate", "start_offset")
NUISANCES = (*PIXEL_NUISANCES, *TIME_NUISANCES)


def nuisance(name: str, record: Record, level: float, rng: np.random.Generator) -> Record:
    """The recording with a nuisance that breaks no law.

    Args:
        name: One of `NUISANCES`. "frame_rate" keeps every second frame (level up to 0.5) or third, with the action at
            the start of each longer interval and all contacts within it; "start_offset" drops up to a quarter of the
            frames at the start.
        record: Lawful or violated.
        level: 0 (no change) to 1.
        rng: Source of noise.

    Raises:
        UnknownNameError: No such nuisance.
        SeverityError: Level outside [0, 1].
        SceneError: The recording is too short.
    """
    level = check_severity(level)
    if name in PIXEL_NUISANCES:
        return replace(record, frames=PIXEL_NUISANCES[name](record.frames, level, rng))
    if name not in TIME_NUISANCES:
        raise UnknownNameError(kind="nuisance", name=str(name), known=NUISANCES)
    total = len(record.frames)
    start = round(0.25 * total * level) if name == "start_offset" else 0
    stride = 1 + int(np.ceil(2 * level)) if name == "frame_rate" else 1
    kept = np.arange(start, total, stride)
    if len(kept) < 2:
        raise SceneError(expected="at least two frames left", got=len(kept), remedy="Use a longer recording.")
    onset = None if record.onset is None else int(np.searchsorted(kept, record.onset))
    return replace(
        record,
        frames=record.frames[kept],
        actions=record.actions[kept[:-1]],
        truth={k: _gathered(v, kept, stride) if k == "contacts" else v[kept] for k, v in record.truth.items()},
        fps=record.fps / stride,
        onset=onset,
    )


def _gathered(contacts: np.ndarray, kept: np.ndarray, stride: int) -> np.ndarray:
    """Contacts (K, stride * M, C) since the frame kept before, from contacts (T+1, M, C) of every frame."""
    unused = np.zeros_like(contacts[0])
    unused[:, 0] = -1.0
    rows = [[contacts[t] if t >= 0 else unused for t in range(last - stride + 1, last + 1)] for last in kept.tolist()]
    return np.array(rows).reshape(len(kept), -1, contacts.shape[2])
