"""Which kind of clip a measure prefers, pair by pair: real footage or generated, one model or another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.batch import Failure
from eval.errors import EvalError
from eval.score import EVALUATORS, Score
from eval.suite import Report, load_evaluators
from eval.tables import ARROWS, card_status, show_value
from eval.uncertainty import median_interval

MOST_LISTED = 5
"""Up to so many clips of a kind, every value is shown; of more, their median with its 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class Preference:
    """How often a clip of the first kind is better than one of another.

    Attributes:
        better: Pairs in which it is; a tie counts ½.
        pairs: Pairs of clips that both have a value.
    """

    better: float
    pairs: int

    def __str__(self) -> str:
        """In words: "5 of 6"."""
        return f"{self.better:g} of {self.pairs}" if self.pairs else "–"


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """One measure over kinds of clip.

    Attributes:
        name: The evaluator.
        suite: Where it belongs.
        arrow: "↑" if higher is better, "↓" if lower.
        unit: Of the values.
        card: What is known about the evaluator's own accuracy.
        values: By kind: the values of the clips that have one.
        totals: By kind: how many clips there are.
        preferences: By kind, the first left out: the first kind against it.
    """

    name: str
    suite: str
    arrow: str
    unit: str
    card: str
    values: Mapping[str, tuple[float, ...]]
    totals: Mapping[str, int]
    preferences: Mapping[str, Preference]

    def cell(self, label: str) -> str:
        """The values of one kind of clip, in words."""
        values, total = self.values[label], self.totals[label]
        if not values:
            return "no value"
        if len(values) <= MOST_LISTED:
            shown = ", ".join(show_value(v) for v in values)
        else:
            interval = median_interval(np.array(values))
            between = "" if interval is None else f" [{', '.join(show_value(bound) for bound in interval)}]"
            shown = show_value(float(np.median(values))) + between
        if len(values) == total:
            return shown if total <= MOST_LISTED else f"{shown}, n = {total}"
        return f"{shown} ({len(values)} of {total})"


def orderings(groups: Mapping[str, Sequence[Report | Failure]]) -> list[Ordering]:
    """Every measure that says which direction is better and has a value on any clip, by suite and name.

    A clip without a value takes part in no pair; `Ordering.totals` tells how many there are.

    Args:
        groups: Kind of clip to its results; the first kind is compared with each of the others.

    Raises:
        EvalError: If there are fewer than two kinds.
    """
    if len(groups) < 2:
        raise EvalError(expected="at least two kinds of clip", got=list(groups), remedy="Name another.")
    scored = [r for results in groups.values() for r in results if isinstance(r, Report)]
    examples: dict[str, Score] = {}
    for report in scored:
        examples |= {n: s for n, s in report.scores.items() if s.value is not None}
    known = load_evaluators()
    found = []
    for name, example in examples.items():
        if example.better == "neither":
            continue
        values = {label: _values(results, name) for label, results in groups.items()}
        first, *others = groups
        evaluator = EVALUATORS.get(name) or known.get(name)
        found.append(
            Ordering(
                name=name,
                suite=evaluator.suite if evaluator else "other",
                arrow=ARROWS[example.better],
                unit=example.unit,
                card=card_status(example),
                values=values,
                totals={label: len(results) for label, results in groups.items()},
                preferences={
                    o: _preference(values[first], values[o], higher=example.better == "higher") for o in others
                },
            )
        )
    return sorted(found, key=lambda o: (o.suite, o.name))


def _values(results: Sequence[Report | Failure], name: str) -> tuple[float, ...]:
    scores = [r.scores[name] for r in results if isinstance(r, Report) and name in r.scores]
    return tuple(s.value for s in scores if s.value is not None)


def _preference(first: Sequence[float], other: Sequence[float], *, higher: bool) -> Preference:
    ahead = np.subtract.outer(first, other) * (1.0 if higher else -1.0)
    return Preference(better=float((ahead > 0).sum() + 0.5 * (ahead == 0).sum()), pairs=ahead.size)
