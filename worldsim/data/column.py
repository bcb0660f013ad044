"""One array of a dataset while it is written."""

import hashlib

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from worldsim.data.layout import chunk_rows
from worldsim.errors import DatasetError


class Column:
    """One array that grows by whole shards; rows wait in memory until a shard is full.

    Args:
        group: Where the array is created.
        name: Its name.
        rows: Its first rows, which tell type and shape; they are not appended yet.

    Attributes:
        sha: Hash of the rows so far.

    Raises:
        DatasetError: If the rows are no numbers.
    """

    def __init__(self, group: zarr.Group, name: str, rows: np.ndarray) -> None:
        if rows.dtype.kind not in "biuf":
            raise DatasetError(
                expected=f"numbers in {name}", got=f"{rows.dtype} values", remedy="Leave this key out with `truth=`."
            )
        shape = rows.shape[1:]
        chunk, self._shard = chunk_rows(rows.dtype.itemsize * int(np.prod(shape, dtype=np.int64)))
        self.name, self.sha = name, hashlib.sha256()
        self.array: zarr.Array = group.create_array(
            name,
            shape=(0, *shape),
            dtype=rows.dtype,
            chunks=(chunk, *(max(n, 1) for n in shape)),
            shards=(self._shard, *(max(n, 1) for n in shape)),
            compressors=[ZstdCodec(level=1, checksum=True)],
            # Zarr reads a file that is missing as zeros; with every file written, a missing one can be told.
            config={"write_empty_chunks": True},
        )
        self._waiting: list[np.ndarray] = []
        self._count = 0

    def append(self, rows: np.ndarray) -> None:
        """Adds rows.

        Raises:
            DatasetError: If their type or shape is another than that of the first ones.
        """
        if rows.dtype != self.array.dtype or rows.shape[1:] != self.array.shape[1:]:
            raise DatasetError(
                expected=f"{self.name} rows of {self.array.dtype} {self.array.shape[1:]}, as before",
                got=f"{rows.dtype} {rows.shape[1:]}",
                remedy="A dataset holds one frame size, one action space and truth of fixed shapes.",
            )
        rows = np.ascontiguousarray(rows)
        if rows.size:
            self.sha.update(rows.data.cast("B"))
        self._waiting.append(rows)
        self._count += len(rows)
        if self._count >= self._shard:
            whole = self._count - self._count % self._shard
            waiting = np.concatenate(self._waiting)
            self._write(waiting[:whole])
            self._waiting, self._count = [waiting[whole:].copy()], self._count - whole

    def finish(self) -> None:
        """Writes what waits."""
        if self._count:
            self._write(np.concatenate(self._waiting))

    def _write(self, rows: np.ndarray) -> None:
        start = self.array.shape[0]
        self.array.resize((start + len(rows), *rows.shape[1:]))
        self.array[start:] = rows
