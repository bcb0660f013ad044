"""`record`: episodes of any Gymnasium environment into a dataset, in one process or several."""

import multiprocessing
import queue
import signal
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np

from worldsim.data.dataset import Dataset
from worldsim.data.rollout import EpisodeEnd, Job, Policy, make_env, run_episode
from worldsim.data.writer import DatasetWriter
from worldsim.errors import ConfigError, DatasetError

_QUEUE_BLOCKS = 24  # blocks of about 4 MiB that a worker may be ahead by

Piece = dict[str, np.ndarray] | EpisodeEnd


def record(
    env_or_id: gym.Env | str,
    policy: Policy | None = None,
    *,
    episodes: int,
    seed: int,
    path: str | Path,
    max_steps: int | None = None,
    workers: int = 1,
    truth: bool | tuple[str, ...] = True,
    camera: bool = False,
    resize: int | tuple[int, int] | None = None,
    fps: float | None = None,
    progress: bool = True,
    **env_kwargs: Any,  # noqa: ANN401 - whatever the environment takes
) -> Dataset:
    """Records episodes of a Gymnasium environment.

    Frames are the observations if those are uint8 (H, W, 3), else what the environment renders. `info["caption"]` at
    reset and `info["truth"]` at every frame are stored where the environment gives them. The dataset depends on the
    environment, the policy and the seed, not on the number of workers: each episode has its own seed.

    Workers are started afresh ("spawn"): a script that asks for several needs the usual `if __name__ == "__main__":`.

    Args:
        env_or_id: An environment, or an id for `gymnasium.make`. Several workers need an id or an environment with a
            spec.
        policy: `policy(observation, info, rng) -> action`; each episode is played by a deep copy, so that no memory
            passes from one to the next. None acts at random, uniformly.
        episodes: How many.
        seed: Base seed.
        path: The dataset's directory; must not exist.
        max_steps: Longest episode; None for the environment's own limit.
        workers: Processes.
        truth: True stores every key of `info["truth"]`, False none, a tuple those keys.
        camera: Also store the camera's motion from frame to frame (`worldsim.camera`), which a world can be trained to
            take as a condition; follows from `info["truth"]["world_from_camera"]`.
        resize: Side, or (H, W), to which frames are resized by area; truth in pixels is left as it is. Worlds that
            take a `size` draw at it.
        fps: Frames per second; None takes the environment's `metadata["render_fps"]`.
        progress: Whether to show a progress bar on stderr.
        **env_kwargs: For `gymnasium.make`.

    Returns:
        The dataset, opened.

    Raises:
        UnknownNameError: If no such environment is registered, or it lacks the truth that is asked for.
        ConfigError: If an argument is out of range, or the environment gives no frames or no frame rate.
        ActionError: If the policy leaves the action space.
        DatasetError: If the path exists or is being written, or a worker dies.
    """
    for name, value in (
        ("episodes", episodes),
        ("workers", workers),
        ("max_steps", 1 if max_steps is None else max_steps),
    ):
        if value < 1:
            raise ConfigError(expected=f"{name} of at least 1", got=value, remedy="Raise it.")
    if seed < 0:
        raise ConfigError(expected="a seed of at least 0", got=seed, remedy="Choose another.")
    job = Job(
        env=env_or_id,
        env_kwargs=env_kwargs,
        policy=policy,
        seed=seed,
        max_steps=max_steps,
        resize=_size(resize),
        truth=truth,
        camera=camera,
    )
    env = make_env(env_or_id, env_kwargs)
    try:
        writer = DatasetWriter(
            path, action_space=env.action_space, fps=_fps(env, fps), about=_about(env, job, episodes)
        )
        with writer, ExitStack() as stack:
            count = stack.enter_context(_progress_bar(episodes)) if progress else lambda *_: None
            for piece in stack.enter_context(_pieces(env, job, episodes, min(workers, episodes))):
                if isinstance(piece, EpisodeEnd):
                    writer.end_episode(caption=piece.caption, seed=piece.seed)
                    count(1, 0)
                else:
                    writer.add_rows(piece)
                    count(0, len(piece["frames"]))
    finally:
        if env is not env_or_id:
            env.close()
    return Dataset.open(path)


def _size(resize: int | tuple[int, int] | None) -> tuple[int, int] | None:
    pair = (resize, resize) if isinstance(resize, int) else resize
    if pair is not None and (len(pair) != 2 or min(pair) < 1):
        raise ConfigError(expected="a size above 0, or (H, W)", got=resize, remedy="Pass pixels.")
    return pair


def _fps(env: gym.Env, fps: float | None) -> float:
    fps = fps if fps is not None else env.metadata.get("render_fps")
    if fps is None:
        raise ConfigError(expected="a frame rate", got=f"none in the metadata of {env}", remedy="Pass fps.")
    return float(fps)


def _about(env: gym.Env, job: Job, episodes: int) -> dict[str, Any]:
    spec = env.spec
    policy = "random" if job.policy is None else getattr(job.policy, "__qualname__", type(job.policy).__qualname__)
    return {
        "env_id": None if spec is None else spec.id,
        "env_kwargs": {} if spec is None else dict(spec.kwargs),
        "policy": policy,
        "seed": job.seed,
        "episodes": episodes,
        "max_steps": job.max_steps,
        "resize": job.resize,
        "truth": job.truth,
        "camera": job.camera,
    }


@contextmanager
def _progress_bar(episodes: int) -> Iterator[Any]:
    from rich.console import Console  # noqa: PLC0415 - only when a bar is shown
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        TextColumn("recording"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[frames]:,} frames"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("recording", total=episodes, frames=0)
        seen = 0

        def count(finished: int, frames: int) -> None:
            nonlocal seen
            seen += frames
            bar.update(task, advance=finished, frames=seen)

        yield count


@contextmanager
def _pieces(env: gym.Env, job: Job, episodes: int, workers: int) -> Iterator[Iterator[Piece]]:
    """All pieces of all episodes, in the order of the episodes, from this process or from workers."""
    if workers == 1:
        yield (piece for index in range(episodes) for piece in run_episode(env, job, index))
        return
    if isinstance(job.env, gym.Env):
        if env.spec is None:
            raise ConfigError(
                expected="an environment with a spec, so that workers can make their own",
                got=f"{env} without one",
                remedy="Pass its id, or workers=1.",
            )
        job = Job(**{**vars(job), "env": env.spec})
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(_QUEUE_BLOCKS) for _ in range(workers)]
    processes = [
        context.Process(target=_work, args=(cloudpickle.dumps(job), range(first, episodes, workers), out), daemon=True)
        for first, out in enumerate(queues)
    ]
    try:
        for process in processes:
            process.start()
        yield _in_order(processes, queues, episodes)
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()


def _in_order(processes: list[Any], queues: list[Any], episodes: int) -> Iterator[Piece]:
    # Episode i is played by worker i mod n: which worker plays what never depends on timing.
    for index in range(episodes):
        process, source = processes[index % len(processes)], queues[index % len(processes)]
        piece: Piece | None = None
        while not isinstance(piece, EpisodeEnd):
            piece = _receive(process, source)
            yield piece


def _receive(process: BaseProcess, source: Any) -> Piece:  # noqa: ANN401 - a multiprocessing queue
    while True:
        try:
            piece = source.get(timeout=1.0)
        except queue.Empty:
            if process.exitcode is not None and source.empty():
                raise DatasetError(
                    expected="workers that live",
                    got=f"one that ended with exit code {process.exitcode}",
                    remedy="See its message above; with too little memory use fewer workers.",
                ) from None
            continue
        if isinstance(piece, _Failure):
            raise piece.revive()
        return piece


class _Failure:
    """An exception on its way from a worker, with its traceback as text."""

    def __init__(self, error: Exception) -> None:
        self._kind, self._args, self._state = type(error), error.args, dict(vars(error))
        self._text = traceback.format_exc()

    def revive(self) -> Exception:
        error = self._kind.__new__(self._kind)
        error.args = self._args
        vars(error).update(self._state)
        error.add_note(f"in a worker:\n{self._text}")
        return error


def _work(pickled: bytes, indices: range, out: Any) -> None:  # noqa: ANN401 - a multiprocessing queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    job: Job = cloudpickle.loads(pickled)
    try:
        env = make_env(job.env, job.env_kwargs if isinstance(job.env, str) else {})
        for index in indices:
            for piece in run_episode(env, job, index):
                out.put(piece)
        env.close()
    except Exception as error:  # noqa: BLE001 - every failure is raised again in the parent
        out.put(_Failure(error))
