"""Speed of Physics-IQ: whole videos in memory, against reading, masking and writing one frame at a time.

The slow side does what the published pipeline (google-deepmind/physics-IQ-benchmark) does, with the same library calls:
it reads every video, writes a video of its masks, reads the first take for its size, then reads all frames and masks,
and compares them frame by frame. Its conversion of frame rates, its tables on disk and its clean-up of memory are left
out. Both sides must give the same scores, up to the lossy mask files.

    python benchmarks/reference_metrics.py [--seconds 5] [--fps 30]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from eval.physics.agreement import Agreement, stack
from eval.physics.physics_iq import original_score, physics_iq, verified_score

Scores = tuple[float, float]
SIZES = ((64, 64), (144, 256), (360, 640))
NOISE_LEVELS = (0.0, 2.0)
SHIFTS = {"generated": 0.03, "take1": 0.0, "take2": 0.01}


def scene(frames: int, size: tuple[int, int], shift: float, noise: float) -> np.ndarray:
    """A textured ground and a ball on a parabola, moved sideways by `shift` widths; `noise` levels of camera noise."""
    height, width = size
    rng = np.random.default_rng(7)
    ground = cv2.GaussianBlur(rng.integers(90, 160, (height, width, 3), dtype=np.uint8), (0, 0), 3)
    t = np.linspace(0, 1, frames)
    x, y = width * (0.1 + 0.7 * t + shift), height * (0.85 - 2.2 * t * (1 - t))
    video = np.repeat(ground[None], frames, axis=0)
    for frame, cx, cy in zip(video, x, y, strict=True):
        cv2.circle(frame, (round(cx), round(cy)), round(height / 9), (255, 235, 225), -1, cv2.LINE_AA)
    if noise:
        for frame in video:
            frame[:] = np.clip(frame + rng.normal(0, noise, frame.shape), 0, 255)
    return video


def write(path: Path, frames: np.ndarray, fps: float, *, colour: bool) -> None:
    """Writes an mp4v file, as the published pipeline does."""
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, frames.shape[2:0:-1] if colour else frames.shape[:0:-1], colour
    )
    for frame in frames:
        writer.write(frame[..., ::-1] if colour else frame)
    writer.release()


def frames_of(path: Path, last: int, size: tuple[int, int] | None = None, *, unit: bool = False) -> list[np.ndarray]:
    """Decodes a whole video one frame at a time; keeps the first `last`, resized and on [0, 1] where asked."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        found, frame = capture.read()
        if not found:
            break
        if len(frames) < last:
            frame = frame if size is None else cv2.resize(frame, size)
            frames.append(frame / 255.0 if unit else frame)
    capture.release()
    return frames


def mask_file(source: Path, target: Path, fps: float) -> None:
    """Reads a video, masks it frame by frame and writes the masks."""
    capture = cv2.VideoCapture(str(source))
    _, frame = capture.read()
    background = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), (5, 5), 0).astype(np.float64)
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), fps, background.shape[::-1], isColor=False)
    writer.write(np.zeros(background.shape, np.uint8))
    square = np.ones((5, 5), np.uint8)
    while True:
        found, frame = capture.read()
        if not found:
            break
        grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), (5, 5), 0)
        cv2.accumulateWeighted(grey, background, 0.3)
        moved = cv2.threshold(cv2.absdiff(grey, cv2.convertScaleAbs(background)), 10, 255, cv2.THRESH_BINARY)[1]
        writer.write(cv2.morphologyEx(cv2.morphologyEx(moved, cv2.MORPH_OPEN, square), cv2.MORPH_CLOSE, square))
    writer.release()


def iou(mask: np.ndarray, other: np.ndarray) -> float:
    """Overlap of two masks; 1 where both are empty."""
    union = np.logical_or(mask, other).sum()
    return np.logical_and(mask, other).sum() / union if union else 1.0


def weighted_iou(often: np.ndarray, other: np.ndarray) -> float:
    """Overlap of how often each pixel moves."""
    known = np.maximum(often, other) > 0
    return np.minimum(often, other)[known].sum() / np.maximum(often, other)[known].sum() if known.any() else 1.0


def frame_at_a_time(videos: dict[str, Path], folder: Path, fps: float, count: int) -> Scores:
    """Original and Verified score through files; the generated video meets take 2 as well, though no score uses it."""
    mask_paths = {name: folder / f"mask_{name}.mp4" for name in videos}
    for name, path in videos.items():
        mask_file(path, mask_paths[name], fps)
    height, width = frames_of(videos["take1"], 1)[0].shape[:2]
    quarter = (width // 4, height // 4)
    frames = {n: frames_of(p, count, quarter, unit=True) for n, p in videos.items()}
    # A mask file is read back as three equal channels, and compared as such.
    masks = {n: [(m > 127).astype(np.uint8) for m in frames_of(p, count, quarter)] for n, p in mask_paths.items()}
    ever = {n: np.max(m, axis=0) for n, m in masks.items()}
    often = {n: np.asarray(np.sum(m, axis=0, dtype=np.uint16) / len(m)) for n, m in masks.items()}

    def table(a: str, b: str) -> Agreement:
        pairs = zip(frames[a], frames[b], strict=True)
        mse = [np.mean((x.astype(np.float32) - y.astype(np.float32)) ** 2) for x, y in pairs]
        per_frame = [iou(x, y) for x, y in zip(masks[a], masks[b], strict=True)]
        ious = np.array(iou(ever[a], ever[b])), np.array(weighted_iou(often[a], often[b]))
        return stack([[Agreement(np.array(mse), np.array(per_frame), *ious)]])

    candidate, variance = table("generated", "take1"), table("take1", "take2")
    table("generated", "take2")
    return original_score(candidate, variance).score, verified_score(candidate, variance).score


def in_memory(videos: list[list[list[np.ndarray]]], fps: float, seconds: float) -> Scores:
    """Original and Verified score from arrays."""
    found = physics_iq(*videos, fps=fps, seconds=seconds)
    return found.original, found.verified


def best_of(runs: int, work: Callable[[], Scores]) -> tuple[float, Scores]:
    """Shortest wall time of several runs in ms, and the last result."""
    wall, result = [], (float("nan"), float("nan"))
    for _ in range(runs):
        start = time.perf_counter()
        result = work()
        wall.append(time.perf_counter() - start)
    return min(wall) * 1e3, result


def main() -> None:
    """Prints one line a frame size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    frames = round(args.seconds * args.fps)
    print(f"one view, three videos of {frames} frames, one thread; wall time, best of {args.runs} runs")
    for size, noise in ((s, n) for s in SIZES for n in NOISE_LEVELS):
        videos = {n: scene(frames, size, shift, noise) for n, shift in SHIFTS.items()}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            paths = {n: folder / f"{n}.mp4" for n in videos}
            for n, video in videos.items():
                write(paths[n], video, args.fps, colour=True)
            # The arrays are what the files hold, so that both sides see the same lossy frames.
            decoded = [[[np.stack(frames_of(p, frames))[..., ::-1].copy()]] for p in paths.values()]
            slow, scores = best_of(args.runs, lambda: frame_at_a_time(paths, folder, args.fps, frames))  # noqa: B023
            fast, found = best_of(args.runs, lambda: in_memory(decoded, args.fps, args.seconds))  # noqa: B023
        print(
            f"{size[0]:4d}x{size[1]:<4d} noise {noise:.0f}   frame at a time {slow:7.1f} ms   in memory {fast:6.1f} ms "
            f"({slow / fast:4.1f} times)   Original {scores[0]:.2f} | {found[0]:.2f}   "
            f"Verified {scores[1]:.4f} | {found[1]:.4f}"
        )


if __name__ == "__main__":
    main()
