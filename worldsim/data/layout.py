"""What a dataset's directory looks like: names, versions, chunk shapes, the lock. docs/data.md describes it in full."""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from worldsim.errors import ConfigError, DatasetError
from worldsim.spaces import space_to_dict

FORMAT = "worldsim-dataset"
FORMAT_VERSION = 1
LOCK = ".lock"
CAMERA = "camera"  # the column of the camera's motion

_CHUNK_BYTES = 256 * 1024  # of one inner chunk, uncompressed: what a random window has to decompress
_SHARD_BYTES = 16 * 1024 * 1024  # of one file, uncompressed
_MAX_CHUNK_ROWS = 4096


def partial_path(path: Path) -> Path:
    """Where the dataset `path` lies while it is being written."""
    return path.with_name(path.name + ".partial")


def chunk_rows(row_bytes: int) -> tuple[int, int]:
    """Rows of a chunk and of a shard for rows of that many bytes; powers of two, the first divides the second."""
    chunk = min(_MAX_CHUNK_ROWS, _power_of_two(_CHUNK_BYTES // max(row_bytes, 1)))
    return chunk, chunk * min(64, _power_of_two(_SHARD_BYTES // (chunk * max(row_bytes, 1))))


def _power_of_two(number: int) -> int:
    return 1 << max(number.bit_length() - 1, 0)


def try_lock(directory: Path) -> int | None:
    """Takes the lock of a directory being written: an open file descriptor, or None if another process holds it.

    The operating system frees the lock when its holder ends, however it ends.
    """
    handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def is_being_written(path: Path) -> bool:
    """Whether a process is writing the dataset `path` now."""
    lock = partial_path(path) / LOCK
    if not lock.exists():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def busy(path: Path) -> DatasetError:
    """The error for a dataset that another process is writing."""
    return DatasetError(
        expected="a dataset that nobody is writing",
        got=f"{path}, which another process is writing",
        remedy="Wait until it has finished, or choose another path.",
    )


def space_attribute(space: spaces.Space) -> dict[str, Any]:
    """The action space as strict JSON: infinite bounds become the strings "inf" and "-inf"."""

    def strict(value: Any) -> Any:  # noqa: ANN401 - plain data
        if isinstance(value, Mapping):
            return {k: strict(v) for k, v in value.items()}
        if isinstance(value, list):
            return [strict(v) for v in value]
        return str(value) if isinstance(value, float) and not np.isfinite(value) else value

    return strict(space_to_dict(space))


def flatten_actions(space: spaces.Space, actions: Any, name: str = "actions") -> dict[str, np.ndarray]:  # noqa: ANN401
    """Stacked actions as named columns: one for a plain space, one a leaf for Dict and Tuple spaces.

    Raises:
        ConfigError: If a key of a Dict space contains a slash.
    """
    parts = _parts(space)
    if parts is None:
        return {name: np.asarray(actions, dtype=space.dtype)}
    columns: dict[str, np.ndarray] = {}
    for key, sub in parts.items():
        if "/" in str(key) or not str(key):
            raise ConfigError(expected="action keys without '/'", got=repr(key), remedy="Rename the key in a wrapper.")
        columns |= flatten_actions(sub, actions[key], f"{name}/{key}")
    return columns


def restore_actions(space: spaces.Space, columns: Mapping[str, np.ndarray], name: str = "actions") -> Any:  # noqa: ANN401
    """The inverse of `flatten_actions`."""
    parts = _parts(space)
    if parts is None:
        return columns[name]
    restored = {key: restore_actions(sub, columns, f"{name}/{key}") for key, sub in parts.items()}
    return restored if isinstance(space, spaces.Dict) else [restored[i] for i in range(len(restored))]


def action_columns(space: spaces.Space, name: str = "actions") -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Names, types and row shapes of the columns that hold actions of that space."""
    parts = _parts(space)
    if parts is None:
        return {name: (np.dtype(space.dtype), tuple(space.shape or ()))}
    found: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
    for key, sub in parts.items():
        found |= action_columns(sub, f"{name}/{key}")
    return found


def _parts(space: spaces.Space) -> dict[Any, spaces.Space] | None:
    if isinstance(space, spaces.Dict):
        return dict(space.spaces)
    if isinstance(space, spaces.Tuple):
        return dict(enumerate(space.spaces))
    return None
