"""How fast a learned world steps, as figures and as ratios of one run.

`python benchmarks/step.py` prints one JSON object: the shipped world for 1 and 16 environments, plain, compiled and in
bfloat16; its step after 5,000 frames against after 100; an Oasis-shaped model (window 32, 10 steps, width as released,
fewer blocks) with a cache against full recomputation; mixed sizes packed against padded; and the rate of matrix
products, against which all of it can be held. Medians and best times are given for machines that other programs share;
`load_average` tells whether they did. `--only` runs some.
"""

import argparse
import gc
import json
import os
import resource
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from stepping.oasis_shaped import oasis_shaped
from stepping.timing import operator_time, timed
from torch.utils.flop_counter import FlopCounterMode

from worldsim.nn.masks import causal_mask
from worldsim.simulator import Simulator, load
from worldsim.state import State
from worldsim.transformer import Clip, Conditions, Precision

FIGURES = ("one_environment", "sixteen_environments", "options", "endurance", "oasis_shaped", "mixed_sizes")
# Frames, latent rows and columns of clips in a batch of mixed sizes: square, wide, tall; short and long.
MIXED = [(16, 8, 8), (8, 8, 16), (4, 16, 16), (16, 4, 8), (12, 16, 8), (1, 16, 16), (8, 8, 8), (16, 8, 4)]


def matrix_rate(device: str) -> float:
    """Floating-point operations a second of a large float32 product, the best of many."""
    a = torch.randn(1024, 1024, device=device)
    return 2 * 1024**3 / min(timed(lambda: a @ a) for _ in range(30))


def resident_mib() -> float:
    """Memory that the process holds now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def shipped(name: str, envs: int, steps: int, device: str, rate: float) -> dict[str, object]:
    """Speed, latency and what a step is spent on, with a full window."""
    sim = load(name, device=device)
    state, actions = _warm(sim, envs)

    def step() -> None:
        nonlocal state
        state = sim.step(state, actions, donate=True).state

    cpu = time.process_time()
    times = [timed(step) for _ in range(steps)]
    cpu = (time.process_time() - cpu) / steps
    with torch.inference_mode():
        latents = state.recent(1)[0]
        decoding = [timed(lambda: sim.tokenizer.decode(latents)) for _ in range(steps)]
        counter = FlopCounterMode(display=False)
        with counter:
            step()
    median, flops = float(np.median(times)), counter.get_total_flops()
    return {
        "frames_per_s": round(envs * steps / sum(times), 1),
        "frames_per_s_median": round(envs / median, 1),
        "frames_per_s_best": round(envs / min(times), 1),
        "latency_ms_p50_p95": [round(float(np.percentile(times, p)) * 1e3, 2) for p in (50, 95)],
        "cpu_ms_a_step": round(cpu * 1e3, 2),
        "decoder_share": round(float(np.median(decoding)) / median, 3),
        "gflop_a_step": round(flops / 1e9, 3),
        "share_of_matrix_rate": round(flops / median / rate, 3),
        "operator_time": operator_time(step),
    }


def step_options(name: str, steps: int, device: str, batches: tuple[int, ...] = (1, 16)) -> dict[str, object]:
    """Whether compiling and lower precision pay: the same steps in four ways, in turns."""
    found: dict[str, object] = {}
    ways = {
        f"{precision}{', compiled' if compiled else ''}": load(
            name, device=device, precision=precision, compiled=compiled
        )
        for precision, compiled in product(get_args(Precision), (False, True))
    }
    for envs in batches:
        states = {way: _warm(sim, envs) for way, sim in ways.items()}
        times: dict[str, list[float]] = {way: [] for way in ways}

        def step(way: str, states: dict[str, tuple[State, np.ndarray]] = states) -> None:
            state, actions = states[way]
            states[way] = ways[way].step(state, actions, donate=True).state, actions

        for _ in range(steps):
            for way in ways:
                times[way].append(timed(lambda way=way: step(way)))
        found[f"latency_ms_p50_p95_of_{envs}"] = {
            way: [round(float(np.percentile(t, p)) * 1e3, 2) for p in (50, 95)] for way, t in times.items()
        }
    return found


def _warm(sim: Simulator, envs: int) -> tuple[State, np.ndarray]:
    state, _ = sim.reset(num_envs=envs, text="two red balls and a blue box" if sim.model.config.text else None)
    actions = np.zeros(envs, dtype=np.int64)
    for _ in range(sim.model.config.window + 1):
        state = sim.step(state, actions, donate=True).state
    return state, actions


def endurance(name: str, early: int, late: int, device: str) -> dict[str, object]:
    """Step time and memory of a long episode against those of its beginning, measured in turns."""
    sim = load(name, device=device)
    state, _ = sim.reset(seed=1)
    action = np.zeros(1, dtype=np.int64)
    kept, memory = state, 0.0
    for frame in range(late):
        state = sim.step(state, action, donate=True).state
        if frame == early:
            kept, memory = state.clone(), resident_mib()
    grown = resident_mib() - memory
    pairs = [  # donated states are written over again and again, so that no copy is timed
        (timed(lambda: sim.step(kept, action, donate=True)), timed(lambda: sim.step(state, action, donate=True)))
        for _ in range(100)
    ]
    first, last = np.median(np.array(pairs), axis=0)
    return {
        "frames": [early, late],
        "step_time_ratio": round(float(last / first), 3),
        "resident_mib_early": round(memory, 1),
        "resident_mib_grown": round(grown, 2),
    }


def packed(name: str, device: str, rate: float, rounds: int = 12) -> dict[str, object]:
    """A forward pass over clips of mixed sizes, packed without padding against padded to the largest."""
    model = load(name, device=device).model
    channels, dim = model.config.latent_channels, model.config.action_dim
    text = model.encode_text([None])
    clips = [
        Clip(
            latents=torch.randn(f, channels, h, w, device=device),
            levels=torch.rand(f, device=device),
            positions=torch.arange(f, device=device),
            conditions=Conditions(actions=torch.zeros(1, f, dim, device=device), text=text),
        )
        for f, h, w in MIXED
    ]
    f, h, w = (max(shape[k] for shape in MIXED) for k in range(3))
    batch = torch.randn(len(MIXED), f, channels, h, w, device=device)
    levels, actions = torch.rand(len(MIXED), f, device=device), torch.zeros(len(MIXED), f, dim, device=device)
    conditions = Conditions(actions=actions, text=None if text is None else text.expand(len(MIXED), -1, -1))
    mask = causal_mask(f, model.config.window, device=batch.device)
    positions = torch.arange(f, device=device)
    with torch.inference_mode():
        pairs = [
            (
                timed(lambda: model(batch, levels, conditions, positions=positions, mask=mask)),
                timed(lambda: model.forward_packed(clips)),
            )
            for _ in range(rounds)
        ]
        counter = FlopCounterMode(display=False)
        with counter:
            model.forward_packed(clips)
        spent = operator_time(lambda: model.forward_packed(clips))
    padded_s, packed_s = np.median(np.array(pairs[1:]), axis=0)
    real, filled = sum(a * b * c for a, b, c in MIXED), len(MIXED) * f * h * w
    return {
        "clips_frames_rows_columns": MIXED,
        "padded_over_packed": round(float(padded_s / packed_s), 2),
        "cells_padded_over_real": round(filled / real, 2),
        "share_of_matrix_rate": round(counter.get_total_flops() / float(packed_s) / rate, 3),
        "operator_time": spent,
    }


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="bounce", help="shipped name or directory of a checkpoint")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", default=FIGURES, choices=FIGURES, help="which figures; all by default")
    parser.add_argument("--steps", type=int, default=100, help="timed steps of the shipped world")
    parser.add_argument("--late", type=int, default=5000, help="frames of the long episode")
    parser.add_argument(
        "--width", type=int, default=1024, help="width of the Oasis-shaped model, by default as released"
    )
    parser.add_argument("--depth", type=int, default=1, help="its depth (released: 16)")
    parser.add_argument("--grid", type=int, nargs=2, default=(18, 32), help="its latent grid (released: 18 32)")
    options = parser.parse_args()
    world, device, rate = options.world, options.device, matrix_rate(options.device)
    measures: dict[str, Callable[[], dict[str, object]]] = {
        "one_environment": lambda: shipped(world, 1, options.steps, device, rate),
        "sixteen_environments": lambda: shipped(world, 16, options.steps, device, rate),
        "endurance": lambda: endurance(world, 100, options.late, device),
        "options": lambda: step_options(world, options.steps, device),
        "oasis_shaped": lambda: oasis_shaped(options.width, options.depth, tuple(options.grid), device, rate),
        "mixed_sizes": lambda: packed(world, device, rate),
    }
    figures: dict[str, object] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads",
        "cores": os.cpu_count(),
        "load_average_before": round(os.getloadavg()[0], 1),
        "matrix_gflop_per_s": round(rate / 1e9, 1),
        **{name: measure() for name, measure in measures.items() if name in options.only},
        "load_average_after": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
