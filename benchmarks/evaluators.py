"""Speed and memory of the evaluators: a whole suite on many clips over processes.

`python benchmarks/evaluators.py` prints one JSON object. Clips are those of Bounce's scenarios, seen as pixels alone,
which is the slow way (objects have to be found). Wall time depends on what else runs, and includes the start of the
processes; processor time depends much less. `--section physics` runs one section. Geometry: `benchmarks/geometry.py`;
Physics-IQ: `benchmarks/reference_metrics.py`.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from envs.bounce.env import BounceEnv
from envs.bounce.scenarios import SCENARIOS
from eval import Clip, score_many


def bounce_clips(number: int, frames: int, size: int) -> Iterator[Clip]:
    """Clips of all scenarios in turn; actions change every six frames where there is an agent."""
    for seed in range(number):
        world = BounceEnv(scenario=list(SCENARIOS)[seed % len(SCENARIOS)], size=(size, size))
        rng = np.random.default_rng(seed)
        video, actions = [world.reset(seed=seed)[0]], []
        action = np.int64(0)
        for t in range(frames - 1):
            if t % 6 == 0:
                action = rng.integers(world.action_space.n)  # pyright: ignore[reportAttributeAccessIssue]
            video.append(world.step(action)[0])
            actions.append(action)
        moved = np.array(actions) if np.ptp(actions) else None
        yield Clip(frames=np.array(video), fps=10.0, actions=moved, name=f"{world.scenario} {seed}")


def suite_speed(suite: str, number: int, frames: int, size: int, workers: int) -> dict[str, float]:
    """Wall and processor seconds of scoring, without making the clips."""
    clips = list(bounce_clips(number, frames, size))
    start, before = time.perf_counter(), _processor_s()
    batch = score_many(clips, suite, workers=workers)
    wall = time.perf_counter() - start
    if batch.failures:
        raise RuntimeError(batch.failures[0].trace)
    return {"wall_s": round(wall, 2), "processor_s": round(_processor_s() - before, 2), "workers": workers}


def physics() -> dict[str, Any]:
    """The full physics suite on 64 clips of 64 frames at 64 x 64 (aim: under 60 s on 2 cores), and at 128 x 128."""
    return {
        "64 clips of 64 frames at 64 px": suite_speed("physics", 64, 64, 64, workers=2),
        "8 clips of 64 frames at 128 px": suite_speed("physics", 8, 64, 128, workers=2),
    }


def quality() -> dict[str, Any]:
    """The quality suite on 8 clips."""
    return {"8 clips of 64 frames at 64 px": suite_speed("quality", 8, 64, 64, workers=2)}


def memory() -> dict[str, Any]:
    """Peak resident memory of one process that scores a stream of 9, then of 36 clips: flat in the number."""
    figures = {}
    for number in (9, 36):
        score_many(bounce_clips(number, 48, 64), "physics")
        figures[f"peak_mib_after_{number}_clips"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return figures


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {"physics": physics, "quality": quality, "memory": memory}


def _processor_s() -> float:
    """Processor time of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--section", choices=SECTIONS, action="append")
    chosen = parser.parse_args().section or list(SECTIONS)
    print(json.dumps({name: SECTIONS[name]() for name in chosen}, indent=1))


if __name__ == "__main__":
    main()
