"""Data on disk: how fast frames are recorded, and how fast training windows are read back.

`python benchmarks/data.py` records 100,000 Bounce frames with all their truth by two workers. Processor seconds tell
what the work costs where other programs share the cores and wall-clock time cannot.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from worldsim.data import Dataset, Windows, record

BATCH, LENGTH = 16, 20


def cpu_s() -> float:
    """Processor seconds of this process and of its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and processor seconds of one call."""
    wall, cpu = time.perf_counter(), cpu_s()
    work()
    return time.perf_counter() - wall, cpu_s() - cpu


def windows_per_s(dataset: Dataset, *, memory_gib: float, workers: int, batches: int) -> float:
    """Frames a second that windows give."""
    windows = Windows(dataset, LENGTH, batch_size=BATCH, seed=0, memory_gib=memory_gib, workers=workers)
    wall, _ = timed(lambda: list(islice(iter(windows), batches)))
    return batches * BATCH * LENGTH / wall


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--env", default="envs:Bounce-v0")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset"
        episodes = -(-options.frames // 201)  # 200 steps each
        job = {"episodes": episodes, "max_steps": 200, "seed": 0, "path": path, "workers": options.workers}
        wall, cpu = timed(lambda: record(options.env, progress=False, **job))
        dataset = Dataset.open(path)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        figures = {
            "env": options.env,
            "frames": dataset.num_frames,
            "truth_keys": len(dataset.truth_keys),
            "record_s": round(wall, 1),
            "record_cpu_s": round(cpu, 1),
            "record_frames_per_s": round(dataset.num_frames / wall),
            "bytes_per_frame": round(size / dataset.num_frames),
            "load_s": round(timed(lambda: dataset.read("frames"))[0], 2),
            "windows_from_memory_frames_per_s": round(windows_per_s(dataset, memory_gib=16, workers=0, batches=200)),
            "windows_from_disk_frames_per_s": round(windows_per_s(dataset, memory_gib=0, workers=0, batches=20)),
            "windows_from_disk_2_threads_frames_per_s": round(
                windows_per_s(dataset, memory_gib=0, workers=2, batches=20)
            ),
            "load_average": round(os.getloadavg()[0], 1),
            "cores": os.cpu_count(),
        }
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
