"""`score_many`: a folder or a stream of clips over processes; a clip that fails is counted and never raises a score."""

import hashlib
import math
import multiprocessing
import os
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from eval.clip import Clip
from eval.errors import ClipError, EvalError
from eval.score import versions
from eval.suite import Report, Suite, read_json

Reader = Callable[[Path], Clip]
Job = TypeVar("Job")
Result = TypeVar("Result")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A clip that could not be read or scored.

    Attributes:
        clip: Its name or path.
        error: Type and message.
        trace: The traceback, for whoever mends it.
    """

    clip: str
    error: str
    trace: str

    @classmethod
    def of(cls, clip: str, error: Exception) -> "Failure":
        """From an exception that was caught."""
        trace = "".join(traceback.format_exception(error))
        return cls(clip=clip, error=f"{type(error).__name__}: {error}", trace=trace)

    def to_json(self) -> dict[str, str]:
        """As plain data."""
        return {"clip": self.clip, "error": self.error, "trace": self.trace}


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean of one evaluator's normalised value over clips.

    Attributes:
        value: Mean over the clips measured, failures counted as 0; None where no clip could be measured.
        standard_error: Of `value`, over clips; None below two clips.
        measured: Clips with a value.
        failed: Clips that failed to load or on which the evaluator failed; each counts as 0.
        unmeasured: Clips without a value by reason's kind: missing, inapplicable, insufficient.
    """

    value: float | None
    standard_error: float | None
    measured: int
    failed: int
    unmeasured: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """What `score_many` found, in the order of its input.

    Attributes:
        results: One `Report` or `Failure` per clip.
    """

    results: tuple[Report | Failure, ...]

    @property
    def reports(self) -> tuple[Report, ...]:
        """The clips that were scored."""
        return tuple(r for r in self.results if isinstance(r, Report))

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The clips that were not."""
        return tuple(r for r in self.results if isinstance(r, Failure))

    def mean(self, evaluator: str) -> Mean:
        """The mean of one evaluator over the batch; a failed clip counts as 0, the worst."""
        scores = [r[evaluator] for r in self.reports]
        values = [s.normalised for s in scores if s.normalised is not None]
        failed = len(self.failures) + sum(s.status == "failed" for s in scores)
        return mean_of(values, failed, [s.status for s in scores if s.status not in {"ok", "failed"}])

    def aggregate(self) -> Mean:
        """The mean of the clips' aggregates (evaluators with a passing card only); a failed clip counts as 0."""
        aggregates = [r.aggregate() for r in self.reports]
        values = [a.value for a in aggregates if a.value is not None]
        return mean_of(values, len(self.failures), ["nothing measured"] * (len(aggregates) - len(values)))

    def to_json(self) -> dict[str, Any]:
        """Reports and failures as plain data."""
        return {"results": [r.to_json() for r in self.results]}


def mean_of(values: Sequence[float], failed: int, unmeasured: Sequence[str]) -> Mean:
    """The mean of normalised values, failures counted as 0."""
    counted = np.array([*values, *[0.0] * failed])
    return Mean(
        value=float(counted.mean()) if len(counted) else None,
        standard_error=float(counted.std(ddof=1) / math.sqrt(len(counted))) if len(counted) > 1 else None,
        measured=len(values),
        failed=failed,
        unmeasured={s: unmeasured.count(s) for s in sorted(set(unmeasured))},
    )


def score_saved(clip: Clip, suite: Suite, stem: Path | None) -> Report | Failure:
    """Scores a clip, or reads the result that the same suite and versions saved of the same clip.

    Args:
        clip: What to score.
        suite: With what.
        stem: Path without its end; the file's name says what the result depends on. None to save nothing.
    """
    try:
        path = None if stem is None else stem.with_name(f"{stem.name}-{_key(suite, clip)}.json")
        if path is not None and path.exists():
            return Report.from_json(read_json(path))
        report = suite(clip)
        if path is not None:
            report.save(path)
    except Exception as error:  # noqa: BLE001 - one bad clip among thousands is counted, not fatal
        return Failure.of(clip.name, error)
    return report


def score_many(
    clips: Iterable[Clip | str | Path],
    suite: str | Sequence[str] | Suite = "physics",
    *,
    read: Reader | None = None,
    workers: int = 1,
    out: str | Path | None = None,
    progress: Callable[[int, Report | Failure], None] | None = None,
) -> BatchReport:
    """Scores clips, or files that `read` turns into clips, over processes.

    Each clip is scored alone, so results do not depend on `workers`. At most two clips per worker are in flight:
    memory stays flat in the number of clips.

    Args:
        clips: Clips, or paths; a generator is fine.
        suite: As in `eval.score`.
        read: Turns a path into a `Clip`; runs in the worker, so it must be picklable where `workers` > 1.
        workers: Processes; 1 scores in this one.
        out: A folder that gets one JSON file per clip as soon as it is scored. Clips that already have one there, made
            by the same suite, configuration and versions from the same input, are not scored again.
        progress: Called with the number of clips done and the newest result, in input order.

    Raises:
        EvalError: If `workers` < 1, or if a path is given without `read`.
        UnknownNameError: On an unknown suite or evaluator.
    """
    if workers < 1:
        raise EvalError(expected="workers >= 1", got=workers, remedy="Use 1 for this process alone.")
    resolved = Suite.of(suite)
    folder = None if out is None else Path(out)
    jobs = ((i, c, resolved, read, folder) for i, c in enumerate(_checked(clips, read)))
    results: list[Report | Failure] = []
    for result in run_ordered(_score_one, jobs, workers):
        results.append(result)
        if progress is not None:
            progress(len(results), result)
    return BatchReport(results=tuple(results))


def run_ordered(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """Yields `work(job)` in the order of `jobs`, over `workers` processes with two jobs each in flight."""
    if workers == 1:
        yield from map(work, jobs)
        return
    # Forking a process that holds threads (torch, OpenCV) can deadlock the child.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        waiting: deque[Future[Result]] = deque()
        for job in jobs:
            with _one_thread_each():  # submitting starts a process where there are fewer than asked for
                waiting.append(pool.submit(work, job))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside get one thread: numerical libraries read their number when they load.

    Workers with as many threads as there are cores wait for each other: measured, twice the time on two cores.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _checked(clips: Iterable[Clip | str | Path], read: Reader | None) -> Iterator[Clip | Path]:
    for clip in clips:
        if isinstance(clip, Clip):
            yield clip
        elif isinstance(clip, (str, Path)) and read is not None:
            yield Path(clip)
        else:
            raise ClipError(
                expected="clips, or paths together with `read`",
                got=f"{type(clip).__name__} {clip!s:.80}",
                remedy="Pass read=..., a function from a path to a Clip.",
            )


def _score_one(job: tuple[int, Clip | Path, Suite, Reader | None, Path | None]) -> Report | Failure:
    index, source, suite, read, folder = job
    try:
        clip = source if isinstance(source, Clip) else _read(source, read)
    except Exception as error:  # noqa: BLE001 - one bad file among thousands is counted, not fatal
        return Failure.of(str(source), error)
    return score_saved(clip, suite, None if folder is None else folder / f"{index:06d}")


def _read(path: Path, read: Reader | None) -> Clip:
    assert read is not None
    clip = read(path)
    if not isinstance(clip, Clip):
        raise ClipError(expected="a Clip from `read`", got=type(clip).__name__, remedy="Return eval.Clip.")
    return clip


def _key(suite: Suite, clip: Clip) -> str:
    """What a stored result depends on: the input, the evaluators, their configuration, the versions."""
    made_by = [(e.name, e.version, sorted(e.config(**suite.config.get(e.name, {})).items())) for e in suite.evaluators]
    text = repr((clip.digest, clip.name, made_by, sorted(versions().items())))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
