"""Training windows: batches of short runs of frames, each a pure function of seed and step."""

import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from worldsim.data.dataset import Dataset
from worldsim.data.layout import CAMERA, restore_actions
from worldsim.errors import ConfigError, DatasetError


class ShortEpisodesWarning(UserWarning):
    """Some episodes are shorter than the window and give none."""


class Windows:
    """Infinite, deterministic, resumable batches of windows of `length` frames that never cross an episode's end.

    `batch(step)` depends on the dataset, the arguments and `step` alone, so that a resumed run sees what it would have
    seen. Iterating yields `batch(self.step)` and counts `step` up; with `workers`, threads prepare batches ahead.

    A batch is a dictionary: `frames` uint8 (B, T, H, W, 3), `actions` (B, T-1, ...) stacked as in `Episode.actions`,
    `rewards` float32 (B, T-1), `terminated` bool (B, T-1), `captions` list of B strings (empty where there is none),
    `episode` int64 (B,) and `start` int64 (B,), the window's first frame within its episode; and `camera` float32
    (B, T-1, 6) if the dataset has the camera's motion.

    Args:
        dataset: Where the windows come from.
        length: Frames of a window, T.
        batch_size: Windows of a batch, B.
        seed: Everything random follows from it.
        weights: (num_frames,) importance of each frame, not negative; a window is drawn in proportion to the sum over
            its frames. None draws all windows alike.
        episodes: Episodes to draw from; None takes all.
        workers: Threads that prepare batches ahead when iterating; 0 prepares them on demand.
        memory_gib: Frames that take less than this are loaded once, more are read window by window; the rest is loaded.
        frames: Whether batches carry frames; without them none are read.

    Raises:
        ConfigError: If a number is out of range or the weights do not fit.
        DatasetError: If no episode is long enough.
    """

    def __init__(
        self,
        dataset: Dataset,
        length: int,
        *,
        batch_size: int,
        seed: int,
        weights: np.ndarray | None = None,
        episodes: Sequence[int] | np.ndarray | None = None,
        workers: int = 0,
        memory_gib: float = 4.0,
        frames: bool = True,
    ) -> None:
        for name, value, least in (
            ("length", length, 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("workers", workers, 0),
        ):
            if value < least:
                raise ConfigError(expected=f"{name} of at least {least}", got=value, remedy="Raise it.")
        self.dataset, self.length, self.batch_size, self.seed, self.workers = dataset, length, batch_size, seed, workers
        self.step = 0
        self._starts, self._owners = _window_starts(dataset, length, episodes)
        self._cumulative = _cumulative_weights(dataset, self._starts, length, weights)
        self._names = (*("frames",) * frames, "rewards", "terminated", *dataset.step_columns)
        frame_bytes = dataset.num_frames * int(np.prod(dataset.frame_size)) * 3
        in_memory = frame_bytes <= memory_gib * 2**30
        self._loaded = {name: dataset.read(name) for name in self._names if in_memory or name != "frames"}

    @property
    def num_windows(self) -> int:
        """Number of different windows."""
        return len(self._starts)

    def batch(self, step: int, rows: slice = slice(None)) -> dict[str, Any]:
        """The batch of that step, counted from 0, or some rows of it: what one of several processes takes."""
        rng = np.random.default_rng([self.seed, step])
        total = self._cumulative[-1]
        picks = np.searchsorted(self._cumulative, rng.random(self.batch_size) * total, side="right")
        picks = np.minimum(picks[rows], len(self._starts) - 1)
        starts, owners = self._starts[picks], self._owners[picks]
        columns = {name: self._gather(name, starts) for name in self._names}
        for name in columns.keys() - {"frames"}:
            columns[name] = columns[name][:, :-1]
        return {
            **{name: columns[name] for name in ("frames", CAMERA) if name in columns},
            "actions": restore_actions(self.dataset.action_space, columns),
            "rewards": columns["rewards"],
            "terminated": columns["terminated"],
            "captions": [self.dataset.captions[i] for i in owners],
            "episode": owners,
            "start": starts - self.dataset.starts[owners],
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.workers == 0:
            while True:
                self.step += 1
                yield self.batch(self.step - 1)
        with ThreadPoolExecutor(self.workers, thread_name_prefix="windows") as pool:
            ahead: deque[Future[dict[str, Any]]] = deque()
            first = self.step
            while True:
                while len(ahead) < self.workers + 1:
                    ahead.append(pool.submit(self.batch, first + len(ahead)))
                batch = ahead.popleft().result()
                first += 1
                self.step = first
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` resumes."""
        return {
            "step": self.step,
            "seed": self.seed,
            "length": self.length,
            "batch_size": self.batch_size,
            "num_windows": self.num_windows,
            "digest": self.dataset.digest(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes where `state_dict` was taken.

        Raises:
            DatasetError: If the state belongs to another dataset.
            ConfigError: If the windows differ in seed, length, batch size or choice of episodes.
        """
        own = self.state_dict()
        if state["digest"] != own["digest"]:
            raise DatasetError(
                expected=f"the dataset that the run began with, {str(state['digest'])[:12]}",
                got=f"{self.dataset.path}, {own['digest'][:12]}",
                remedy="Point to that dataset, or begin a new run.",
            )
        for name in ("seed", "length", "batch_size", "num_windows"):
            if state[name] != own[name]:
                raise ConfigError(
                    expected=f"{name} {state[name]}, as in the run to resume", got=own[name], remedy="Begin a new run."
                )
        self.step = int(state["step"])

    def _gather(self, name: str, starts: np.ndarray) -> np.ndarray:
        if name in self._loaded:
            return self._loaded[name][starts[:, None] + np.arange(self.length)]
        return np.stack([self.dataset.read(name, int(s), int(s) + self.length) for s in starts])


def _window_starts(
    dataset: Dataset, length: int, episodes: Sequence[int] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """First frame (in the whole dataset) and episode of every window: two int64 (num_windows,)."""
    chosen = np.arange(len(dataset)) if episodes is None else np.asarray(episodes, dtype=np.int64)
    if len(chosen) == 0 or chosen.min() < 0 or chosen.max() >= len(dataset):
        raise ConfigError(expected=f"episodes in 0 ... {len(dataset) - 1}", got=episodes, remedy="Choose some.")
    counts = np.maximum(dataset.lengths[chosen] - length + 1, 0)
    short = int((counts == 0).sum())
    if short == len(chosen):
        raise DatasetError(
            expected=f"episodes of at least {length} frames",
            got=f"none; the longest has {int(dataset.lengths[chosen].max())}",
            remedy="Shorten the window or record longer episodes.",
        )
    if short:
        text = f"{short} of {len(chosen)} episodes are shorter than {length} frames and give no window"
        warnings.warn(text, ShortEpisodesWarning, stacklevel=3)
    owners = np.repeat(chosen, counts)
    offsets = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    return dataset.starts[owners] + offsets, owners


def _cumulative_weights(dataset: Dataset, starts: np.ndarray, length: int, weights: np.ndarray | None) -> np.ndarray:
    """Running sum of the windows' weights, (num_windows,)."""
    if weights is None:
        return np.arange(1, len(starts) + 1, dtype=np.float64)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (dataset.num_frames,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ConfigError(
            expected=f"({dataset.num_frames},) finite weights, not negative, one a frame",
            got=f"shape {weights.shape}",
            remedy="Give each frame of the dataset its importance.",
        )
    running = np.concatenate([[0.0], np.cumsum(weights)])
    cumulative = np.cumsum(np.maximum(running[starts + length] - running[starts], 0.0))
    if cumulative[-1] <= 0:
        raise ConfigError(expected="a window of weight above 0", got="none", remedy="Raise some weights.")
    return cumulative
