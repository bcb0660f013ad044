"""`worldsim score --suite phyworld CHECKPOINT`: generalisation or memory? asked as PhyWorld does.

Velocity errors in the distribution that it was trained on, outside it along one axis at a time, and in combinations of
known bodies that were held out, all beside the tracker's floor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from gymnasium import spaces
from rich.table import Table as Printed

from eval import Clip
from eval.controlled import replay
from eval.physics.phyworld_table import Moved, SplitRow, split_table
from eval.physics.velocity import velocity_error
from eval.report import Section, Table, Videos
from worldsim.cli.demo_cases import FRESH_SEED, GIVEN, world_of
from worldsim.cli.score_control import LearnedWorld, TrueWorld, held_actions
from worldsim.errors import ConfigError
from worldsim.simulator import Simulator

FRAMES = GIVEN + 16
# Split to environment and its arguments; the first of each family is in distribution for a world trained on it.
FAMILIES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "axes": {
        name: ("envs:Bounce-v0", name)
        for name in ("train", "ood_speed", "ood_size", "ood_speed_size", "ood_combination")
    },
    "templates": {name: ("envs:BounceTemplates-v0", name) for name in ("train", "ood_template")},
}
SEEDS_A_RUN = 1_000
COLUMNS = ("velocity error / side/s", "95 % interval", "floor", "over first", "bodies missing", "n", "undefined")

Found = tuple[Mapping[str, Sequence[SplitRow]], Mapping[str, Mapping[str, np.ndarray]]]
"""Rows by family, and an example of each split: split to label to frames."""


def measure(simulator: Simulator, *, cases: int, seed: int) -> Found:
    """Dreams fresh episodes of every split and measures their velocities.

    Args:
        simulator: A world learned from Bounce's billiards.
        cases: Episodes of each split.
        seed: Which.

    Raises:
        ConfigError: If the checkpoint learned another world, or there are no cases or more than a run has seeds for.
    """
    space = simulator.action_space
    if world_of(simulator).title != "Bounce" or not isinstance(space, spaces.Discrete):
        raise ConfigError(expected="a world learned from Bounce", got=space, remedy="Use another checkpoint.")
    if not 1 <= cases <= SEEDS_A_RUN or seed < 0:
        raise ConfigError(
            expected=f"1 to {SEEDS_A_RUN} cases, and a seed of at least 0",
            got=f"{cases}, {seed}",
            remedy="Choose others.",
        )
    rng = np.random.default_rng(seed)
    rows: dict[str, list[SplitRow]] = {}
    examples: dict[str, dict[str, np.ndarray]] = {}
    for family, members in FAMILIES.items():
        moved: dict[str, list[Moved]] = {}
        for name, (env_id, split) in members.items():
            # Seeds of the card and of other suites lie elsewhere.
            first = FRESH_SEED + SEEDS_A_RUN * (1_000 + seed)
            recorded = held_actions(space, cases, FRAMES, first)
            true = TrueWorld(env_id, simulator.frame_size, range(first, first + cases), recorded, {"split": split})
            truth, dream = _played(simulator, true, seed)
            moved[name] = [_moved(d, t, simulator.fps) for d, t in zip(dream, truth, strict=True)]
            examples[f"{family}: {name}"] = {"truth": truth[0], "dream": dream[0]}
        rows[family] = split_table(moved, rng=rng)
    return rows, examples


def as_json(found: Found) -> dict[str, Any]:
    """Rows by family as plain data; what is undefined is None."""
    return {family: [_finite(asdict(row)) for row in rows] for family, rows in found[0].items()}


def show(found: Found) -> Printed:
    """A line a split."""
    table = Printed(title="PhyWorld: in and out of distribution", title_justify="left")
    for column in ("split", *COLUMNS):
        first = column == "split"
        table.add_column(column, justify="left" if first else "right", no_wrap=first)
    for family, rows in found[0].items():
        for row in rows:
            table.add_row(*_cells(family, row))
    return table


def sections(found: Found, simulator: Simulator) -> list[Section]:
    """The table, and an episode of each split."""
    table = Table(
        columns=["split", *COLUMNS],
        rows=[_cells(family, row) for family, rows in found[0].items() for row in rows],
        caption="Floor: the tracker's own error on the truth. Over first: the error over that of the family's first.",
    )
    videos = [Videos(panels=panels, fps=simulator.fps, given=GIVEN, caption=name) for name, panels in found[1].items()]
    return [
        Section(title="Generalisation or memory?", text=_HOW, blocks=[table]),
        Section(title="An episode of each split", blocks=videos),
    ]


_HOW = (
    "After PhyWorld (Kang et al., 2024). Axes: Bounce in the ranges that it is recorded in, and outside them along one "
    "axis at a time. Templates: three bodies of eight kinds (four shapes, small and large); the held-out templates are "
    "combinations that never occur in the others, of kinds that all do. A split is in distribution only for a world "
    "that was trained on the first of its family: `worldsim record envs:BounceTemplates-v0` records the templates."
)


def _played(simulator: Simulator, true: TrueWorld, seed: int) -> tuple[np.ndarray, np.ndarray]:
    policy = replay(true.recorded)
    truth = true(policy).frames
    texts = true.captions() if simulator.checkpoint.model.config.text else None
    return truth, LearnedWorld(simulator, truth[:, :GIVEN], true.recorded, texts, seed)(policy).frames


def _moved(dream: np.ndarray, truth: np.ndarray, fps: float) -> Moved:
    score = velocity_error(Clip(frames=dream, fps=fps, reference=Clip(frames=truth, fps=fps)), context=GIVEN)
    if score.value is None:
        nothing = float("nan")  # the truth shows nothing that moves: no fault of the dream
        return Moved(error=nothing, floor=nothing, missing=nothing)
    return Moved(error=score.value, floor=float(score.details["floor"]), missing=float(score.details["missing"]))


def _cells(family: str, found: SplitRow) -> list[str]:
    row, (low, high) = found.row, found.row.interval
    return [
        f"{family}: {row.group}",
        f"{row.error:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{row.floor:.3f}",
        f"{found.beyond:.2f}",
        f"{found.missing:.3f}",
        str(row.n),
        str(row.undefined),
    ]


def _finite(value: Any) -> Any:  # noqa: ANN401 - nested plain data
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
