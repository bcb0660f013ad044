"""What the options of sampling do to the dreams of a learned Bounce world, on episodes that it was never trained on.

`python benchmarks/sampling.py` prints two tables: whether a first frame made from text alone shows the bodies that the
text names, by number of denoising steps; and the PSNR of dreams, 4, 16 and 64 frames after the last given one, by
number of steps, damping of the updates, and noise on the past. Means with 95 % intervals over episodes.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from eval.fidelity import psnr
from eval.uncertainty import mean_interval
from worldsim.cli.card_bounce import text_following
from worldsim.cli.demo_cases import FRESH_SEED, GIVEN, dream, record_truth, world_of
from worldsim.simulator import Simulator, load

HORIZONS = (4, 16, 64)
FIRST_STEPS = (1, 2, 4, 8, 16, 32, 64)
VARIATIONS: tuple[Mapping[str, Any], ...] = (
    *({"steps": 1, "context_level": level} for level in (0.0, 0.05, 0.1, 0.2)),
    {"steps": 1, "context_level": 0.1, "context_noise": False},
    *({"steps": 2, "damping": damping} for damping in (1.0, 0.95, 0.9, 0.8)),
    *({"steps": 4, "damping": damping} for damping in (1.0, 0.9)),
)


def varied(simulator: Simulator, **changes: Any) -> Simulator:  # noqa: ANN401 - fields of Sampling
    """The same world under another sampling."""
    return Simulator(simulator.checkpoint, sampling=replace(simulator.sampling, **changes), device=simulator.device)


def first_frames(simulator: Simulator, cases: int) -> None:
    """Prints text-following by number of first steps."""
    print(f"{'first_steps':>11}  {'count':>18}  {'colours':>18}  {'colours and shapes':>18}")
    for steps in FIRST_STEPS:
        rng = np.random.default_rng(0)
        found = text_following(varied(simulator, first_steps=steps), cases=cases, seed=FRESH_SEED, rng=rng)
        dreamt = [f for f in found if f.name.endswith("dream")]
        cells = (f"{f.value:.2f} ({f.low:.2f}-{f.high:.2f})" for f in dreamt)
        print(f"{steps:>11}  " + "  ".join(f"{c:>18}" for c in cells), flush=True)


def dreams(simulator: Simulator, cases: int, seed: int) -> None:
    """Prints the PSNR of dreams by sampling."""
    frames = GIVEN + max(HORIZONS)
    world = world_of(simulator)
    episodes = [e for e, _ in record_truth(world, simulator, cases=cases, frames=frames, seed=seed)]
    truth = np.stack([e.frames for e in episodes])
    print(f"{'sampling':<60}" + "".join(f"{f'{h} frames':>22}" for h in HORIZONS))
    for changes in VARIATIONS:
        made = dream(varied(simulator, **changes), episodes, seed=seed)
        cells = []
        for horizon in HORIZONS:
            at = slice(GIVEN - 1 + horizon, GIVEN + horizon)
            values = np.array([psnr(m[at], t[at])[0] for m, t in zip(made, truth, strict=True)])
            low, high = mean_interval(values, rng=np.random.default_rng(0))
            cells.append(f"{values.mean():>8.2f} ({low:.2f}-{high:.2f})")
        print(
            f"{', '.join(f'{k} {v}' for k, v in changes.items()):<60}" + "".join(f"{c:>22}" for c in cells), flush=True
        )


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="bounce", help="shipped name or directory of a checkpoint")
    parser.add_argument("--cases", type=int, default=16, help="episodes of the PSNR table")
    parser.add_argument("--texts", type=int, default=48, help="captions of the table of first frames")
    parser.add_argument("--seed", type=int, default=1, help="which fresh episodes")
    options = parser.parse_args()
    simulator = load(options.world)
    print(f"{options.world} ({simulator.fingerprint})\n")
    first_frames(simulator, options.texts)
    print()
    dreams(simulator, options.cases, options.seed)


if __name__ == "__main__":
    main()
