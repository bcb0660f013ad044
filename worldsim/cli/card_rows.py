"""A row of a world's card: a figure with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.uncertainty import bootstrap_interval, mean_interval


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure with its 95 % interval over episodes.

    Attributes:
        name: What was measured.
        unit: Its unit.
        value: The mean over episodes.
        low: Lower end of the interval.
        high: Upper end.
        count: Episodes, or events, that it rests on.
    """

    name: str
    unit: str
    value: float
    low: float
    high: float
    count: int


def mean_figure(name: str, unit: str, values: Sequence[float], rng: np.random.Generator) -> Figure:
    """A figure from one value for each episode."""
    low, high = mean_interval(np.asarray(values), rng=rng)
    return Figure(name=name, unit=unit, value=float(np.mean(values)), low=low, high=high, count=len(values))


def ratio_figure(
    name: str, values: Sequence[float], floors: Sequence[float], rng: np.random.Generator, *, unit: str = ""
) -> Figure:
    """The mean of one value for each episode over the mean of another, resampled together."""
    above, below = np.asarray(values, float), np.asarray(floors, float)

    def ratio(rows: np.ndarray) -> float:
        return float(above[rows].mean() / below[rows].mean())

    low, high = bootstrap_interval(ratio, len(above), rng=rng)
    return Figure(name=name, unit=unit, value=ratio(np.arange(len(above))), low=low, high=high, count=len(above))


def after(frames: int) -> str:
    """How long after the given frames, in words."""
    return "after 1 frame" if frames == 1 else f"after {frames} frames"


def as_rows(figures: Sequence[Figure]) -> list[Mapping[str, Any]]:
    """The figures as plain data."""
    return [vars(f) for f in figures]
