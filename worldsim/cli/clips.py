"""Videos and recorded episodes as clips to score: found in folders, read within limits that the clip's name states."""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from eval import Clip
from eval.errors import EvalError
from worldsim.cli.steady import evenly
from worldsim.data import Dataset
from worldsim.errors import ConfigError, VideoError, WorldsimError
from worldsim.video import CONTAINER_SUFFIXES, IMAGE_SUFFIXES, VariableFrameRateWarning, read_video

EPISODE = "episode-{:06d}"
"""Below a dataset's path, names one of its episodes for `Reader`; there is no such file."""
_EPISODE = re.compile(r"episode-(\d+)")
WINDOW = "frames-{:06d}-{:06d}"
"""Below a video's or an episode's path, names the part between two frames for `Reader`, the last one not included."""
_WINDOW = re.compile(r"frames-(\d+)-(\d+)")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads a video, or an episode of a dataset with its truth, as a clip; picklable.

    Attributes:
        fps: Frames per second, in place of what the file states; None takes the file's.
        max_frames: At most so many frames, from the beginning.
        max_side: Larger frames are shrunk by area until their longer side has so many pixels.
        reference: The true video of the same scene, or None.
    """

    fps: float | None = None
    max_frames: int = 128
    max_side: int = 640
    reference: Path | None = None

    def __post_init__(self) -> None:
        if self.max_frames < 1 or self.max_side < 16 or (self.fps is not None and not 0 < self.fps < np.inf):
            raise ConfigError(
                expected="max_frames of at least 1, max_side of at least 16 pixels, fps above 0",
                got=f"{self.max_frames}, {self.max_side}, {self.fps}",
                remedy="Correct them.",
            )

    def __call__(self, path: Path) -> Clip:
        """The clip, or the part of it that a path of `windows` names; its name says what was done to it.

        Raises:
            VideoError: If the video, or the reference, cannot be read, or is shorter than the part.
            ClipError: If the reference has another length or size.
            DatasetError: If the dataset is damaged.
            ConfigError: If an episode would have to be shrunk: its truth in pixels would no longer fit.
        """
        part = _part(path)
        if part is not None:
            whole, (start, stop) = self(path.parent), part
            if stop > len(whole):
                raise VideoError(
                    expected=f"a video of {stop} frames or more",
                    got=f"{len(whole)} in {path.parent.name}",
                    remedy="Cut shorter parts, or leave it out.",
                )
            return replace(whole.window(start, stop), name=f"{whole.name}, frames {start} to {stop - 1}")
        if _is_episode(path):
            return self._episode(path)
        notes: list[str] = []
        frames, fps = self._read(path, notes)
        name = path.name + (f" ({'; '.join(notes)})" if notes else "")
        reference = None if self.reference is None else _reference(self.reference, *self._read(self.reference, []))
        return Clip(frames=frames, fps=fps, name=name, reference=reference)

    def _episode(self, path: Path) -> Clip:
        dataset = Dataset.open(path.parent)
        index = int(path.name.rpartition("-")[2])
        if index >= len(dataset):
            raise VideoError(
                expected=f"one of the {len(dataset)} episodes of {path.parent}",
                got=path.name,
                remedy=f"They are counted from {EPISODE.format(0)}.",
            )
        episode = dataset.episode(index)
        # Actions of Dict and Tuple spaces are no array, and imported videos may have none; no evaluator takes those.
        actions = episode.actions
        height, width = episode.frames.shape[1:3]
        if max(height, width) > self.max_side:
            raise ConfigError(
                expected=f"a dataset of at most {self.max_side} px: truth in pixels is not shrunk",
                got=f"{height}×{width}",
                remedy=f"Use --max-side {max(height, width)}.",
            )
        count = min(self.max_frames, len(episode.frames))
        notes = [f"only the first {count} frames"] if count < len(episode.frames) else []
        notes += [] if self.fps is None else [f"taken as {self.fps:g} frames/s"]
        return Clip(
            frames=episode.frames[:count],
            fps=self.fps or episode.fps,
            actions=actions[: count - 1] if isinstance(actions, np.ndarray) and actions.size else None,
            text=episode.caption,
            truth={key: value[:count] for key, value in episode.truth.items()},
            reference=None if self.reference is None else _reference(self.reference, *self._read(self.reference, [])),
            name=f"{path.parent.name}, {path.name}" + (f" ({'; '.join(notes)})" if notes else ""),
        )

    def _read(self, path: Path, notes: list[str]) -> tuple[np.ndarray, float]:
        sizes: list[tuple[int, int]] = []

        def shrink(frame: np.ndarray) -> np.ndarray:
            height, width = frame.shape[:2]
            sizes.append((height, width))
            factor = self.max_side / max(height, width)
            if factor >= 1.0:
                return np.ascontiguousarray(frame)
            size = (max(1, round(width * factor)), max(1, round(height * factor)))
            return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", VariableFrameRateWarning)
            # One frame more than is kept tells whether the video goes on.
            video = read_video(path, default_fps=self.fps, max_frames=self.max_frames + 1, each=shrink)
        frames = video.frames[: self.max_frames]
        if len(video.frames) > self.max_frames:
            notes.append(f"only the first {self.max_frames} frames")
        if frames.shape[1:3] != sizes[0]:
            notes.append(f"{sizes[0][0]}×{sizes[0][1]} shrunk to {frames.shape[1]}×{frames.shape[2]}")
        if self.fps is not None:
            notes.append(f"taken as {self.fps:g} frames/s")
            return frames, self.fps
        for message in (w.message for w in caught):
            if isinstance(message, VariableFrameRateWarning):
                even, fps, note = evenly(frames, message.times_s[: len(frames)], path.name)
                notes.append(note)
                return even, fps
        return frames, video.fps


def find_videos(paths: Sequence[Path]) -> list[Path]:
    """Files as they are; of a folder its videos by name, or the folder itself if it holds images only.

    Of a dataset its episodes, as paths that `Reader` takes.

    Raises:
        DatasetError: If a dataset is damaged or still being written.
        VideoError: If nothing is given, a path does not exist, or a folder holds neither videos nor images.
    """
    found = [video for path in paths for video in _within(path)]
    if not found:
        raise VideoError(expected="at least one video or folder of videos", got="none", remedy="Name some.")
    return found


def windows(path: Path, reader: Reader, num_frames: int) -> list[Path]:
    """Cuts a video into parts of so many frames, one after the other; what is left over at the end is in none.

    A video that cannot be read, or is shorter than one part, gives one path: `Reader` names the error there.

    Args:
        path: A video or an episode, as `find_videos` lists it.
        reader: Reads it; no part goes beyond its `max_frames`.
        num_frames: Frames of a part.

    Returns:
        A path for each part, which `Reader` takes.

    Raises:
        ConfigError: If a part would have fewer than two frames, or more than the reader reads.
    """
    if not 2 <= num_frames <= reader.max_frames:
        raise ConfigError(
            expected=f"parts of 2 to {reader.max_frames} frames, as many as are read",
            got=num_frames,
            remedy="Change --window or --max-frames.",
        )
    try:
        total = len(reader(path))
    except (WorldsimError, EvalError):
        return [path]
    return [path / WINDOW.format(i, i + num_frames) for i in range(0, max(total - num_frames, 0) + 1, num_frames)]


def _within(path: Path) -> Iterator[Path]:
    if not path.exists() and not _is_episode(path):
        raise VideoError(expected="a video or a folder of videos", got=f"no such path: {path}", remedy="Check it.")
    if not path.is_dir():
        yield path
        return
    if _is_dataset(path):
        yield from (path / EPISODE.format(i) for i in range(len(Dataset.open(path))))
        return
    files = sorted(path.iterdir())
    videos = [f for f in files if f.suffix.lower() in CONTAINER_SUFFIXES]
    if not videos and not any(f.suffix.lower() in IMAGE_SUFFIXES for f in files):
        raise VideoError(expected="videos or images in the folder", got=f"neither in {path}", remedy="Check the path.")
    yield from videos or [path]


def _is_dataset(path: Path) -> bool:
    return (path / "zarr.json").exists()


def _is_episode(path: Path) -> bool:
    return _EPISODE.fullmatch(path.name) is not None and _is_dataset(path.parent) and not path.exists()


def _part(path: Path) -> tuple[int, int] | None:
    named = None if path.exists() else _WINDOW.fullmatch(path.name)
    return None if named is None else (int(named[1]), int(named[2]))


def _reference(path: Path, frames: np.ndarray, fps: float) -> Clip:
    return Clip(frames=frames, fps=fps, name=path.name)
