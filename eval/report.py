"""`write_report`: scores, videos and plots as one HTML file that needs nothing beside it.

The page carries its pictures, runs no script, loads nothing, follows the reader's light or dark theme, and holds still
for readers who ask for reduced motion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from eval.batch import Failure
from eval.errors import EvalError
from eval.pictures import check_alike, every_kth, picture_uri, preview, strip
from eval.suite import Report
from eval.tables import comparison_rows, measured_rows, show_frames, unmeasured_groups

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True, kw_only=True)
class Videos:
    """Videos of one scene, moving in step side by side, then every k-th frame of each in a row.

    Attributes:
        panels: Label to uint8 (T, H, W, 3); all of one shape.
        fps: Frames per second.
        given: Number of leading frames that were given, not predicted.
        marked: Label to frames at which something broke.
        caption: What is seen.
        columns: At most so many frames in a row.
    """

    panels: Mapping[str, np.ndarray]
    fps: float
    given: int = 0
    marked: Mapping[str, Sequence[int]] = field(default_factory=dict)
    caption: str = ""
    columns: int = 12
    kind: ClassVar[str] = "videos"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A still picture.

    Attributes:
        image: uint8 (H, W, 3) or (H, W, 4).
        caption: What is seen.
    """

    image: np.ndarray
    caption: str
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot.

    Attributes:
        svg: From `eval.plots`; goes into the page as it is.
        caption: What is seen.
    """

    svg: str
    caption: str
    kind: ClassVar[str] = "plot"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of one clip in full."""

    report: Report
    kind: ClassVar[str] = "scores"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Scores of several kinds of clip side by side.

    Attributes:
        groups: Label to results, one a case.
        truth: Label of the true videos: where a measure can be taken on the truth of a case and not on another video of
            it, that video counts as 0. None where there is no truth.
        caption: How the cases came about.
    """

    groups: Mapping[str, Sequence[Report | Failure]]
    truth: str | None = None
    caption: str = ""
    kind: ClassVar[str] = "comparison"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names and values."""

    items: Mapping[str, object]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Plain rows; numbers as text, already rounded.

    Attributes:
        columns: Headings.
        rows: One text a column each; the first column names the row.
        caption: What the rows are.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True, kw_only=True)
class Prose:
    """A text in Markdown (CommonMark and tables): headings, paragraphs, lists, code; HTML in it is shown as text."""

    text: str
    kind: ClassVar[str] = "prose"


@dataclass(frozen=True, kw_only=True)
class Note:
    """A remark: "plain", or a "warning" that a reader must not miss."""

    text: str
    tone: Literal["plain", "warning"] = "plain"
    kind: ClassVar[str] = "note"


Block = Videos | Picture | Plot | Scores | Comparison | Facts | Table | Prose | Note


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report under its own heading.

    Attributes:
        title: The heading.
        text: A paragraph below it.
        blocks: What follows.
    """

    title: str
    text: str = ""
    blocks: Sequence[Block] = ()


def write_report(
    path: str | Path,
    *,
    title: str,
    lead: str,
    sections: Sequence[Section],
    provenance: Mapping[str, object],
) -> Path:
    """Writes a report, atomically: a reader sees the old file or the new one.

    The same input gives the same file, byte for byte.

    Args:
        path: The HTML file; its directory is made.
        title: The title.
        lead: A paragraph that says what was done and how to read it.
        sections: The parts.
        provenance: What would be needed to make it again: versions, seeds, hashes, options.

    Returns:
        The path.

    Raises:
        EvalError: If there is no section, or the file cannot be written.
        MeasureError: If videos to be shown together differ in shape.
    """
    if not sections:
        raise EvalError(expected="at least one section", got="none", remedy="Report something.")
    shown = [_view(section, number) for number, section in enumerate(sections, 1)]
    html = _template().render(title=title, lead=lead, sections=shown, provenance=provenance)
    return _write(Path(path), html)


def _view(section: Section, number: int) -> dict[str, object]:
    blocks = [{"kind": block.kind, **_VIEWS[block.kind](block)} for block in section.blocks]
    return {"id": f"part-{number}", "title": section.title, "text": section.text, "blocks": blocks}


def _videos(block: Videos) -> dict[str, object]:
    labels, videos = list(block.panels), list(block.panels.values())
    count, height, width = check_alike(videos)
    # Wide frames leave room for fewer of them.
    columns = max(4, min(block.columns, round(block.columns * height / width)))
    indices = every_kth(count, columns)
    rows = [
        {
            "label": label,
            "uri": strip(video, indices, given=block.given, marked=block.marked.get(label, ())),
            "marked": show_frames(block.marked.get(label, ())),
        }
        for label, video in block.panels.items()
    ]
    return {
        "labels": labels,
        "preview": preview(videos, block.fps),
        "rows": rows,
        "indices": indices,
        "given": block.given,
        "any_marked": any(len(m) for m in block.marked.values()),
        "pixelated": max(height, width) <= 128,
        "caption": block.caption,
        "legend": f"{count} frames of {height}×{width} at {block.fps:g} frames/s",
    }


def _scores(block: Scores) -> dict[str, object]:
    return {
        "rows": measured_rows(block.report),
        "unmeasured": unmeasured_groups(block.report),
        "aggregate": block.report.aggregate(),
    }


def _comparison(block: Comparison) -> dict[str, object]:
    rows = comparison_rows(block.groups, truth=block.truth)
    empty = [r for r in rows if all(c.value is None for c in r.cells)]
    failures = {label: [r for r in results if isinstance(r, Failure)] for label, results in block.groups.items()}
    return {
        "labels": list(block.groups),
        "truth": block.truth,
        "rows": [r for r in rows if r not in empty],
        "empty": empty,
        "failures": [(label, f) for label, found in failures.items() for f in found],
        "caption": block.caption,
    }


def _prose(block: Prose) -> dict[str, object]:
    from markdown_it import MarkdownIt  # noqa: PLC0415 - only when a text is shown

    # Images would be loaded from elsewhere, and headings must not outrank the section's own.
    rendered = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = rendered.parse(block.text)
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(6, int(token.tag[1]) + 1)}"
    return {"html": rendered.renderer.render(tokens, rendered.options, {})}


_VIEWS = {
    "videos": _videos,
    "picture": lambda b: {"uri": picture_uri(b.image), "width": b.image.shape[1], "caption": b.caption},
    "plot": lambda b: {"svg": b.svg, "caption": b.caption},
    "scores": _scores,
    "comparison": _comparison,
    "facts": lambda b: {"items": b.items},
    "table": lambda b: {"columns": b.columns, "rows": b.rows, "caption": b.caption},
    "prose": _prose,
    "note": lambda b: {"text": b.text, "tone": b.tone},
}


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - only when a report is written

    loader = PackageLoader("eval", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html")


def _write(path: Path, html: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
            try:
                file.write(html)
                file.flush()
                Path(file.name).chmod(0o644)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise EvalError(expected=f"to write {path}", got=error, remedy="Check the place and its space.") from error
    return path
