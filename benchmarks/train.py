"""Training speed: tokens a second, the share of the machine's own matrix-multiply rate, and what the data cost.

python benchmarks/train.py [--preset bounce] [--updates 6] [--precision bfloat16] [--device cpu] [--compile]
python benchmarks/train.py --size 100m --batch 2    # a transformer of that size instead of the preset's
python benchmarks/train.py --mixed    # windows of three sizes: packed, padded to the largest, and size by size
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces

from worldsim.data import Dataset, DatasetWriter
from worldsim.sizes import cost, size
from worldsim.training import TrainConfig
from worldsim.training.ahead import Ahead
from worldsim.training.batches import LatentBatch
from worldsim.training.data import LatentSource
from worldsim.training.draws import generators_for, normal
from worldsim.training.losses import dynamics_loss
from worldsim.training.memory import keep_freed_memory
from worldsim.training.phase import autocast, pick_device
from worldsim.training.presets import preset
from worldsim.transformer import VideoDiT

ACTIONS = 5
# Windows x frames x rows x columns of the latent grid: square, wide, and tall and brief.
SHAPES = [(4, 20, 8, 8), (2, 20, 8, 16), (2, 10, 12, 8)]
# A backward pass costs twice a forward one.
FORWARD_AND_BACKWARD = 3


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="bounce")
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="run the blocks through torch.compile")
    parser.add_argument("--size", help="a size of `worldsim info` for the transformer")
    parser.add_argument("--batch", type=int, help="windows an update")
    parser.add_argument("--mixed", action="store_true", help="only windows of mixed sizes")
    options = parser.parse_args()
    device = pick_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()  # as training does
    config = preset(options.preset, "data")
    if options.size:
        config = replace(config, model=size(options.size))
    if options.batch:
        config = replace(config, optimiser=replace(config.optimiser, batch_size=options.batch))
    if options.mixed:
        mixed(config, options.updates, options.precision, device)
        return
    peak = matmul_rate(device, torch.bfloat16 if options.precision == "bfloat16" else torch.float32)
    threads = torch.get_num_threads()
    print(f"matrix products, {options.precision}, on {device} with {threads} threads: {peak / 1e9:.0f} GFLOP/s")
    seconds, tokens, flops = updates(config, options.updates, options.precision, device, compiled=options.compile)
    rate, name = flops / seconds, options.size or options.preset
    print(f"{'model':<10}{'s an update':>14}{'tokens/s':>12}{'GFLOP/s':>12}{'share':>9}")
    print(f"{name:<10}{seconds:>14.3f}{tokens / seconds:>12.0f}{rate / 1e9:>12.1f}{rate / peak:>9.1%}")
    made, noise, waited = data(config, device, seconds)
    print(f"a batch takes {1e3 * made:.2f} ms to prepare, in a thread; an update waits {1e3 * waited:.2f} ms for it")
    print(f"({waited / seconds:.2%}) and draws its noise in {1e3 * noise:.2f} ms ({noise / seconds:.2%})")


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations a second of a square matrix product, the best of several."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        best = min(best, timed(lambda: a @ b, device))
    return 2 * size**3 / best


def updates(
    config: TrainConfig, count: int, precision: str, device: torch.device, *, compiled: bool
) -> tuple[float, int, float]:
    """Median seconds of an update, its tokens (both streams), and its operations."""
    model = model_of(config, device)
    if compiled:
        model.compile_blocks()
    b, f = config.optimiser.batch_size, config.dynamics.length
    update = updating(model, config, precision, [[windows(model, (b, f, 8, 8))]])
    for _ in range(2):  # the optimiser's state comes with the first, and its memory is new to the second
        update()
    times = sorted(timed(update, device) for _ in range(count))
    found = cost(model.config, latent_grid=(8, 8))
    return (
        times[count // 2],
        2 * b * f * found.tokens,
        b * f * (FORWARD_AND_BACKWARD * 2 * found.flops_per_pass + found.flops_per_forecast),
    )


def mixed(config: TrainConfig, count: int, precision: str, device: torch.device) -> None:
    """Prints the speed of updates over windows of several sizes and durations, three ways, by turns."""
    model = model_of(config, device)
    groups = [windows(model, shape) for shape in SHAPES]
    largest = tuple(max(shape[i] for shape in SHAPES) for i in (1, 2, 3))
    padded = windows(model, (sum(shape[0] for shape in SHAPES), *largest))
    # Attention to the padding is not masked out, which would only add to its cost.
    ways = {"packed": [groups], "padded to the largest": [[padded]], "size by size": [[g] for g in groups]}
    every = {way: updating(model, config, precision, parts) for way, parts in ways.items()}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(count + 1):
        for way, update in every.items():
            times[way].append(timed(update, device))
    tokens = sum(2 * b * f * (h * w // model.config.patch**2 + 1) for b, f, h, w in SHAPES)
    print(f"windows x frames x latent grid: {', '.join(str(shape) for shape in SHAPES)}; {tokens} tokens")
    for way, found in times.items():
        seconds = float(np.median(found[1:]))
        print(f"{way:<24}{seconds:>8.3f} s an update{tokens / seconds:>12.0f} tokens/s")


def model_of(config: TrainConfig, device: torch.device) -> VideoDiT:
    """The untrained transformer of a run."""
    torch.manual_seed(0)
    return VideoDiT(replace(config.model, action_dim=ACTIONS)).to(device)


def updating(
    model: VideoDiT, config: TrainConfig, precision: str, parts: Sequence[Sequence[LatentBatch]]
) -> Callable[[], None]:
    """An update over parts of a batch, one after another, each of groups of windows of one shape."""
    device = model.patchify.weight.device
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    quiet = replace(config.dynamics, bidirectional=0.0)

    def update() -> None:
        optimiser.zero_grad(set_to_none=True)
        for groups in parts:
            rows = range(sum(len(g.latents) for g in groups))
            with autocast(device, precision):
                loss, _ = dynamics_loss(model, groups, quiet, generators_for(0, "bench", 0, rows), feedback=False)
            loss.backward()
        optimiser.step()

    return update


def windows(model: VideoDiT, shape: tuple[int, ...]) -> LatentBatch:
    """Windows of (windows, frames, rows, columns of the latent grid)."""
    device = model.patchify.weight.device
    b, f, h, w = shape
    return LatentBatch(
        latents=torch.randn(b, f, model.config.latent_channels, h, w, device=device),
        actions=torch.rand(b, f, ACTIONS, device=device),
        rewards=torch.zeros(b, f, device=device),
        terminated=torch.zeros(b, f, dtype=torch.bool, device=device),
        known=torch.ones(b, f, dtype=torch.bool, device=device),
        texts=["a black ball, two red boxes and a blue disc fly under gravity"] * b,
    )


def data(config: TrainConfig, device: torch.device, update_s: float) -> tuple[float, float, float]:
    """Seconds to make a batch of latents, to draw its noise, and to wait for it where it is prepared ahead."""
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        path = Path(folder) / "data"
        with DatasetWriter(path, action_space=spaces.Discrete(ACTIONS), fps=10) as writer:
            for _ in range(100):
                frames = np.zeros((101, 64, 64, 3), np.uint8)
                writer.add_episode(frames, rng.integers(0, ACTIONS, 100), caption="a black ball and a red box")
        dataset = Dataset.open(path)
        channels, size = config.model.latent_channels, config.optimiser.batch_size
        np.save(path.with_suffix(".npy"), rng.normal(size=(dataset.num_frames, channels, 8, 8)).astype(np.float16))
        source = LatentSource(dataset, np.load(path.with_suffix(".npy"), mmap_mode="r"), config, 1.0)
        rows, shape = range(size), (size, config.dynamics.length, channels, 8, 8)

        def make(step: int, part: range) -> LatentBatch:
            return source.batch(step, device, part)

        def noise() -> None:
            generators = generators_for(0, "bench", 0, rows)
            for _ in range(2):
                normal(shape, generators).to(device)

        made = sorted(timed(lambda i=i: make(i, rows), device) for i in range(20))[10]
        drawn = sorted(timed(noise, device) for _ in range(20))[10]
        waits = []
        with Ahead(make, [rows], 1) as ahead:
            for step in range(6):
                waits.append(timed(lambda step=step: ahead(step, rows), device))
                time.sleep(min(update_s, 0.2))  # an update goes on meanwhile
        return made, drawn, sorted(waits)[3]


def timed(action: Callable[[], object], device: torch.device) -> float:
    """Seconds that it takes."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
