"""How many frames a second each world gives on one core, with every truth channel, and what an extra object costs.

`python benchmarks/worlds.py` prints one JSON object. Rates are frames per processor second, the best of several
episodes, so other programs on the machine disturb them less than they do wall-clock rates (also given); a busy
neighbour on the same physical core still slows both. `cost_per_extra_object` is the slope of time over the number of
objects, as a share of the time with the fewest.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from envs.bounce.scenarios import SCENARIOS
from envs.policies import RandomPolicy


def rates(
    world: str, config: Mapping[str, Any], *, steps: int, options: Mapping[str, Any] | None = None
) -> list[float]:
    """Frames per processor second and per wall-clock second."""
    env = gym.make(world, disable_env_checker=True, episode_frames=steps + 1, **config).unwrapped
    policy = RandomPolicy(env.action_space, hold=4)
    cpu, wall = np.inf, np.inf
    for seed in range(4):
        rng = np.random.default_rng(seed)
        obs, info = env.reset(seed=seed, options=dict(options or {}))
        start = time.process_time(), time.perf_counter()
        for _ in range(steps):
            obs, _, _, _, info = env.step(policy(obs, info, rng))
        cpu, wall = min(cpu, time.process_time() - start[0]), min(wall, time.perf_counter() - start[1])
    return [steps / cpu, steps / wall]


def slope(
    world: str, config: Mapping[str, Any], options: Sequence[Mapping[str, Any]], counts: Sequence[int], *, steps: int
) -> float:
    """Cost of one more object as a share of the time with the fewest; `options` make scenes of `counts` objects."""
    times = [1.0 / rates(world, config, steps=steps, options=o)[0] for o in options]
    return float(np.polyfit(counts, times, 1)[0] / times[0])


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    bounce, room = "envs:Bounce-v0", "envs:Room-v0"
    cases = {f"bounce {s} 64": (bounce, {"scenario": s}, steps) for s in SCENARIOS}
    cases["bounce billiards 256"] = (bounce, {"size": (256, 256)}, steps // 4)
    cases["room 64"] = (room, {}, steps // 4)
    cases["room 256"] = (room, {"size": (256, 256)}, max(steps // 20, 5))
    figures: dict[str, Any] = {"frames_per_s": {"columns": ["processor", "wall"]}}
    for name, (world, config, count) in cases.items():
        figures["frames_per_s"][name] = [round(r) for r in rates(world, config, steps=count)]
    figures["ratio_to_billiards_64"] = {
        name: round(rate[0] / figures["frames_per_s"]["bounce billiards 64"][0], 2)
        for name, rate in figures["frames_per_s"].items()
        if name != "columns"
    }
    few, many = (1, 2, 4, 6, 8), (2, 4, 6)
    balls = [{"count": n, "radius_m": 0.7} for n in few]
    solids = [{"num_objects": (n, n)} for n in many]
    figures["cost_per_extra_object"] = {
        "bounce": round(slope(bounce, {"slots": 9}, balls, few, steps=steps), 3),
        "room": round(slope(room, {}, solids, many, steps=steps // 4), 3),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
