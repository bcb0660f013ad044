"""`Clip`: a video and whatever is known about it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np

from eval.errors import ClipError

# Truth arrays that describe the whole clip rather than each frame.
STATIC_TRUTH = frozenset({"K"})
# Shape after the time axis of the truth that evaluators index without looking; "H" and "W" are the frames' own.
TRUTH_SHAPES: dict[str, tuple[int | str, ...]] = {
    "segmentation": ("H", "W"),
    "depth_m": ("H", "W"),
    "normals": ("H", "W", 3),
    "world_from_camera": (4, 4),
    "K": (3, 3),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A video and whatever is known about it; the one input of every evaluator.

    Arrays are not copied and must not be changed afterwards: the digest, and what evaluators share, are computed once.

    Attributes:
        frames: uint8 (T, H, W, 3), RGB.
        fps: Frames per second of video time.
        actions: (T-1, ...) or None; `actions[i]` carries frame i to frame i+1.
        text: The caption or prompt, or None.
        truth: Named arrays whose first axis is T (except `K`, which may be (3, 3)): `segmentation`, `depth_m`,
            `world_from_camera`, `position_m`, ... See docs/architecture.md for the names. For a generated clip these
            are the *commanded* values (the camera path that was asked for), never guesses.
        reference: The true video of the same scene, actions, length and frame size, or None.
        name: A label for reports.

    Raises:
        ClipError: If an array has a wrong shape, type or length, or if `fps` or an action is not finite. Truth may hold
            NaN where there is nothing to tell (padded contacts, a sensor's hole).
    """

    frames: np.ndarray
    fps: float
    actions: np.ndarray | None = None
    text: str | None = None
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)
    reference: "Clip | None" = None
    name: str = "clip"

    def __post_init__(self) -> None:
        frames = self.frames
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            got = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__
            raise ClipError(
                expected="frames as a uint8 array (T, H, W, 3)",
                got=got,
                remedy="Use eval.clip.as_frames to convert grey, RGBA or float video.",
            )
        if 0 in frames.shape:
            raise ClipError(
                expected="at least one frame with pixels", got=str(frames.shape), remedy="Check the reader."
            )
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise ClipError(expected="fps > 0", got=self.fps, remedy="Pass the video's frame rate.")
        _check_actions(self.actions, len(frames))
        for key, value in self.truth.items():
            _check_truth(key, value, frames.shape)
        if self.reference is not None and self.reference.frames.shape != frames.shape:
            raise ClipError(
                expected=f"a reference of the same length and size, {frames.shape}",
                got=str(self.reference.frames.shape),
                remedy="Cut or resize one of them; evaluators never do it silently.",
            )

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def dt_s(self) -> float:
        """Seconds between two frames."""
        return 1.0 / self.fps

    def missing(self, needs: tuple[str, ...]) -> tuple[str, ...]:
        """The names among `needs` that this clip does not have."""
        own = {"actions": self.actions, "text": self.text, "reference": self.reference}
        return tuple(n for n in needs if (own[n] if n in own else self.truth.get(n)) is None)

    def window(self, start: int, stop: int) -> Self:
        """The clip of frames `start:stop`, with everything known about them."""
        truth = {k: v if _is_static(k, v) else v[start:stop] for k, v in self.truth.items()}
        return replace(
            self,
            frames=self.frames[start:stop],
            actions=None if self.actions is None else self.actions[start : stop - 1],
            truth=truth,
            reference=None if self.reference is None else self.reference.window(start, stop),
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 (first 16 hex digits) of everything in the clip that a score can depend on."""
        # 10 and 10.0 frames per second are one rate; no text and the text "None" are two.
        sha = hashlib.sha256(f"{self.frames.shape}|{float(self.fps)!r}|{self.text!r}".encode())
        sha.update(np.ascontiguousarray(self.frames).data)
        arrays = dict(self.truth) if self.actions is None else {**self.truth, "actions": self.actions}
        for key in sorted(arrays):
            array = np.ascontiguousarray(arrays[key])
            sha.update(f"{key}{array.dtype}{array.shape}".encode())
            sha.update(array.data)
        if self.reference is not None:
            sha.update(self.reference.digest.encode())
        return sha.hexdigest()[:16]


def as_frames(video: np.ndarray) -> np.ndarray:
    """Converts grey, RGBA or float video to uint8 (T, H, W, 3).

    Args:
        video: (T, H, W), (T, H, W, 1), (T, H, W, 3) or (T, H, W, 4); uint8, or float in [0, 1].

    Raises:
        ClipError: On any other shape, on values that are not finite, and on floats outside [0, 1].
    """
    video = np.asarray(video)
    if video.ndim == 3:
        video = video[..., None]
    if video.ndim != 4 or video.shape[-1] not in {1, 3, 4}:
        raise ClipError(
            expected="video of shape (T, H, W), or (T, H, W, C) with C in 1, 3, 4",
            got=str(video.shape),
            remedy="Move time to the front and channels to the end.",
        )
    if video.dtype != np.uint8:
        low, high = float(np.min(video, initial=0.0)), float(np.max(video, initial=0.0))
        if not np.issubdtype(video.dtype, np.floating) or not (low >= 0.0 and high <= 1.0):
            raise ClipError(
                expected="uint8, or finite floats in [0, 1]",
                got=f"{video.dtype} in [{low}, {high}]",
                remedy="Scale the video before scoring it.",
            )
        video = np.round(video * 255.0).astype(np.uint8)
    if video.shape[-1] == 1:
        return np.repeat(video, 3, axis=-1)
    return np.ascontiguousarray(video[..., :3])


def _is_static(key: str, value: np.ndarray) -> bool:
    return key in STATIC_TRUTH and value.ndim == 2


def _check_actions(actions: np.ndarray | None, num_frames: int) -> None:
    if actions is None:
        return
    if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "iufb":
        got = actions.dtype if isinstance(actions, np.ndarray) else type(actions).__name__
        raise ClipError(expected="actions as a numeric numpy array (T-1, ...)", got=got, remedy="Convert them.")
    if actions.ndim == 0 or len(actions) != num_frames - 1:
        raise ClipError(
            expected=f"{num_frames - 1} actions for {num_frames} frames",
            got=str(actions.shape),
            remedy="actions[i] carries frame i to frame i+1.",
        )
    if not np.isfinite(actions).all():
        raise ClipError(expected="finite actions", got="NaN or infinity", remedy="Drop or mend the recording.")


def _check_truth(key: str, value: np.ndarray, frames_shape: tuple[int, ...]) -> None:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iufb":
        got = f"dtype {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ClipError(expected=f"truth[{key!r}] as a numeric numpy array", got=got, remedy="Convert it.")
    num_frames, height, width = frames_shape[:3]
    static = _is_static(key, value)
    if not static and (value.ndim == 0 or len(value) != num_frames):
        raise ClipError(
            expected=f"truth[{key!r}] with {num_frames} entries, one a frame",
            got=str(value.shape),
            remedy="Cut truth and frames to the same length.",
        )
    if key in TRUTH_SHAPES:
        wanted = tuple({"H": height, "W": width}.get(str(n), n) for n in TRUTH_SHAPES[key])
        if (value.shape if static else value.shape[1:]) != wanted:
            raise ClipError(
                expected=f"truth[{key!r}] of shape {wanted} a frame",
                got=str(value.shape),
                remedy="Give truth at the size of the frames.",
            )
