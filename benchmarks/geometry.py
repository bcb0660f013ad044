"""Speed of the 3D-coherence measures, on Room at its own depth, poses and segmentation.

`python benchmarks/geometry.py` prints one JSON object. Pairs are per processor second of one thread, which other
programs on the machine hardly change; structure from motion is timed on two threads. The peak of memory is taken over
clips of two lengths: it must not grow by more than the longer clip itself.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from envs.room.violations import pair
from eval.clip import Clip
from eval.geometry.colours import compare_colours
from eval.geometry.known_depth import check_pair, views
from eval.geometry.known_pose import sweep_clip
from eval.geometry.objects import check_slide, faces
from eval.geometry.pose import check_intrinsics
from eval.geometry.sfm import is_available, reconstruct

SEED = 7


def filmed(size: int, num_frames: int, *, motion: str = "rest") -> Clip:
    """A lawful clip of Room."""
    env = {"factors": {"motion": motion}}
    record, _ = pair("camera_wobble", SEED, 0.0, size=(size, size), num_frames=num_frames, camera_path="orbit", env=env)
    kept = ("depth_m", "segmentation", "world_from_camera", "K", "world_from_object")
    truth = {k: np.asarray(record.truth[k]) for k in kept}
    return Clip(frames=record.frames, fps=record.fps, truth=truth)


def cpu_s(work: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def known_depth_pairs_per_s(clip: Clip, repeats: int) -> float:
    """Pairs of neighbouring frames that `check_pair` measures per processor second."""
    seen, K = views(clip)
    check_pair(seen[1], seen[0], K)

    def work() -> None:
        for _ in range(repeats):
            for i in range(1, len(seen)):
                check_pair(seen[i], seen[i - 1], K)

    return repeats * (len(seen) - 1) / cpu_s(work)


def object_pairs_per_s(clip: Clip, repeats: int) -> float:
    """Pairs of neighbouring frames whose objects `check_slide` measures per processor second, their faces included."""
    seen, K = views(clip)

    def work() -> None:
        for _ in range(repeats):
            ready = [faces(view, K) for view in seen]
            for i in range(1, len(ready)):
                check_slide(ready[i], ready[i - 1], K)

    return repeats * (len(seen) - 1) / cpu_s(work)


def swept_pairs_per_s(measure: Callable[..., Iterator[object]], clip: Clip) -> float:
    """Pairs that `sweep_clip` or `compare_colours` measures per processor second."""
    poses, K = clip.truth["world_from_camera"], check_intrinsics(clip.truth["K"])
    count = 0

    def work() -> None:
        nonlocal count
        count = sum(1 for _ in measure(clip.frames, poses, K))

    spent = cpu_s(work)
    return count / spent


def peak_mib() -> float:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    small = filmed(64, 24)
    figures: dict[str, float] = {
        "known_depth_pairs_per_cpu_s_64px": round(known_depth_pairs_per_s(small, options.repeats), 1),
        "known_depth_pairs_per_cpu_s_64px_moving_solids": round(
            known_depth_pairs_per_s(filmed(64, 24, motion="mixed"), options.repeats), 1
        ),
        "object_pairs_per_cpu_s_64px": round(object_pairs_per_s(small, options.repeats), 1),
        "known_depth_pairs_per_cpu_s_256px": round(known_depth_pairs_per_s(filmed(256, 8), 1), 1),
        "plane_sweep_pairs_per_cpu_s_64px": round(swept_pairs_per_s(sweep_clip, small), 1),
        "plane_sweep_pairs_per_cpu_s_128px": round(swept_pairs_per_s(sweep_clip, filmed(128, 10)), 1),
        "photo_consistency_pairs_per_cpu_s_64px": round(swept_pairs_per_s(compare_colours, small), 1),
        "photo_consistency_pairs_per_cpu_s_128px": round(swept_pairs_per_s(compare_colours, filmed(128, 10)), 1),
    }
    if is_available():
        large = filmed(256, 10)
        start, spent = time.perf_counter(), time.process_time()
        model = reconstruct(large.frames, K=large.truth["K"][0], threads=2)
        figures["sfm_10_frames_256px_wall_s"] = round(time.perf_counter() - start, 2)
        figures["sfm_10_frames_256px_cpu_s"] = round(time.process_time() - spent, 2)
        figures["sfm_registered"] = int(model.registered.sum())
    for name, measure in {"plane_sweep": sweep_clip, "photo_consistency": compare_colours}.items():
        swept_pairs_per_s(measure, small)
        before = peak_mib()
        swept_pairs_per_s(measure, filmed(64, 96))
        figures[f"{name}_growth_mib_24_to_96_frames"] = round(peak_mib() - before, 1)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
