"""Validity cards: what `worldsim validate` measured about each evaluator, shipped as data."""

import json
from collections.abc import Mapping
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
        provenance: Versions, configuration and seeds that reproduce the card.
    """

    evaluator: str
    passed: bool
    failures: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


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
