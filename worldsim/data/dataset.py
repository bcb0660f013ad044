"""`Dataset`: recorded episodes on disk, read through Zarr."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from gymnasium import spaces
from zarr.errors import BaseZarrError

from worldsim.data.layout import (
    CAMERA,
    FORMAT,
    FORMAT_VERSION,
    action_columns,
    busy,
    is_being_written,
    partial_path,
    restore_actions,
)
from worldsim.errors import DatasetError, UnknownNameError
from worldsim.spaces import space_from_dict


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """One recorded episode of T steps.

    Attributes:
        frames: uint8 (T+1, H, W, 3).
        actions: Stacked actions (T, ...), a mapping of such for a Dict space, a list for a Tuple space; `actions[i]`
            carries frame i to frame i+1.
        rewards: float32 (T,), what `actions[i]` earned.
        terminated: bool (T,), whether `actions[i]` ended the episode.
        truncated: bool (T,), whether it was cut off after `actions[i]`.
        caption: The scene in words, or None.
        truth: Named arrays of T+1 rows, one a frame.
        seed: What the environment was reset with, or None.
        fps: Frames per second.
        camera: float32 (T, 6), the camera's motion from frame i to frame i+1 (`worldsim.camera`), or None.
    """

    frames: np.ndarray
    actions: Any
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    fps: float
    caption: str | None = None
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed: int | None = None
    camera: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rewards)


class Dataset:
    """Recorded episodes on disk. Open one with `Dataset.open`; write one with `record` or `DatasetWriter`.

    All episodes lie one after another along the frame axis; `starts` and `lengths` (in frames) tell them apart.

    Attributes:
        path: The directory.
        starts: int64 (E,), first frame of each episode.
        lengths: int64 (E,), frames of each episode, one more than its actions.
        captions: One string an episode, empty where there is none.
        seeds: int64 (E,), what the environment was reset with, -1 where unknown.
        about: What the dataset was made from: `env_id`, `env_kwargs`, `seed`, ...
        versions: Versions of the packages that made it.
    """

    def __init__(self, path: Path, group: zarr.Group) -> None:
        attributes: dict[str, Any] = dict(group.attrs)
        self.path, self._group, self._attributes = path, group, attributes
        self._space = space_from_dict(attributes["action_space"])
        self.about: dict[str, Any] = attributes["about"]
        self.versions: dict[str, str] = attributes["versions"]
        self._arrays: dict[str, zarr.Array] = {}
        self.starts: np.ndarray = np.asarray(self._array("starts")[:])
        self.lengths: np.ndarray = np.asarray(self._array("lengths")[:])
        self.seeds: np.ndarray = np.asarray(self._array("seeds")[:])
        self.captions: list[str] = [str(text) for text in np.asarray(self._array("captions")[:])]
        truth = group.get("truth")
        self._truth_keys = tuple(sorted(truth.array_keys())) if isinstance(truth, zarr.Group) else ()
        self._has_camera = isinstance(group.get(CAMERA), zarr.Array)
        names = ("frames", "rewards", "terminated", "truncated", *self.step_columns)
        for name in (*names, *(f"truth/{key}" for key in self._truth_keys)):
            self._check_column(name)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Opens a dataset for reading.

        Raises:
            DatasetError: If there is none, it is still being written, its writing was interrupted, or it is damaged,
                foreign or of a newer version.
        """
        path = Path(path)
        if not path.exists():
            raise _missing(path)
        if is_being_written(path.with_name(path.name.removesuffix(".partial"))):
            raise busy(path)
        try:
            group = zarr.open_group(path, mode="r", zarr_format=3)
        except (OSError, ValueError, KeyError, BaseZarrError) as error:
            raise _foreign(path, "no Zarr group") from error
        if group.attrs.get("format") != FORMAT:
            raise _foreign(path, "a Zarr group of another kind, or one whose writing was interrupted")
        version = group.attrs.get("version")
        if version != FORMAT_VERSION:
            raise DatasetError(
                expected=f"version {FORMAT_VERSION} of the dataset format",
                got=f"version {version} in {path}",
                remedy="Use the worldsim that wrote it, or record it again.",
            )
        try:
            return cls(path, group)
        except (KeyError, OSError, ValueError, RuntimeError) as error:
            raise _damaged(path, str(error)) from error

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Episode]:
        return (self.episode(i) for i in range(len(self)))

    def __repr__(self) -> str:
        height, width = self.frame_size
        return f"Dataset({str(self.path)!r}, {len(self)} episodes, {self.num_frames} frames of {height}x{width})"

    @property
    def num_frames(self) -> int:
        """Frames in all episodes together."""
        return int(self.lengths.sum())

    @property
    def action_space(self) -> spaces.Space:
        """Space of a single action."""
        return self._space

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self._attributes["frame_size"]
        return int(height), int(width)

    @property
    def fps(self) -> float:
        """Frames per second of video time."""
        return float(self._attributes["fps"])

    @property
    def has_captions(self) -> bool:
        """Whether any episode has a caption."""
        return bool(self._attributes["has_captions"])

    @property
    def has_camera(self) -> bool:
        """Whether the camera's motion is known."""
        return self._has_camera

    @property
    def step_columns(self) -> tuple[str, ...]:
        """Columns of what carries a frame to the next: the actions, and the camera's motion where it is known."""
        return (*action_columns(self._space), *(CAMERA,) * self._has_camera)

    @property
    def truth_keys(self) -> tuple[str, ...]:
        """Names of what is known about every frame."""
        return self._truth_keys

    @property
    def config_hash(self) -> str:
        """Hash of what the dataset was made from."""
        return str(self._attributes["config_hash"])

    def digest(self) -> str:
        """SHA-256 of all the content, computed as it was written; independent of chunks, workers and versions."""
        return str(self._attributes["digest"])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start:stop` of one column: `frames`, `rewards`, `actions`, `truth/<key>`, ...

        Raises:
            UnknownNameError: If there is no such column.
            DatasetError: If the data on disk is damaged.
        """
        if name not in self._group or not isinstance(self._group[name], zarr.Array):
            known = [*self._group.array_keys(), *(f"truth/{key}" for key in self._truth_keys)]
            raise UnknownNameError(kind="column", name=name, known=known)
        try:
            return np.asarray(self._array(name)[start:stop])
        except (OSError, ValueError, RuntimeError) as error:
            raise _damaged(self.path, f"{name}: {error}") from error

    def read_actions(self, start: int = 0, stop: int | None = None) -> Any:  # noqa: ANN401 - actions of any space
        """Rows `start:stop` of the actions, stacked as in `Episode.actions`."""
        columns = {name: self.read(name, start, stop) for name in action_columns(self._space)}
        return restore_actions(self._space, columns)

    def episode(self, index: int, *, truth: bool = True) -> Episode:
        """Reads one episode.

        Args:
            index: 0 ... len(self) - 1.
            truth: Whether to read the truth as well.

        Raises:
            IndexError: If there is no such episode.
            DatasetError: If the data on disk is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"expected an episode in 0 ... {len(self) - 1}; got {index}")
        start, stop = int(self.starts[index]), int(self.starts[index] + self.lengths[index])
        return Episode(
            frames=self.read("frames", start, stop),
            actions=self.read_actions(start, stop - 1),
            rewards=self.read("rewards", start, stop - 1),
            terminated=self.read("terminated", start, stop - 1),
            truncated=self.read("truncated", start, stop - 1),
            fps=self.fps,
            caption=self.captions[index] or None,
            truth={key: self.read(f"truth/{key}", start, stop) for key in self._truth_keys} if truth else {},
            seed=int(self.seeds[index]) if self.seeds[index] >= 0 else None,
            camera=self.read(CAMERA, start, stop - 1) if self._has_camera else None,
        )

    def _check_column(self, name: str) -> None:
        """Raises where rows or files are missing; Zarr itself would read a missing file as zeros."""
        array = self._array(name)
        if array.shape[0] != self.num_frames:
            raise _damaged(self.path, f"{name} has {array.shape[0]} rows, not {self.num_frames}")
        if array.size == 0:
            return  # actions of no numbers
        assert array.shards is not None
        files = math.ceil(array.shape[0] / array.shards[0])
        found = array.nchunks_initialized * array.chunks[0] // array.shards[0]
        if found != files:
            raise _damaged(self.path, f"{name} has {found} files, not {files}")

    def _array(self, name: str) -> zarr.Array:
        if name not in self._arrays:
            array = self._group[name]
            assert isinstance(array, zarr.Array)
            self._arrays[name] = array
        return self._arrays[name]


def _missing(path: Path) -> DatasetError:
    if is_being_written(path):
        return busy(path)
    if partial_path(path).exists():
        return DatasetError(
            expected="a finished dataset",
            got=f"what an interrupted recording left: {partial_path(path)}",
            remedy="Record it again; the remains are replaced.",
        )
    return DatasetError(expected="a dataset", got=f"no such path: {path}", remedy="Record one with `worldsim record`.")


def _foreign(path: Path, got: str) -> DatasetError:
    return DatasetError(
        expected="a worldsim dataset", got=f"{got}: {path}", remedy="Record one with `worldsim record`."
    )


def _damaged(path: Path, why: str) -> DatasetError:
    return DatasetError(
        expected="a whole dataset", got=f"a damaged one, {path} ({why})", remedy="Record it again, or copy it again."
    )
