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
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from worldsim.config import ModelConfig
from worldsim.controls import Controls
from worldsim.dynamics import Dynamics
from worldsim.nn.masks import causal_mask
from worldsim.noise import clean_from_prediction
from worldsim.sampler import level_grid, sample
from worldsim.sampling import Sampling
from worldsim.simulator import Simulator, load
from worldsim.sizes import cost
from worldsim.state import State, frame_noise
from worldsim.transformer import Clip, Conditions, VideoDiT

# Operators by what they do; the first that fits counts.
KINDS = {
    "compiled kernels": ("cpp_fused", "triton"),
    "convolutions": ("conv",),
    "attention": ("bmm", "attention", "softmax"),
    "products": ("mm", "addmv"),
    "norms and activations": ("norm", "gelu", "silu", "rsqrt", "pow", "mean", "sum", "tanh"),
    "other arithmetic": ("addcmul", "mul", "add", "sub", "div", "cos", "sin", "polar", "where", "clamp"),
}
FIGURES = ("one_environment", "sixteen_environments", "options", "endurance", "oasis_shaped", "mixed_sizes")
# Frames, latent rows and columns of clips in a batch of mixed sizes: square, wide, tall; short and long.
MIXED = [(16, 8, 8), (8, 8, 16), (4, 16, 16), (16, 4, 8), (12, 16, 8), (1, 16, 16), (8, 8, 8), (16, 8, 4)]


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median_of(work: Callable[[], Tensor], calls: int = 5, budget_s: float = 5.0) -> tuple[float, Tensor]:
    """Median seconds of so many calls, or of fewer that take so long together; and what the last one gave."""
    times, given = [], torch.empty(0)

    def once() -> None:
        nonlocal given
        given = work()

    while len(times) < calls and sum(times) < budget_s:
        times.append(timed(once))
    return float(np.median(times)), given


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
        "operator_time": _operator_time(step),
    }


def step_options(name: str, steps: int, device: str) -> dict[str, object]:
    """Whether compiling and lower precision pay: the same steps in four ways."""
    found: dict[str, object] = {}
    for envs, precision, compiled in product((1, 16), ("float32", "bfloat16"), (False, True)):
        sim = load(name, device=device, precision=precision, compiled=compiled)
        state, actions = _warm(sim, envs)
        times = []
        for _ in range(steps):
            began = time.perf_counter()
            state = sim.step(state, actions, donate=True).state
            times.append(time.perf_counter() - began)
        case = f"{envs} in a batch, {precision}{', compiled' if compiled else ''}"
        found[case] = [round(float(np.percentile(times, p)) * 1e3, 2) for p in (50, 95)]
    return {"latency_ms_p50_p95": found}


def _warm(sim: Simulator, envs: int) -> tuple[State, np.ndarray]:
    state, _ = sim.reset(num_envs=envs, text="two red balls and a blue box" if sim.model.config.text else None)
    actions = np.zeros(envs, dtype=np.int64)
    for _ in range(sim.model.config.window + 1):
        state = sim.step(state, actions, donate=True).state
    return state, actions


def _operator_time(step: Callable[[], object], rounds: int = 5) -> dict[str, float]:
    """Shares of a step's operator time; what is left after arithmetic is copies, views and memory."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(rounds):
            step()
    shares = dict.fromkeys((*KINDS, "copies, views, memory"), 0.0)
    for event in found.key_averages():
        kind = next((k for k, names in KINDS.items() if any(n in event.key for n in names)), "copies, views, memory")
        shares[kind] += event.self_cpu_time_total
    total = sum(shares.values())
    return {kind: round(share / total, 3) for kind, share in shares.items()}


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


def oasis_shaped(width: int, depth: int, grid: tuple[int, int], device: str, rate: float) -> dict[str, object]:
    """Cached generation against full recomputation, with the same outputs from the same past.

    Medians of some frames are taken, of both; those of the frames between are interpolated.
    """
    torch.manual_seed(0)
    config = ModelConfig(
        latent_channels=16, width=width, depth=depth, heads=max(1, width // 64), mlp_ratio=4.0, window=32,
        modulation="block", qk_norm=False, grid_positions="pixel", action_dim=25, action_token=False,
        heads_out=False, path="variance_preserving", prediction="velocity",
    )  # fmt: skip
    model = VideoDiT(config).to(device).eval().requires_grad_(requires_grad=False)
    for weight in model.parameters():  # a new model predicts zero whatever it sees
        weight.copy_(torch.randn_like(weight) * (weight[0].numel() if weight.ndim > 1 else 25) ** -0.5)
    exact = Dynamics(model, Sampling(steps=10, cache="exact", context_level=0.015, context_noise=False))
    rolling = Dynamics(model, Sampling(steps=10, cache="rolling", context_level=0.015, context_noise=False))
    window, past = config.window, torch.randn(1, config.window, 16, *grid, device=device)
    slow, quick, difference = {}, {}, 0.0
    with torch.inference_mode():
        _, advance = _next_frame(exact, past[:, :1])
        advance()  # warms the allocator up
        for i in (1, window // 2, window - 1, window):  # the window fills; then it slides
            _, advance = _next_frame(exact, past[:, :i])
            quick[i], found = median_of(advance)
            if i != window - 1:  # as many frames pass through the network as when the window slides
                slow[i], again = median_of(lambda i=i: _recomputed(exact, past[:, :i], i))
                difference = max(difference, float((again - found).abs().max()))
        slow[window - 1] = slow[window]
        model_passes, advance = _next_frame(rolling, past)
        rolled, _ = median_of(advance)
        spent = _operator_time(advance, rounds=1)
    filling = range(1, window)
    first, first_quick = (float(np.interp(filling, list(t), list(t.values())).sum()) for t in _in_order(slow, quick))
    flops = cost(config, latent_grid=grid).flops_per_pass * model_passes
    return {
        "width_depth_grid": [width, depth, list(grid)],
        "parameters": sum(p.numel() for p in model.parameters()),
        "largest_difference_of_latents": difference,
        "first_32_frames_ratio": round(first / first_quick, 1),
        "sliding_exact_ratio": round(slow[window] / quick[window], 1),
        "sliding_rolling_ratio": round(slow[window] / rolled, 1),
        "seconds_full_p50": {i: round(t, 3) for i, t in slow.items()},
        "seconds_cached_p50": {i: round(t, 3) for i, t in quick.items()},
        "seconds_rolling_p50": round(rolled, 3),
        "share_of_matrix_rate_rolling": round(flops / rolled / rate, 3),
        "operator_time_rolling": spent,
    }


def _in_order(*times: dict[int, float]) -> list[dict[int, float]]:
    return [dict(sorted(t.items())) for t in times]


def _next_frame(dynamics: Dynamics, past: Tensor) -> tuple[int, Callable[[], Tensor]]:
    """The number of passes over the frame after the given latent ones, and what makes it, as often as wanted."""
    device, known = str(past.device), past.shape[1]
    state = dynamics.blank([0], [None], (past.shape[3], past.shape[4]), fingerprint="")
    actions = torch.cat([_action(i, device) for i in range(known)], dim=1)
    state = dynamics.prefill(state, past, _controls(dynamics, actions, torch.arange(known, device=device)[None] > 0))
    action = _action(known, device)
    controls = _controls(dynamics, action, torch.ones_like(action[..., 0]).bool())
    # A step writes in place; what it writes is what the next call of the same writes again.
    return dynamics.sampling.steps + 1, lambda: dynamics.advance(state, controls)[1]


def _controls(dynamics: Dynamics, actions: Tensor, known: Tensor) -> Controls:
    unknown = Controls.unknown(len(actions), actions.shape[1], dynamics.model.config, actions)
    return replace(unknown, actions=actions, has_action=known)


def _action(frame: int, device: str) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor([[frame % 25]], device=device), 25).float()


def _recomputed(dynamics: Dynamics, frames: Tensor, i: int) -> Tensor:
    """Frame i by passes over the whole window, as published: no cache."""
    model, device = dynamics.model, str(frames.device)
    begin = max(0, i - model.config.window + 1)
    context, positions = frames[:, begin:], torch.arange(begin, i + 1, device=device)
    actions = torch.cat([_action(j, device) for j in positions.tolist()], dim=1)
    conditions = Conditions(actions=actions, has_action=positions[None] > 0)
    mask = causal_mask(len(positions), model.config.window, device=frames.device)

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        levels = torch.full((1, len(positions)), 0.015, device=device)
        levels[:, -1] = level
        out = model(torch.cat((context, x), dim=1), levels, conditions, positions=positions, mask=mask)
        return clean_from_prediction(model.path, "velocity", out.prediction[:, -1:], x, level.expand(1, 1))

    noise = frame_noise(torch.tensor([0]), torch.tensor([i]), frames.shape[2:])[:, None].to(frames)
    return sample(denoise, noise, level_grid(10, model.path), model.path)


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
        spent = _operator_time(lambda: model.forward_packed(clips))
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
