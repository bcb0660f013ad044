"""Scores as rows that a person reads: one clip in full, or several kinds of clip side by side."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.batch import Failure
from eval.cards import load_card
from eval.errors import EvalError
from eval.score import EVALUATORS, Score
from eval.suite import Report, load_evaluators

ARROWS = {"lower": "↓", "higher": "↑", "neither": ""}
MAX_LISTED_FRAMES = 8
UNEVEN_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured score of a clip, in words.

    Attributes:
        name: The evaluator.
        summary: What it measures.
        suite: Where it belongs.
        better: "↑", "↓" or "".
        value: With uncertainty and unit.
        normalised: 0 to 1, or None.
        coverage: Share of the clip, in words.
        offending: Frames where something broke, in words.
        card: What is known about the evaluator's own accuracy.
    """

    name: str
    summary: str
    suite: str
    better: str
    value: str
    normalised: float | None
    coverage: str
    offending: str
    card: str


@dataclass(frozen=True, kw_only=True)
class Unmeasured:
    """Evaluators that gave no value for one and the same reason."""

    status: str
    reason: str
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One evaluator on one kind of clip, over cases.

    Attributes:
        value: Mean with its standard error, or None where no case has a value.
        normalised: Mean over cases, failures and what the truth shows measurable counted as 0; None without a scale.
        coverage: Mean share of the clips that the values rest on; None without a value.
        measured: How many cases have a value.
        total: How many cases there are.
        status: Where no case has a value, why not: the kind.
        reason: The same in words.
    """

    value: str | None
    normalised: float | None
    coverage: float | None
    measured: int
    total: int
    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One evaluator on every kind of clip."""

    name: str
    summary: str
    suite: str
    unit: str
    better: str
    card: str
    cells: tuple[Cell, ...]

    @property
    def has_gaps(self) -> bool:
        """Whether any case has no value."""
        return any(cell.measured < cell.total for cell in self.cells)

    @property
    def uneven(self) -> bool:
        """Whether the values rest on unlike shares of the clips, so that they are to be compared with care."""
        known = [cell.coverage for cell in self.cells if cell.coverage is not None]
        return bool(known) and max(known) - min(known) > UNEVEN_SHARE


def measured_rows(report: Report) -> list[Row]:
    """The scores of one clip that have a value, by suite."""
    return sorted((_row(s) for s in report.scores.values() if s.value is not None), key=lambda r: (r.suite, r.name))


def unmeasured_groups(report: Report) -> list[Unmeasured]:
    """The scores of one clip without a value, gathered by reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for found in report.scores.values():
        if found.value is None:
            groups.setdefault((found.status, found.reason or ""), []).append(found.name)
    return [Unmeasured(status=s, reason=r, names=tuple(n)) for (s, r), n in groups.items()]


def comparison_rows(
    groups: Mapping[str, Sequence[Report | Failure]], *, truth: str | None = None
) -> list[ComparisonRow]:
    """One row an evaluator, one cell a group, over the groups' cases.

    Args:
        groups: Results by label, each one per case.
        truth: Label of the true videos. They fix the denominator: where the truth of a case can be measured and another
            video of it cannot (its objects dissolved), that video counts as 0.

    Raises:
        EvalError: If there is no report at all, or the groups are of different lengths beside a truth.
    """
    names = {n: s for results in groups.values() for r in results if isinstance(r, Report) for n, s in r.scores.items()}
    if not names:
        raise EvalError(expected="at least one scored clip", got="none", remedy="See the failures.")
    true = [] if truth is None else groups[truth]
    if truth is not None and {len(results) for results in groups.values()} != {len(true)}:
        raise EvalError(
            expected="as many results in every group as there are true videos",
            got={label: len(results) for label, results in groups.items()},
            remedy="Score every video of every case.",
        )
    rows = []
    for name, example in names.items():
        rows.append(
            ComparisonRow(
                name=name,
                summary=_summary(name),
                suite=_suite(name),
                unit=example.unit,
                better=ARROWS[example.better],
                card=card_status(example),
                cells=tuple(_cell(results, name, true) for results in groups.values()),
            )
        )
    return sorted(rows, key=lambda r: (r.suite, r.name))


def card_status(found: Score) -> str:
    """What is known about an evaluator's own accuracy: its card's figures, or why the card does not count."""
    card = load_card(found.name)
    if card is None:
        return "not validated"
    if not card.is_of(found.provenance):
        return "card is of another version"
    if card.passed:
        return ": ".join(filter(None, ["validated", card.summary]))
    return f"card not passed: {'; '.join(card.failures)}"


def show_value(value: float, uncertainty: float | None = None, unit: str = "") -> str:
    """A value to the digits that mean something, with ± its standard error and its unit.

    >>> show_value(31.4159, 0.0271, "dB")
    '31.416 ± 0.027 dB'
    >>> show_value(0.000123)
    '0.000123'
    """
    after = {"1": "", "share": ""}.get(unit, f" {unit}" if unit else "")
    if uncertainty is None or not math.isfinite(uncertainty) or uncertainty <= 0:
        return f"{value:.4g}{after}" if abs(value) < 1e5 else f"{value:.3e}{after}"
    digits = max(0, 1 - math.floor(math.log10(uncertainty)))
    if digits > 6:
        return f"{value:.6g} ± {uncertainty:.1g}{after}"
    return f"{value:.{digits}f} ± {uncertainty:.{digits}f}{after}"


def show_frames(frames: Sequence[int]) -> str:
    """Frame numbers as ranges; what is left out of a long list is counted.

    >>> show_frames([3, 4, 5, 9])
    '3-5, 9'
    """
    runs: list[list[int]] = []
    for frame in sorted(set(frames)):
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    shown = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs[:MAX_LISTED_FRAMES]]
    more = len(runs) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _row(found: Score) -> Row:
    assert found.value is not None
    return Row(
        name=found.name,
        summary=_summary(found.name),
        suite=_suite(found.name),
        better=ARROWS[found.better],
        value=show_value(found.value, found.uncertainty, found.unit),
        normalised=found.normalised,
        coverage=f"{found.coverage:.0%}",
        offending=show_frames(found.offending),
        card=card_status(found),
    )


def _cell(results: Sequence[Report | Failure], name: str, true: Sequence[Report | Failure]) -> Cell:
    found = [r.scores.get(name) if isinstance(r, Report) else r for r in results]
    measurable = [isinstance(t, Report) and name in t.scores and t.scores[name].value is not None for t in true]
    values, scale, coverages, without = [], [], [], []
    for s, could in zip(found, measurable or [False] * len(found), strict=True):
        if isinstance(s, Score) and s.value is not None:
            values.append(s.value)
            coverages.append(s.coverage)
            scale += [] if s.normalised is None else [s.normalised]
            continue
        status, reason = _why_not(s)
        without.append((status, reason))
        # As `BatchReport.mean` and `evaluate` count: nothing that should have been measured is left out.
        scale += [0.0] if status == "failed" or could else []
    shown, error = None, None
    if len(values) > 1:
        error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    elif values:
        error = next(s.uncertainty for s in found if isinstance(s, Score) and s.value is not None)
    if values:
        shown = show_value(float(np.mean(values)), error)
    has_scale = any(isinstance(s, Score) and s.normalised is not None for s in found) or not values
    reasons = dict.fromkeys(reason if not values else f"{status}: {reason}" for status, reason in without)
    return Cell(
        value=shown,
        normalised=float(np.mean(scale)) if scale and has_scale else None,
        coverage=float(np.mean(coverages)) if coverages else None,
        measured=len(values),
        total=len(found),
        status="ok" if values else without[0][0],
        reason="; ".join(reasons),
    )


def _why_not(found: Score | Failure | None) -> tuple[str, str]:
    if found is None:
        return "missing", "not asked for"
    if isinstance(found, Failure):
        return "failed", found.error
    return found.status, found.reason or ""


def _summary(name: str) -> str:
    known = EVALUATORS.get(name) or load_evaluators().get(name)
    return known.summary.replace("`", "") if known else ""


def _suite(name: str) -> str:
    known = EVALUATORS.get(name) or load_evaluators().get(name)
    return known.suite if known else "other"
