"""`worldsim score --compare`: kinds of video side by side, measure by measure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table as Printed

from eval.batch import Failure
from eval.ordering import Ordering, orderings
from eval.report import Block, Note, Section, Table
from eval.suite import Report
from worldsim.cli.clips import find_videos
from worldsim.errors import ConfigError

Kinds = Mapping[str, Sequence[Path]]
NONE_TOLD = "No measure has both a direction and a value on any of these videos."


def parse_kinds(texts: Sequence[str]) -> dict[str, list[Path]]:
    """Kinds of video from `LABEL=PATH[,PATH...]`, each path a video or a folder of videos.

    Raises:
        ConfigError: On text of another form, a label given twice, or fewer than two labels.
        VideoError: If a path does not exist, or a folder holds no videos.
    """
    kinds: dict[str, list[Path]] = {}
    for text in texts:
        label, _, listed = text.partition("=")
        paths = [Path(p.strip()) for p in listed.split(",") if p.strip()]
        if not label.strip() or not paths or label.strip() in kinds:
            raise ConfigError(
                expected="LABEL=PATH[,PATH...], each label once, for example real=a.mp4,b.mp4 generated=folder",
                got=text,
                remedy="Correct it.",
            )
        kinds[label.strip()] = find_videos(paths)
    if len(kinds) < 2:
        raise ConfigError(expected="at least two kinds to compare", got=", ".join(kinds), remedy="Name another.")
    return kinds


def by_kind(kinds: Kinds, results: Sequence[Report | Failure]) -> dict[str, Sequence[Report | Failure]]:
    """The results, which are in the order of the kinds' videos, by kind."""
    found, start = {}, 0
    for label, paths in kinds.items():
        found[label] = results[start : start + len(paths)]
        start += len(paths)
    return found


def kinds_section(groups: Mapping[str, Sequence[Report | Failure]]) -> Section:
    """The report's table of the kinds."""
    found = orderings(groups)
    first, *others = groups
    table: Block = Note(text=NONE_TOLD)
    if found:
        caption = (
            f"↑ higher is better, ↓ lower is better. “{first} better than”: in how many of the pairs of one video of "
            "each kind, a tie for ½."
        )
        table = Table(columns=_columns(groups), rows=[_cells(o, groups) for o in found], caption=caption)
    text = (
        "A measure with “card not passed” can be wrong about such differences, in the way that its card says; one "
        "without a value on a video could not be tested there. With few videos the order may be chance."
    )
    return Section(title=f"{first} against {', '.join(others)}", text=text, blocks=[table])


def print_kinds(groups: Mapping[str, Sequence[Report | Failure]]) -> Printed | str:
    """The same for a terminal."""
    found = orderings(groups)
    if not found:
        return NONE_TOLD
    table = Printed(title=" against ".join(groups), title_justify="left")
    for column in _columns(groups):
        table.add_column(column, overflow="fold")
    for ordering in found:
        table.add_row(*_cells(ordering, groups))
    return table


def _columns(groups: Mapping[str, Sequence[Report | Failure]]) -> list[str]:
    first, *others = groups
    return ["measure", *groups, *(f"{first} better than {other}" for other in others), "evaluator"]


def _cells(ordering: Ordering, groups: Mapping[str, Sequence[Report | Failure]]) -> list[str]:
    unit = "" if ordering.unit in {"1", "share"} else f" / {ordering.unit}"
    values = [ordering.cell(label) for label in groups]
    preferred = [str(p) for p in ordering.preferences.values()]
    return [f"{ordering.name} {ordering.arrow}{unit}", *values, *preferred, ordering.card.partition(":")[0]]
