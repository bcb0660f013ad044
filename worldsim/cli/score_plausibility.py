"""`worldsim score --suite plausibility CHECKPOINT`: is a learned world surprised by what is impossible?

Matched pairs come from the world whose actions the checkpoint takes: a lawful clip and the same clip with one law
violated. Every scorer gives both clips a surprise. Beside the learned world's own stand two floors: the same world
untrained, and the largest change of pixels, which knows no law.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table as Printed

from envs.violations import Record, makers, pair
from eval import Clip, Suite
from eval.physics.plausibility import Auroc, Judged, Verdict, pixel_change, verdicts
from eval.plots import interval_plot
from eval.report import Block, Plot, Section, Table, Videos
from eval.score import Evaluator
from worldsim.cli.card_figures import untrained
from worldsim.cli.demo_cases import WORLDS, world_of
from worldsim.errors import ConfigError
from worldsim.simulator import Simulator

SEVERITIES = (0.1, 0.3, 1.0)
SCORERS = ("surprise", "untrained", "pixel_change")
# Neither the evaluators nor any shipped world have been made with the scenes of these seeds.
FIRST_SEED = 400_000
SEEDS_A_RUN = 100_000
BATCH = 8
COLUMNS = ("relative accuracy [95 %]", "AUROC [95 %]", "n", "unscored")

# Clips of one shape in, surprises by scorer out; higher is less plausible, None where the scorer cannot tell.
Judge = Callable[[Sequence[Clip]], Mapping[str, Sequence[float | None]]]


@dataclass(frozen=True)
class Planned:
    """A pair to be rendered; every pair has a scene of its own."""

    violation: str
    severity: float
    seed: int


@dataclass(frozen=True)
class Found:
    """What every scorer said.

    Attributes:
        judged: Scorer to pairs.
        examples: Violation to its pair at the highest severity.
    """

    judged: Mapping[str, Sequence[Judged]]
    examples: Mapping[str, tuple[Record, Record]]


def measure(simulator: Simulator, *, scorers: Sequence[str], cases: int, seed: int, console: Console) -> Found:
    """Renders pairs and asks every scorer.

    Args:
        simulator: The learned world.
        scorers: Among `SCORERS`, or names of evaluators or their suites.
        cases: Pairs of each violation at each severity.
        seed: Which scenes.
        console: For the progress bar.

    Raises:
        ConfigError: If there are no cases or more than a run has seeds for, or no true world for the checkpoint.
        UnknownNameError: On an unknown scorer.
    """
    name = next(k for k, w in WORLDS.items() if w is world_of(simulator))
    kinds = [(violation, severity) for violation in makers(name) for severity in SEVERITIES]
    if not 1 <= cases <= SEEDS_A_RUN // len(kinds) or seed < 0:
        raise ConfigError(
            expected=f"1 to {SEEDS_A_RUN // len(kinds)} cases, and a seed of at least 0",
            got=f"{cases} and {seed}",
            remedy="Choose others.",
        )
    first = FIRST_SEED + SEEDS_A_RUN * seed
    planned = [Planned(*kind, first + i * cases + k) for i, kind in enumerate(kinds) for k in range(cases)]
    judges = list(_judges(simulator, scorers))
    judged: dict[str, list[Judged]] = {}
    examples: dict[str, tuple[Record, Record]] = {}
    batches = [planned[i : i + BATCH] for i in range(0, len(planned), BATCH)]
    for batch in track(batches, description="judging pairs", console=console, transient=True):
        made = [pair(p.violation, p.seed, p.severity, size=simulator.frame_size) for p in batch]
        for shape, members in groupby(zip(batch, made, strict=True), key=lambda m: m[1][0].frames.shape):
            some = list(members)
            assert all(r.frames.shape == shape for _, records in some for r in records)
            clips = [_clip(record) for _, records in some for record in records]
            for judge in judges:
                for scorer, values in judge(clips).items():
                    judged.setdefault(scorer, []).extend(
                        Judged(p.violation, p.severity, values[2 * k], values[2 * k + 1])
                        for k, (p, _) in enumerate(some)
                    )
        examples |= {p.violation: m for p, m in zip(batch, made, strict=True) if p.severity == SEVERITIES[-1]}
    return Found(judged, examples)


def as_json(found: Found) -> dict[str, Any]:
    """Verdicts, and what every scorer said of every pair."""
    return {
        name: {
            "verdicts": [asdict(v) | {"auroc": _area(v.auroc)} for v in verdicts(cases)],
            "pairs": [c._asdict() for c in cases],
        }
        for name, cases in found.judged.items()
    }


def sections(found: Found, simulator: Simulator) -> list[Section]:
    """Overview, every scorer in full, and a pair of each violation."""
    results = {name: verdicts(cases) for name, cases in found.judged.items()}
    overall = [[name, *_cells(v[0])] for name, v in results.items()]
    caption = (
        "All violations and severities together. A clip that a scorer could not score counts against it. Chance is 0.5."
    )
    overview: list[Block] = [
        Table(columns=["scorer", *COLUMNS], rows=overall, caption=caption),
        Plot(svg=_plot(results), caption="AUROC over severity with 95 % intervals; dotted: chance."),
    ]
    full = [
        Table(
            columns=[name, "severity", *COLUMNS],
            rows=[[v.violation, "all" if v.severity is None else f"{v.severity:g}", *_cells(v)] for v in shown],
        )
        for name, shown in results.items()
    ]
    pairs = [
        Videos(
            panels={"possible": lawful.frames, "impossible": violated.frames},
            fps=simulator.fps,
            marked={"impossible": () if violated.onset is None else (violated.onset,)},
            caption=f"{name}, severity {violated.severity:g}",
        )
        for name, (lawful, violated) in found.examples.items()
    ]
    return [
        Section(title="Is the impossible more surprising?", text=_HOW, blocks=overview),
        Section(title="Every violation and severity", blocks=full),
        Section(title="A pair of each violation", blocks=pairs),
    ]


_HOW = (
    "Violation of expectation: each pair is one scene, lawful and with one law violated, rendered alike; every pair "
    "has a scene of its own. The learned world's surprise is the error with which it denoises each true frame given "
    "the true past (mean over frames, and the largest frame). Floors: the same world untrained, and the largest change "
    "of pixels from frame to frame."
)


def show(found: Found) -> Printed:
    """A line a scorer."""
    table = Printed(title="Plausibility: is the impossible clip the more surprising one?", title_justify="left")
    for column in ("scorer", *COLUMNS):
        table.add_column(column, justify="left" if column == "scorer" else "right")
    for name, cases in found.judged.items():
        table.add_row(name, *_cells(verdicts(cases)[0]))
    return table


def _judges(simulator: Simulator, scorers: Sequence[str]) -> Iterator[Judge]:
    for name in dict.fromkeys(scorers):
        if name == "surprise":
            yield _surprise(simulator, name)
        elif name == "untrained":
            yield _surprise(untrained(simulator), name)
        elif name == "pixel_change":
            yield lambda clips: {"pixel_change": [pixel_change(c) for c in clips]}
        else:
            yield _measures(Suite.of(name))


def _surprise(simulator: Simulator, name: str) -> Judge:
    def judge(clips: Sequence[Clip]) -> Mapping[str, Sequence[float | None]]:
        texts = [c.text for c in clips] if simulator.checkpoint.model.config.text else None
        actions = np.stack([np.asarray(c.actions) for c in clips])
        # One seed: both clips of a pair are noised alike.
        found = simulator.surprise(np.stack([c.frames for c in clips]), actions=actions, text=texts)
        # The first frame has no past. Rounding of the arithmetic (1e-8) must not decide between equal clips.
        seen = found[:, 1:].astype(float).round(6)
        return {f"{name}_mean": seen.mean(axis=1).tolist(), f"{name}_peak": seen.max(axis=1).tolist()}

    return judge


def _measures(suite: Suite) -> Judge:
    directed = [e for e in suite.evaluators if e.better != "neither"]

    def judge(clips: Sequence[Clip]) -> Mapping[str, Sequence[float | None]]:
        # Laws must not read a constant action as news of an agent.
        reports = [suite(Clip(frames=c.frames, fps=c.fps, text=c.text)) for c in clips]
        return {e.name: [_signed(e, r[e.name].value) for r in reports] for e in directed}

    return judge


def _signed(measure: Evaluator, value: float | None) -> float | None:
    return value if value is None or measure.better == "lower" else -value


def _clip(record: Record) -> Clip:
    return Clip(frames=record.frames, fps=record.fps, actions=np.asarray(record.actions), text=record.text)


def _cells(verdict: Verdict) -> list[str]:
    low, high = verdict.relative_interval
    area = verdict.auroc
    return [
        f"{verdict.relative_accuracy:.3f} [{low:.2f}, {high:.2f}]",
        f"{area.value:.3f} [{area.low:.2f}, {area.high:.2f}]",
        str(verdict.n),
        str(verdict.unscored),
    ]


def _area(area: Auroc) -> dict[str, float | None]:
    """As strict JSON, which has no NaN: one pair has no standard error."""
    return {k: None if np.isnan(v) else v for k, v in area._asdict().items()}


def _plot(results: Mapping[str, Sequence[Verdict]]) -> str:
    panels: dict[str, dict[str, np.ndarray]] = {}
    for name, shown in results.items():
        for violation, members in groupby((v for v in shown if v.severity is not None), key=lambda v: v.violation):
            points = np.array([(v.severity, *v.auroc[:3]) for v in members], float)
            panels.setdefault(violation, {})[name] = points
    return interval_plot(panels, across="severity", level=0.5)
