"""Batches prepared ahead of the updates that need them."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

Batch = TypeVar("Batch")


class Ahead(Generic[Batch]):
    """Calls a function of (update, rows) in threads before its results are asked for, in the order of training.

    Args:
        make: Gives the batch of an update, or those rows of it; a pure function.
        parts: The rows of each update that are asked for, one after another.
        threads: Batches in preparation; 0 prepares them when they are asked for.
    """

    def __init__(self, make: Callable[[int, range], Batch], parts: Sequence[range], threads: int) -> None:
        self._make, self._parts, self._threads = make, list(parts), threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead") if threads else None
        self._waiting: dict[int, Future[Batch]] = {}

    def __call__(self, step: int, rows: range) -> Batch:
        """The batch of these rows; any order is allowed, that of training is fast."""
        if self._pool is None:
            return self._make(step, rows)
        place = step * len(self._parts) + self._parts.index(rows)
        kept = {place + i: self._waiting.pop(place + i, None) for i in range(self._threads + 1)}
        for other in self._waiting.values():
            other.cancel()
        self._waiting = {i: waiting or self._submit(self._pool, i) for i, waiting in kept.items()}
        return self._waiting.pop(place).result()

    def _submit(self, pool: ThreadPoolExecutor, place: int) -> Future[Batch]:
        step, part = divmod(place, len(self._parts))
        return pool.submit(self._make, step, self._parts[part])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
