"""`worldsim validate`: measure the evaluators' own accuracy and write their validity cards."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from eval import Suite
from eval.batch import run_ordered
from eval.cards import CARDS_DIR, Card, disagreements, load_card
from eval.judging import Requirements, make_card, save_card
from eval.picture_statistics import STATISTICS
from eval.score import Evaluator
from eval.sets import SET_EVALUATORS
from eval.validity import Case, Trial, measure
from worldsim.cli import planted, planted_picture, planted_room, planted_sets
from worldsim.cli.options import Many, flat
from worldsim.cli.planted import FIRST_HELD_OUT_SEED
from worldsim.errors import ConfigError

SUITES = {"bounce": "physics", "room": "geometry"}
PICTURE = ("quality", "fidelity")
# Columns of the table where it goes to a file.
FILE_WIDTH = 160
# Near ½ on pairs that are matched in appearance.
BASELINES = tuple(STATISTICS)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to validate, and on how much.

    Attributes:
        world: Bounce validates the physics evaluators, Room the geometry evaluators; "quality" and "fidelity" the
            measures of the picture, each on cases of its own; "sets" the distances between sets of videos, each pair of
            sets counting as one pair.
        evaluators: Only these, separated by commas; all of the world's suite by default.
        pairs: Seeds of each violation; 30 or more for cards that count.
        lawful: Lawful clips for the rate of false alarms.
        size: Side of the frames in pixels; Room adds 128 and 256 on half of the seeds.
        sizes: Of Room's, only these; readings in `work` of others are taken up by a later call without it.
        first_seed: Seeds from here on; those below are for development.
        workers: Processes.
        out: Folder for the cards; the package's own by default.
        work: Folder for readings, from which an interrupted run goes on.
        check: Measure what the evaluators claim to detect and compare with the shipped cards, but write none; exit with
            2 if a card is of other code or contradicts what is measured. A few pairs suffice.
    """

    world: Literal["bounce", "room", "quality", "fidelity", "sets"] = "bounce"
    evaluators: str = ""
    pairs: int = 30
    lawful: int = 200
    size: int = 64
    sizes: Many[int] = ()
    first_seed: int = FIRST_HELD_OUT_SEED
    workers: int = 1
    out: Path = CARDS_DIR
    work: Path | None = None
    check: bool = False


def run(options: Options) -> None:
    """Measures, prints a table, writes the cards."""
    console = Console() if sys.stdout.isatty() else Console(width=FILE_WIDTH)
    if options.world == "sets":
        _finish(options, _set_cards(options), console)
        return
    named = options.evaluators.split(",") if options.evaluators else SUITES.get(options.world, options.world)
    judged, baselines = Suite.of(named).evaluators, BASELINES
    if options.world in PICTURE:
        # A measure that claims nothing, as `dynamics`, has nothing to validate.
        judged, baselines = tuple(e for e in judged if e.claims), ()
        trials = [t for e in judged for t in _measure(options, Suite.of(e.name), console)]
    else:
        suite = Suite(name=options.world, evaluators=(*judged, *STATISTICS.values()))
        trials = _measure(options, suite, console)
    requirements = Requirements(pairs=min(Requirements.pairs, options.pairs))
    cards = [
        (
            e,
            make_card(
                e, trials, mode=_mode(options, e), baselines=baselines, requirements=requirements, parity=_parity(e)
            ),
        )
        for e in judged
    ]
    _finish(options, cards, console)


def _finish(options: Options, cards: list[tuple[Evaluator, Card]], console: Console) -> None:
    """Shows the cards, then writes them or compares them with those that ship."""
    console.print(_table(cards))
    if options.check:
        _compare(cards)
        return
    for _, card in cards:
        save_card(card, options.out)
    console.print(f"{len(cards)} cards in {options.out}, {sum(c.passed for _, c in cards)} pass")


def _set_cards(options: Options) -> list[tuple[Evaluator, Card]]:
    """Cards of the distances between sets; one pair of sets counts as one pair."""
    planned = planted_sets.groups(pairs=options.pairs, size=options.size, first_seed=options.first_seed)
    trials = [t for found in run_ordered(planted_sets.trials, planned, options.workers) for t in found]
    requirements = Requirements(pairs=min(Requirements.pairs, options.pairs))
    chosen = options.evaluators.split(",") if options.evaluators else list(SET_EVALUATORS)
    return [
        (e, make_card(e, trials, mode=e.name, requirements=requirements, parity=planted_sets.PARITY))
        for e in SET_EVALUATORS.values()
        if e.name in chosen
    ]


def _measure(options: Options, suite: Suite, console: Console) -> list[Trial]:
    planned, build = _plan(options, suite)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(f"measuring {suite.evaluators[0].name}", total=len(planned))
        return measure(
            planned,
            build,
            suite,
            workers=options.workers,
            out=options.work,
            progress=lambda done: bar.update(task, completed=done),
        )


def _plan(options: Options, suite: Suite) -> tuple[Sequence[object], Callable[..., list[Case]]]:
    """Jobs and what makes cases of them."""
    asked = {"pairs": options.pairs, "size": options.size, "first_seed": options.first_seed}
    if options.world in PICTURE:
        return planted_picture.jobs(suite.evaluators[0].name, **asked), planted_picture.build
    if options.world == "room":
        names = [e.name for e in suite.evaluators if e.name not in BASELINES]
        every = planted_room.jobs(**asked, evaluators=names)
        return [j for j in every if not options.sizes or j.size in flat(options.sizes)], planted_room.build
    planned = planted.jobs(options.world, lawful=options.lawful, **asked)
    return [j for j in planned if _concerns(j, suite) or not options.check], planted.build


def _concerns(job: planted.Job, suite: Suite) -> bool:
    """Whether a job plants nothing, or a violation that an evaluator of the suite claims to detect."""
    claims = [claim for e in suite.evaluators for claim in e.claims]
    # A claim may be a special case of a violation: energy_gain_at_wall is one of energy_gain.
    return job.kind == "lawful" or (job.kind == "violation" and any(c.startswith(job.name) for c in claims))


def _mode(options: Options, evaluator: Evaluator) -> str:
    """The mode that decides an evaluator's card."""
    if options.world in PICTURE:
        return evaluator.name
    return planted_room.deciding_mode(evaluator.name, options.size) if options.world == "room" else "pixels"


def _parity(evaluator: Evaluator) -> str:
    return planted_picture.PARITY.get(evaluator.name, "no published reference")


def _compare(cards: list[tuple[Evaluator, Card]]) -> None:
    """Raises if a shipped card is old, or if what was measured now contradicts it."""
    wrong = []
    for evaluator, card in cards:
        shipped = load_card(evaluator.name)
        found = ["it has no card"] if shipped is None else disagreements(shipped, card)
        if found:
            wrong.append(f"{evaluator.name} ({'; '.join(found)})")
    if wrong:
        raise ConfigError(
            expected="every shipped card to hold on this sample",
            got=", ".join(wrong),
            remedy="Mend the evaluator, or make its card again: worldsim validate.",
        )


def _table(cards: list[tuple[Evaluator, Card]]) -> Table:
    requirements = Requirements()
    table = Table(title=f"Validity at severity {requirements.severity:g}")
    for column in ("evaluator", "card", "false alarms", "claim", "AUROC [95 %]", "with masks", "detected", "why not"):
        table.add_column(column)
    for evaluator, card in cards:
        lawful = card.figures["lawful"]
        first = [evaluator.name, "passes" if card.passed else "fails", f"{lawful['alarms']} of {lawful['measured']}"]
        for i, claim in enumerate(evaluator.claims or ("-",)):
            found = card.figures["violations"].get(claim)
            at = None if found is None else found["by_severity"].get(f"{requirements.severity:g}")
            shown = ["-", _with_masks(card, claim, requirements), "-"]
            if at is not None and at["auroc"] is not None:
                area, low, high = at["auroc"]
                shown[0] = f"{area:.3f} [{low:.2f}, {high:.2f}] n={at['measured']}"
                shown[2] = f"{at['detected']:.2f}"
            why = "; ".join(card.failures) if i == 0 else ""
            table.add_row(*(first if i == 0 else ["", "", ""]), claim, *shown, why)
    return table


def _with_masks(card: Card, claim: str, requirements: Requirements) -> str:
    """AUROC of a claim where the evaluator is given masks; a dash for evaluators that use none."""
    found = card.figures.get("other_modes", {}).get("masks", {}).get("violations", {}).get(claim, {})
    at = found.get("by_severity", {}).get(f"{requirements.severity:g}", {})
    return "-" if at.get("auroc") is None else f"{at['auroc'][0]:.3f}"
