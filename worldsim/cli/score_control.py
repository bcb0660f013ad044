"""`worldsim score --suite control CHECKPOINT`: does a learned world obey as the true one does?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from rich.table import Table as Printed

from eval.controlled import Control, ControlFigure, Played, Policy, measure_control, replay
from eval.errors import MeasureError
from eval.inverse_dynamics import InverseDynamics
from eval.report import Section, Table, Videos
from worldsim.cli.demo_cases import FRESH_SEED, GIVEN, world_of
from worldsim.cli.policies import policies
from worldsim.cli.worlds import random_actions
from worldsim.errors import ConfigError
from worldsim.simulator import Simulator

FRAMES = 36
FIT_CASES = 48
# Frames that the changed action is held: about as long as in training.
HELD = 4
SEEDS_A_RUN = 1_000
COLUMNS = ("value", "95 % interval", "n", "floor", "ceiling")


@dataclass(frozen=True)
class TrueWorld:
    """Fresh episodes of a true world, played from their first frames as often as asked.

    Attributes:
        env_id: For `gymnasium.make`.
        size: (H, W).
        seeds: Of the episodes.
        recorded: (B, T-1) ordinary actions; those between the given frames are taken whatever the policy.
        options: Further arguments of the environment.
    """

    env_id: str
    size: tuple[int, int]
    seeds: Sequence[int]
    recorded: np.ndarray
    options: Mapping[str, Any] = field(default_factory=dict)

    def captions(self) -> list[str]:
        """The scenes in words."""
        env = gym.make(self.env_id, size=self.size, **self.options)
        found = [str(env.reset(seed=s)[1]["caption"]) for s in self.seeds]
        env.close()
        return found

    def __call__(self, policy: Policy) -> Played:
        """Plays all episodes side by side."""
        made = [gym.make(self.env_id, size=self.size, **self.options).unwrapped for _ in self.seeds]
        frames = [np.stack([env.reset(seed=s)[0] for env, s in zip(made, self.seeds, strict=True)])]
        taken, earned = [], []
        for t in range(self.recorded.shape[1]):
            chosen = self.recorded[:, t] if t < GIVEN - 1 else policy(frames[-1], t)
            steps = [env.step(a) for env, a in zip(made, chosen, strict=True)]
            frames.append(np.stack([s[0] for s in steps]))
            taken.append(chosen)
            earned.append([float(s[1]) for s in steps])
        for env in made:
            env.close()
        return Played(np.stack(frames, axis=1), np.stack(taken, axis=1), np.array(earned).T[:, GIVEN - 1 :])


@dataclass(frozen=True)
class LearnedWorld:
    """A learned world that goes on from the given frames of true episodes.

    Attributes:
        simulator: The learned world.
        given: uint8 (B, GIVEN, H, W, 3).
        recorded: (B, T-1) actions, of which those between the given frames are told.
        texts: The captions, or None.
        seed: Of the first case.
    """

    simulator: Simulator
    given: np.ndarray
    recorded: np.ndarray
    texts: Sequence[str] | None
    seed: int

    def __call__(self, policy: Policy) -> Played:
        """Dreams all episodes in one batch; the same policy meets the same noise."""
        past = self.recorded[:, : GIVEN - 1]
        seeds = [self.seed + k for k in range(len(self.given))]
        state, latest = self.simulator.reset(frames=self.given, actions=past, text=self.texts, seed=seeds)
        frames, taken, earned = list(self.given.swapaxes(0, 1)), list(past.swapaxes(0, 1)), []
        for t in range(GIVEN - 1, self.recorded.shape[1]):
            chosen = policy(latest, t)
            step = self.simulator.step(state, chosen, donate=True)
            state, latest = step.state, step.frames
            frames.append(latest)
            taken.append(chosen)
            earned.append(step.rewards)
        return Played(np.stack(frames, axis=1), np.stack(taken, axis=1), np.stack(earned, axis=1))


@dataclass(frozen=True)
class Found:
    """The figures, and one counterfactual to look at: label to frames."""

    control: Control
    example: Mapping[str, np.ndarray]


def measure(simulator: Simulator, *, cases: int, seed: int, frames: int = FRAMES, example: bool = True) -> Found:
    """All figures of control of a learned world.

    Args:
        simulator: The learned world.
        cases: Fresh episodes.
        seed: Which.
        frames: Frames of each.
        example: Whether to dream a counterfactual to look at, too.

    Raises:
        ConfigError: If there are fewer than two cases or more than a run has seeds for, too few frames, or no true
            world with discrete actions for the checkpoint.
    """
    world = world_of(simulator)
    space = simulator.action_space
    if not isinstance(space, spaces.Discrete) or simulator.actions_per_step != 1:
        raise ConfigError(
            expected="a world with discrete actions, one a frame", got=space, remedy="Use another checkpoint."
        )
    most = SEEDS_A_RUN - FIT_CASES
    if not 2 <= cases <= most or frames <= GIVEN + HELD or seed < 0:
        raise ConfigError(
            expected=f"2 to {most} cases of more than {GIVEN + HELD} frames, and a seed of at least 0",
            got=f"{cases} of {frames}, seed {seed}",
            remedy="Choose others.",
        )
    first = FRESH_SEED + SEEDS_A_RUN * (seed + 1)
    true, fitting = (
        TrueWorld(
            world.env_id,
            simulator.frame_size,
            list(range(start, start + count)),
            held_actions(space, count, frames, start),
        )
        for start, count in ((first, cases), (first + cases, FIT_CASES))
    )
    captions = true.captions()
    learned = LearnedWorld(
        simulator,
        true(replay(true.recorded)).frames[:, :GIVEN],
        true.recorded,
        captions if simulator.checkpoint.model.config.text else None,
        seed,
    )
    other = true.recorded.copy()
    rng = np.random.default_rng(seed)
    shift = rng.integers(1, int(space.n), (cases, 1))
    other[:, GIVEN - 1 : GIVEN - 1 + HELD] = (other[:, GIVEN - 1 : GIVEN] - space.start + shift) % space.n + space.start
    control = measure_control(
        learned,
        true,
        given=GIVEN,
        recorded=true.recorded,
        other=other,
        policies=policies(world, space, captions, true.recorded),
        reader=_reader(fitting),
        rng=rng,
    )
    shown = {
        f"{name}, {which}": play(replay(actions)).frames[0]
        for name, play in ((("true", true), ("learned", learned)) if example else ())
        for which, actions in (("recorded action", true.recorded), ("other action", other))
    }
    return Found(control, shown)


def as_json(found: Found) -> dict[str, Any]:
    """Figures and returns as plain data."""
    returns = {name: {"learned": pair[0], "true": pair[1]} for name, pair in found.control.returns.items()}
    return {"figures": [asdict(f) for f in found.control.figures], "returns": returns}


def show(found: Found) -> Printed:
    """A line a figure."""
    table = Printed(title="Control: does the learned world obey as the true one does?", title_justify="left")
    for column in ("figure", *COLUMNS):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for figure in found.control.figures:
        table.add_row(*_cells(figure))
    return table


def sections(found: Found, simulator: Simulator) -> list[Section]:
    """The figures, the policies, and a counterfactual."""
    returns = [[name, *(f"{v:.2f}" for v in pair)] for name, pair in found.control.returns.items()]
    figures = Table(
        columns=["figure", *COLUMNS],
        rows=[_cells(f) for f in found.control.figures],
        caption="Floor: a world that ignores its actions, or shuffled ones; ceiling: the true world in place of the "
        "learned one.",
    )
    ranked = Table(
        columns=["policy", "mean return, learned", "mean return, true"],
        rows=returns,
        caption="Returns in the learned world are what its reward head predicts.",
    )
    video = Videos(
        panels=found.example,
        fps=simulator.fps,
        given=GIVEN,
        caption=f"The first case, and the same with another action for the {HELD} frames after the given ones.",
    )
    return [
        Section(title="Figures", text=_HOW, blocks=[figures]),
        Section(title="Policies", blocks=[ranked]),
        Section(title="Same state, another action", blocks=[video]),
    ]


_HOW = (
    "Both worlds are played from the same first frames. ΔPSNR: how much closer to the truth the dream is under the "
    "true actions than under another episode's. Action following: whether a reader of actions, fitted to the true "
    "world, reads the commanded actions from the dream. Counterfactual: how the places of colours change when one "
    "action does, over the 8 frames that follow: the cosine between the dream's change and the true one, and their "
    "ratio in size (gain). Policy ranking: whether policies earn in the dream as they do in truth."
)


def held_actions(space: spaces.Discrete, cases: int, frames: int, seed: int) -> np.ndarray:
    """Random actions (B, T-1), each held for some frames."""
    return np.stack([random_actions(space, frames - 1, seed + k) for k in range(cases)])


def _reader(fitting: TrueWorld) -> InverseDynamics | None:
    played = fitting(replay(fitting.recorded))
    try:
        return InverseDynamics.fit(list(played.frames), list(played.actions))
    except MeasureError:
        return None


def _cells(figure: ControlFigure) -> list[str]:
    if figure.value is None:
        return [figure.name, "-", figure.reason or "", "0", "", ""]
    ends = [figure.floor, figure.ceiling]
    interval = f"{figure.low:.3f} to {figure.high:.3f}"
    return [
        figure.name,
        f"{figure.value:.3f} {figure.unit}".strip(),
        interval,
        str(figure.count),
        *("" if e is None else f"{e:.3f}" for e in ends),
    ]
