"""Writing a dataset: whole or not at all, by one process at a time."""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
from gymnasium import spaces

from worldsim.camera import checked_motion
from worldsim.data.column import Column
from worldsim.data.layout import (
    CAMERA,
    FORMAT,
    FORMAT_VERSION,
    LOCK,
    action_columns,
    busy,
    flatten_actions,
    partial_path,
    space_attribute,
    try_lock,
)
from worldsim.errors import DatasetError
from worldsim.video import check_frames

_VERSIONED = ("worldsim", "gymnasium", "numpy", "zarr", "mujoco", "pymunk", "ale-py")


class DatasetWriter:
    """Writes one dataset; a context manager that commits at the end and removes everything on an error.

    Rows go to `<path>.partial`, which is renamed to `path` when all is written; a process that dies leaves a
    `.partial` directory, which never opens as a dataset and which the next writer of the same path replaces.

    Args:
        path: The dataset's directory; must not exist.
        action_space: Space of single actions.
        fps: Frames per second of video time.
        about: What the dataset was made from, as plain data: `env_id`, `env_kwargs`, `seed`, ...

    Raises:
        DatasetError: If the path exists, cannot be written, or is being written by another process.
        ConfigError: If the action space cannot be stored.
    """

    def __init__(
        self, path: str | Path, *, action_space: spaces.Space, fps: float, about: Mapping[str, Any] | None = None
    ) -> None:
        self.path = Path(path)
        self._partial = partial_path(self.path)
        if not (np.isfinite(fps) and fps > 0):
            raise DatasetError(expected="fps above 0", got=fps, remedy="Pass the frame rate of the video.")
        self._fps, self._space, self._about = float(fps), action_space, dict(about or {})
        self._action_columns = action_columns(action_space)
        space_attribute(action_space)  # an unknown space shall fail before anything is written
        self._lock: int | None = _claim(self.path, self._partial)
        try:
            with _place(self.path):
                self._group = zarr.open_group(self._partial, mode="a", zarr_format=3)
        except DatasetError:
            self._discard()
            raise
        self._columns: dict[str, Column] = {}
        self._lengths: list[int] = []
        self._captions: list[str] = []
        self._seeds: list[int] = []
        self._open_rows = 0
        self._has_captions = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is None:
                with _place(self.path):
                    self._commit()
        finally:
            self._discard()

    def add_rows(self, rows: Mapping[str, np.ndarray]) -> None:
        """Adds consecutive rows of the current episode.

        Args:
            rows: `frames` (n, H, W, 3) uint8, the action columns (see `layout.flatten_actions`), `rewards` (n,),
                `terminated` (n,), `truncated` (n,), if the camera's motion is known `camera` (n, 6) float32, and any
                `truth/<key>` (n, ...). Row i holds frame i and the action and motion that lead on from it; the last row
                of an episode holds zeros in their place.

        Raises:
            DatasetError: If columns appear, vanish or change their shape or type, or their lengths differ.
            FramesError: If the frames are not uint8 (n, H, W, 3).
            CameraError: If the camera's motion is not (n, 6), or not finite.
        """
        check_frames(rows["frames"])
        if CAMERA in rows:
            rows = {**rows, CAMERA: checked_motion(rows[CAMERA], (len(rows["frames"]),)).astype(np.float32)}
        if not self._columns:
            with _place(self.path):
                self._columns = {name: Column(self._group, name, value) for name, value in rows.items()}
        if set(rows) != set(self._columns):
            raise DatasetError(
                expected=f"the columns {sorted(self._columns)} in every row",
                got=sorted(rows),
                remedy="An environment must give the same truth at every step.",
            )
        count = len(rows["frames"])
        for name, value in rows.items():
            if len(value) != count:
                raise DatasetError(expected=f"{count} rows of {name}", got=len(value), remedy="Cut them to one length.")
            with _place(self.path):
                self._columns[name].append(value)
        self._open_rows += count

    def end_episode(self, *, caption: str | None, seed: int = -1) -> None:
        """Ends the current episode. `seed` is what the environment was reset with, -1 if there was none.

        Raises:
            DatasetError: If the episode has fewer than two frames.
        """
        if self._open_rows < 2:
            raise DatasetError(
                expected="episodes of at least two frames", got=self._open_rows, remedy="Leave such episodes out."
            )
        self._lengths.append(self._open_rows)
        self._captions.append(caption or "")
        self._has_captions |= caption is not None
        self._seeds.append(seed)
        self._open_rows = 0

    def add_episode(
        self,
        frames: np.ndarray,
        actions: Any,  # noqa: ANN401 - stacked actions of any space
        *,
        rewards: np.ndarray | None = None,
        terminated: np.ndarray | None = None,
        truncated: np.ndarray | None = None,
        caption: str | None = None,
        seed: int = -1,
        truth: Mapping[str, np.ndarray] | None = None,
        camera: np.ndarray | None = None,
    ) -> None:
        """Adds a whole episode: T+1 frames and truth rows; T stacked actions, rewards (default 0) and flags (False).

        `camera` are T motions (T, 6) as from `worldsim.camera.camera_motion`; all episodes have them or none.

        Raises:
            DatasetError: If the lengths do not fit.
            CameraError: If the camera's motion is not (T, 6), or not finite.
        """
        steps = len(frames) - 1
        columns = {
            **flatten_actions(self._space, actions),
            "rewards": np.zeros(steps, np.float32) if rewards is None else np.asarray(rewards, np.float32),
            "terminated": np.zeros(steps, bool) if terminated is None else np.asarray(terminated, bool),
            "truncated": np.zeros(steps, bool) if truncated is None else np.asarray(truncated, bool),
        }
        if camera is not None:
            columns[CAMERA] = checked_motion(camera, (steps,)).astype(np.float32)
        for name, column in columns.items():
            if len(column) != steps:
                raise DatasetError(
                    expected=f"{steps} {name} for {len(frames)} frames",
                    got=len(column),
                    remedy="actions[i] carries frame i to frame i+1.",
                )
        rows = {name: np.concatenate([c, np.zeros((1, *c.shape[1:]), c.dtype)]) for name, c in columns.items()}
        truth_rows = {f"truth/{key}": np.asarray(value) for key, value in (truth or {}).items()}
        self.add_rows({"frames": frames, **rows, **truth_rows})
        self.end_episode(caption=caption, seed=seed)

    def _commit(self) -> None:
        if self._open_rows:
            raise DatasetError(expected="a finished episode", got="an open one", remedy="Call end_episode.")
        if not self._lengths:
            raise DatasetError(expected="at least one episode", got="none", remedy="Record some.")
        for column in self._columns.values():
            column.finish()
        lengths = np.array(self._lengths, np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        for name, values in {"starts": starts, "lengths": lengths, "seeds": np.array(self._seeds, np.int64)}.items():
            self._group.create_array(name, data=values, chunks=(max(len(values), 1),))
        captions = self._group.create_array("captions", shape=lengths.shape, dtype=str, chunks=lengths.shape)
        captions[:] = np.array(self._captions, dtype=object)
        space = space_attribute(self._space)
        frame_shape = self._columns["frames"].array.shape
        self._group.update_attributes(
            {
                "format": FORMAT,
                "version": FORMAT_VERSION,
                "fps": self._fps,
                "frame_size": list(frame_shape[1:3]),
                "action_space": space,
                "has_captions": self._has_captions,
                "about": _plain(self._about),
                "config_hash": _short_hash(self._about),
                "versions": _versions(),
                "digest": self._digest(space),
            }
        )
        self._partial.replace(self.path)
        (self.path / LOCK).unlink()

    def _digest(self, space: dict[str, Any]) -> str:
        sha = hashlib.sha256(f"{FORMAT} {FORMAT_VERSION} {self._fps!r}\n".encode())
        text = {"action_space": space, "lengths": self._lengths, "seeds": self._seeds, "captions": self._captions}
        sha.update(json.dumps(text, sort_keys=True).encode())
        for name in sorted(self._columns):
            column = self._columns[name]
            shape = "x".join(map(str, column.array.shape))
            sha.update(f"\n{name} {column.array.dtype} {shape} {column.sha.hexdigest()}".encode())
        return sha.hexdigest()

    def _discard(self) -> None:
        """Removes what is left of an uncommitted dataset and frees the lock."""
        if self._lock is None:
            return
        shutil.rmtree(self._partial, ignore_errors=True)
        os.close(self._lock)
        self._lock = None


def _claim(path: Path, partial: Path) -> int:
    """Takes the path for this process and clears what an interrupted writer left. The lock's descriptor."""
    with _place(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(exist_ok=True)
        handle = try_lock(partial)
    if handle is None:
        raise busy(path)
    if path.exists():
        shutil.rmtree(partial, ignore_errors=True)
        os.close(handle)
        raise DatasetError(
            expected="a path where nothing is yet", got=str(path), remedy="Choose another path, or remove it first."
        )
    for leftover in partial.iterdir():
        if leftover.name != LOCK:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    return handle


@contextmanager
def _place(path: Path) -> Iterator[None]:
    """Names the failures of the file system."""
    try:
        yield
    except OSError as error:
        raise DatasetError(
            expected=f"to write {path}", got=str(error), remedy="Check the path, its permissions and the space left."
        ) from error


def _plain(value: Any) -> Any:  # noqa: ANN401 - plain data
    """The value as strict JSON data; what JSON does not know is kept as its repr."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and np.isfinite(value)):
        return value
    return repr(value)


def _short_hash(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_plain(about), sort_keys=True).encode()).hexdigest()[:16]


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
