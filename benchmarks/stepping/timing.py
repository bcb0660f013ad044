"""How long calls take, and what the time is spent on."""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

# Operators by what they do; the first that fits counts.
KINDS = {
    "compiled kernels": ("cpp_fused", "triton"),
    "convolutions": ("conv",),
    "attention": ("bmm", "attention", "softmax"),
    "products": ("mm", "addmv"),
    "norms and activations": ("norm", "gelu", "silu", "rsqrt", "pow", "mean", "sum", "tanh"),
    "other arithmetic": ("addcmul", "mul", "add", "sub", "div", "cos", "sin", "polar", "where", "clamp"),
}


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


def operator_time(step: Callable[[], object], rounds: int = 5) -> dict[str, float]:
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
