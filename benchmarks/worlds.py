"""How many frames a second each world gives on one core, with every truth channel, and what an extra object costs.

`python benchmarks/worlds.py` prints one JSON object. Every scene is played several times, alike and in turns; the time
of each stretch of frames is its least, since whatever else runs on the machine only ever adds to it, and a rate is that
of all stretches of all scenes together ("mean") or of the slowest scene ("slowest"). `cost_per_extra_object` is the
slope of time over the number of objects, in microseconds a frame and as a share of the time with one object and with as
many as the world has by default.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from envs.bounce.scenarios import SCENARIOS
from envs.policies import RandomPolicy

SCENES, STRETCHES, REPEATS = 4, 5, 6


@dataclass
class Case:
    """A world to play.

    Attributes:
        world: What `gymnasium.make` takes.
        config: Its arguments.
        steps: Frames in a stretch.
        options: Of `reset`.
    """

    world: str
    config: Mapping[str, Any]
    steps: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def play(self) -> np.ndarray:
        """Seconds a frame (SCENES, STRETCHES)."""
        frames = STRETCHES * self.steps + 1
        env = gym.make(self.world, disable_env_checker=True, episode_frames=frames, **self.config).unwrapped
        seconds = np.empty((SCENES, STRETCHES))
        for scene in range(SCENES):
            policy, rng = RandomPolicy(env.action_space, hold=4), np.random.default_rng(scene)
            obs, info = env.reset(seed=scene, options=dict(self.options))
            for stretch in range(STRETCHES):
                start = time.perf_counter()
                for _ in range(self.steps):
                    obs, _, _, _, info = env.step(policy(obs, info, rng))
                seconds[scene, stretch] = (time.perf_counter() - start) / self.steps
        return seconds


def least(cases: Mapping[str, Case]) -> dict[str, np.ndarray]:
    """The least seconds a frame (SCENES, STRETCHES) of several plays of each case, in turns."""
    plays = [{name: case.play() for name, case in cases.items()} for _ in range(REPEATS)]
    return {name: np.min([play[name] for play in plays], axis=0) for name in cases}


def slope(times: Mapping[int, float], default: int) -> dict[str, float]:
    """Cost of one more object from times by number of objects."""
    per_object = float(np.polyfit(list(times), list(times.values()), 1)[0])
    return {
        "microseconds": round(1e6 * per_object, 1),
        "share_of_one": round(per_object / times[1], 3),
        f"share_of_{default}": round(per_object / times[default], 3),
    }


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20, help="frames in a stretch at 64 x 64")
    steps = parser.parse_args().steps
    bounce, room = "envs:Bounce-v0", "envs:Room-v0"
    cases = {f"bounce {s} 64": Case(bounce, {"scenario": s}, steps) for s in SCENARIOS}
    cases["bounce billiards 256"] = Case(bounce, {"size": (256, 256)}, max(steps // 4, 1))
    cases["room 64"] = Case(room, {}, max(steps // 4, 1))
    cases["room 256"] = Case(room, {"size": (256, 256)}, max(steps // 20, 1))
    few, many = (1, 2, 4, 8), (1, 2, 4, 6)
    for n in few:
        cases[f"balls {n}"] = Case(bounce, {"slots": 9}, steps, {"count": n, "radius_m": 0.7})
    for n in many:
        cases[f"solids {n}"] = Case(room, {}, max(steps // 4, 1), {"num_objects": (n, n)})
    times = least(cases)
    rates: dict[str, list[Any]] = {
        name: [round(1.0 / t.mean()), round(1.0 / t.mean(axis=1).max())]
        for name, t in times.items()
        if name.startswith(("bounce", "room"))
    }
    figures = {
        "frames_per_s": {"columns": ["mean", "slowest"], **rates},
        "ratio_to_billiards_64": {n: round(r[0] / rates["bounce billiards 64"][0], 2) for n, r in rates.items()},
        "cost_per_extra_object": {
            "bounce": slope({n: float(times[f"balls {n}"].mean()) for n in few}, 2),
            "room": slope({n: float(times[f"solids {n}"].mean()) for n in many}, 4),
        },
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
