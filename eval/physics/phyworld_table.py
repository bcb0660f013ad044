"""PhyWorld's protocol: errors in and out of the training distribution, beside the render-and-track floor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from eval.errors import MeasureError
from eval.uncertainty import mean_interval

Family = Literal["uniform", "parabola", "collision"]
# Training ranges: radius in world units, speed in units/s.
RADIUS_RANGE = {"uniform": (0.7, 1.4), "parabola": (0.7, 1.4), "collision": (0.5, 1.5)}
SPEED_RANGE = (1.0, 4.0)
PUBLISHED_GROUPS = ("in", "out", "radius out", "speed out", "both out", "at rest")
FIXED_GROUPS = ("in", "out", "small", "large", "slow", "fast", "crossed", "at rest")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One scored video.

    Attributes:
        radii: One radius, or two for a collision.
        speeds: One initial speed, or two.
        error: Its velocity error; NaN where the truth itself defines none.
        floor: The error of the rendered truth, tracked in the same way.
    """

    radii: tuple[float, ...]
    speeds: tuple[float, ...]
    error: float
    floor: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One group of a table.

    Attributes:
        group: Its name.
        n: Number of cases that `error` averages.
        undefined: Number of cases of the group without a defined error.
        error: Mean velocity error, NaN for none.
        interval: 95 % bootstrap interval of `error` over cases, NaN for none.
        floor: Mean floor of the same cases.
        relative: `error` over `floor`: 1 is as good as the rendered truth; NaN where the floor is 0.
    """

    group: str
    n: int
    undefined: int
    error: float
    interval: tuple[float, float]
    floor: float
    relative: float


def group_of(case: Case, family: Family, *, fixed: bool = False) -> str | None:
    """The group of a case other than "out", which gathers all that are not "in".

    Args:
        case: Radii and speeds decide.
        family: Whose training ranges to use.
        fixed: Tell small from large and slow from fast, "crossed" being out of both ranges (or of one in both
            directions); and leave nothing out.

    Returns:
        The group's name; None, as published, for balls that are so small that they tend to disappear (radius below
        0.6, or up to 0.5 in a collision).
    """
    radii, speeds = np.asarray(case.radii), np.asarray(case.speeds)
    tiny = (radii <= 0.5).any() if family == "collision" else (radii < 0.6).any()
    if tiny and not fixed:
        return None
    if (speeds == 0).any():
        return "at rest"
    (low_r, high_r), (low_v, high_v) = RADIUS_RANGE[family], SPEED_RANGE
    small, large = (radii < low_r).any(), (radii > high_r).any()
    slow, fast = (speeds < low_v).any(), (speeds > high_v).any()
    if not fixed:
        return {(False, False): "in", (True, False): "radius out", (False, True): "speed out"}.get(
            (bool(small or large), bool(slow or fast)), "both out"
        )
    names = [n for n, flag in (("small", small), ("large", large), ("slow", slow), ("fast", fast)) if flag]
    return "in" if not names else names[0] if len(names) == 1 else "crossed"


def table(
    cases: Sequence[Case], family: Family, *, fixed: bool = False, rng: np.random.Generator | None = None
) -> list[Row]:
    """Mean velocity error in and out of distribution.

    Args:
        cases: Scored videos.
        family: "uniform", "parabola" or "collision".
        fixed: Groups of the fixed mode; see `group_of`.
        rng: For the bootstrap; `default_rng(0)` if absent.

    Returns:
        One row a group, empty groups too.

    Raises:
        MeasureError: On an unknown family, no case, or a wrong number of radii or speeds.
    """
    if family not in RADIUS_RANGE or not cases:
        raise MeasureError(
            expected=f"cases of a family among {', '.join(RADIUS_RANGE)}",
            got=f"{len(cases)} cases of {family!r}",
            remedy="Score some videos first.",
        )
    balls = 2 if family == "collision" else 1
    wrong = [c for c in cases if not len(c.radii) == len(c.speeds) == balls]
    if wrong:
        raise MeasureError(
            expected=f"{balls} radii and speeds a case",
            got=f"{wrong[0].radii}, {wrong[0].speeds}",
            remedy="Check them.",
        )
    rng = rng or np.random.default_rng(0)
    groups = [group_of(c, family, fixed=fixed) for c in cases]
    rows = []
    for name in FIXED_GROUPS if fixed else PUBLISHED_GROUPS:
        chosen = [
            c for c, g in zip(cases, groups, strict=True) if g == name or (name == "out" and g not in {None, "in"})
        ]
        rows.append(_row(name, chosen, rng))
    return rows


@dataclass(frozen=True, kw_only=True)
class Moved:
    """One video of a split.

    Attributes:
        error: Its velocity error; NaN where the truth itself defines none.
        floor: The error of the truth, tracked in the same way.
        missing: Share of predicted body-frames that do not show the body.
    """

    error: float
    floor: float
    missing: float


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """One split of a table.

    Attributes:
        row: Velocity error, floor, and their ratio.
        beyond: `row.error` over that of the first split, in distribution; NaN where there is none.
        missing: Mean share of body-frames without the body, NaN for none.
        missing_interval: Its 95 % bootstrap interval.
    """

    row: Row
    beyond: float
    missing: float
    missing_interval: tuple[float, float]


def split_table(splits: Mapping[str, Sequence[Moved]], *, rng: np.random.Generator | None = None) -> list[SplitRow]:
    """Velocity error by split: in distribution, out of it along an axis, or in templates that were held out.

    PhyWorld's combinatorial experiment has people count abnormal videos; bodies that are missing stand for that here.

    Args:
        splits: Name to videos; the first split is the one in distribution.
        rng: For the bootstrap; `default_rng(0)` if absent.

    Raises:
        MeasureError: If there is no split, or one without videos.
    """
    if not splits or not all(splits.values()):
        raise MeasureError(
            expected="at least one split, each with videos",
            got={k: len(v) for k, v in splits.items()},
            remedy="Score some.",
        )
    rng = rng or np.random.default_rng(0)
    rows: list[SplitRow] = []
    for name, videos in splits.items():
        row = _row(name, [Case(radii=(), speeds=(), error=v.error, floor=v.floor) for v in videos], rng)
        missing = np.array([v.missing for v in videos if not np.isnan(v.error)])
        none = (float("nan"), float("nan"))
        within = rows[0].row.error if rows else row.error
        rows.append(
            SplitRow(
                row=row,
                beyond=row.error / within if within > 0 else float("nan"),
                missing=float(missing.mean()) if len(missing) else float("nan"),
                missing_interval=mean_interval(missing, rng=rng) if len(missing) else none,
            )
        )
    return rows


def _row(name: str, cases: Sequence[Case], rng: np.random.Generator) -> Row:
    defined = [c for c in cases if not np.isnan(c.error)]
    if not defined:
        empty = float("nan")
        return Row(
            group=name, n=0, undefined=len(cases), error=empty, interval=(empty, empty), floor=empty, relative=empty
        )
    errors, floors = np.array([(c.error, c.floor) for c in defined]).T
    error, floor = float(errors.mean()), float(floors.mean())
    return Row(
        group=name,
        n=len(defined),
        undefined=len(cases) - len(defined),
        error=error,
        interval=mean_interval(errors, rng=rng),
        floor=floor,
        relative=error / floor if floor > 0 else float("nan"),
    )
