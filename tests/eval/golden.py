"""Reference vectors of published measures: what was computed from which public code is said in the JSON beside them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[1] / "data" / "golden"


@cache
def load(family: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description (non-finite numbers restored) and the arrays of a family of vectors."""
    description = json.loads((FOLDER / f"{family}.json").read_text(), object_hook=_restore)
    with np.load(FOLDER / f"{family}.npz") as arrays:
        return description, {name: arrays[name] for name in arrays.files}


def _restore(mapping: dict[str, Any]) -> dict[str, Any]:
    return {k: _number(v) for k, v in mapping.items()}


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [_number(v) for v in value]
    return float(value) if value in ("nan", "inf", "-inf") else value
