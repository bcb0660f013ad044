"""Validity cards: what `worldsim validate` measured about each evaluator, shipped as data."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from eval.errors import EvalError

CARDS_DIR = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Card:
    """How far an evaluator can be trusted, as measured on held-out seeds.

    Attributes:
        evaluator: `name@version`; a card of another version counts for nothing.
        passed: Whether every requirement of `eval.validity` was met.
        failures: The requirements that were not met, in words.
        figures: All measured numbers with their intervals, by section (violations, nuisances, degenerate, ...).
        provenance: Versions, configuration and seeds that reproduce the card; `code` is the fingerprint of the code
            that was measured (`eval.fingerprint`).
    """

    evaluator: str
    passed: bool
    failures: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def is_of(self, provenance: Mapping[str, str]) -> bool:
        """Whether the card was measured on the same evaluator, version and code, as a score of this provenance."""
        code = self.provenance.get("code")
        same = self.evaluator == provenance.get("evaluator") and code == provenance.get("code")
        return same and code not in (None, "unknown")

    @property
    def summary(self) -> str:
        """The card in a line: the least AUROC of what it claims to detect, and its alarms on lawful clips."""
        parts = []
        severity = f"{self.provenance.get('requirements', {}).get('severity', math.nan):g}"
        violations = self.figures.get("violations", {})
        at = {c: violations.get(c, {}).get("by_severity", {}).get(severity) for c in self.figures.get("claims", ())}
        areas = {c: found["auroc"] for c, found in at.items() if found is not None and found["auroc"] is not None}
        if areas:
            worst = min(areas, key=lambda claim: areas[claim][0])
            area, low, high = areas[worst]
            parts.append(f"AUROC {area:.2f} [{low:.2f}, {high:.2f}] on {worst} at severity {severity}")
        lawful = self.figures.get("lawful", {})
        if lawful.get("alarm_rate_interval") is not None:
            most = 100.0 * lawful["alarm_rate_interval"][1]
            parts.append(f"{lawful['alarms']} alarms on {lawful['measured']} lawful clips (at most {most:.1f} %)")
        return "; ".join(parts)


def disagreements(shipped: Card, fresh: Card) -> list[str]:
    """Where a card measured anew contradicts the shipped one, in words; empty where it bears it out.

    A smaller sample has wider intervals, and two figures agree where their intervals meet.
    """
    found = []
    if not shipped.is_of({"evaluator": fresh.evaluator, "code": str(fresh.provenance.get("code"))}):
        found.append("card is of another version")
    severity = f"{shipped.provenance['requirements']['severity']:g}"
    for claim in shipped.figures["claims"]:
        at = [
            c.figures["violations"].get(claim, {}).get("by_severity", {}).get(severity) or {} for c in (shipped, fresh)
        ]
        was, now = (each.get("auroc") for each in at)
        if was is not None and now is not None and _apart(was[1:], now[1:]):
            found.append(f"{claim}: AUROC {now[0]:.2f}, not {was[0]:.2f}")
    was, now = (c.figures["lawful"] for c in (shipped, fresh))
    rates = was["alarm_rate_interval"], now["alarm_rate_interval"]
    if None not in rates and _apart(*rates):
        found.append(
            f"alarms on {now['alarms']} of {now['measured']} lawful clips, not {was['alarms']} of {was['measured']}"
        )
    return found


def _apart(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[1] < b[0] or b[1] < a[0]


def load_card(name: str, directory: Path = CARDS_DIR) -> Card | None:
    """The card of the evaluator `name`, or None if it was never validated.

    Raises:
        EvalError: If the file exists but is not a card.
    """
    return _load(name, directory)


@cache
def _load(name: str, directory: Path) -> Card | None:
    path = directory / f"{name}.json"
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Card(**{**data, "failures": tuple(data["failures"])})
    except (ValueError, TypeError, KeyError) as error:
        raise EvalError(
            expected=f"a validity card in {path}", got=repr(error), remedy="Make it again: worldsim validate."
        ) from error
