"""`worldsim score`: grade videos of any source, or a learned world, and write scores and a report."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from eval import BatchReport, Report, Suite, score_many
from eval.batch import Failure
from eval.errors import EvalError
from eval.ordering import orderings
from eval.report import Block, Comparison, Note, Section, write_report
from eval.score import versions
from eval.sections import clip_section
from eval.suite import write_json
from eval.tables import measured_rows, show_value, unmeasured_groups
from worldsim.cli.clips import Reader, find_videos, windows
from worldsim.cli.options import Many, flat
from worldsim.cli.output import output_folder
from worldsim.cli.score_kinds import by_kind, kinds_section, parse_kinds, print_kinds
from worldsim.cli.score_verify import verify_scores
from worldsim.cli.score_world import WORLD_SUITES, score_world
from worldsim.errors import ConfigError

SCORES_FORMAT = 1
MAX_COLUMNS = 6
FILE_WIDTH = 120


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to grade.

    Attributes:
        videos: Video files, folders of videos, or folders of images; mp4, webm, mkv, avi, gif, npz, png. Or recorded
            datasets, whose truth (masks, camera, depth) is used. With the suite plausibility, control or phyworld, a
            checkpoint: shipped name or directory.
        compare: In place of videos, kinds of them to hold against each other: LABEL=PATH[,PATH...], the first against
            each of the others. For example `--compare real=filmed/ generated=a.mp4,b.mp4`.
        suite: Suites or evaluators, separated by commas: physics, geometry, fidelity, quality, all; of a checkpoint,
            plausibility, control or phyworld. By default physics, geometry and quality, and fidelity where there is a
            reference.
        reference: The true video of the same scene, for measures of fidelity; only with a single video.
        verify: A scores.json: measure its scores again, on the videos that it names or on those given, and exit with 2
            unless all are reproduced.
        fps: Frames per second, in place of what the files state.
        max_frames: Of longer videos only the first so many frames are scored; the report says so.
        window: Videos are cut into parts of so many frames, each scored by itself; what is left over is not scored.
        max_side: Larger videos are shrunk until their longer side has so many pixels; the report says so.
        workers: Processes.
        pictures: At most so many clips are shown in full in the report; all are in its table and in scores.json.
        out: Folder for scores.json and report.html.
        cases: Of a checkpoint: pairs of each violation at each severity (plausibility), or episodes (control), of each
            split (phyworld).
        seed: Of a checkpoint: which fresh scenes.
        scorers: Of a checkpoint's plausibility, separated by commas: surprise (its own), untrained, pixel_change, and
            any evaluators or suites.
        device: Of a checkpoint: where to run.
    """

    videos: tyro.conf.Positional[tuple[Path, ...]] = ()
    compare: Many[str] = ()
    suite: str | None = None
    reference: Path | None = None
    verify: Path | None = None
    fps: float | None = None
    max_frames: int = 128
    window: int | None = None
    max_side: int = 640
    workers: int = 1
    pictures: int = 12
    out: Path = Path("out/score")
    cases: int = 8
    seed: int = 1
    scorers: str = "surprise,untrained,pixel_change"
    device: str = "cpu"


def run(options: Options) -> None:
    """Grades, prints a table, writes scores.json and report.html."""
    console = Console() if sys.stdout.isatty() else Console(width=FILE_WIDTH)
    if options.verify is not None:
        verify_scores(options.verify, options.videos, console)
        return
    if options.suite in WORLD_SUITES:
        _score_world(options, options.suite, console)
    else:
        _score_videos(options, console)
    console.print(f"scores: {options.out / 'scores.json'}\nreport: {options.out / 'report.html'}", soft_wrap=True)


def _score_world(options: Options, suite: str, console: Console) -> None:
    if len(options.videos) != 1:
        raise ConfigError(
            expected=f"one checkpoint for the suite {suite}", got=f"{len(options.videos)}", remedy="Score one by one."
        )
    score_world(
        str(options.videos[0]),
        suite,
        cases=options.cases,
        seed=options.seed,
        scorers=_listed(options.scorers),
        device=options.device,
        out=options.out,
        console=console,
    )


def _score_videos(options: Options, console: Console) -> None:
    suite = Suite.of(_suites(options))
    if options.videos and options.compare:
        raise ConfigError(
            expected="videos, or --compare with kinds of them", got="both", remedy="Give every video a kind, or none."
        )
    kinds = parse_kinds(flat(options.compare)) if options.compare else {}
    reader = Reader(
        fps=options.fps, max_frames=options.max_frames, max_side=options.max_side, reference=options.reference
    )
    kinds = {label: _parts(listed, reader, options.window) for label, listed in kinds.items()}
    paths = [path for listed in kinds.values() for path in listed]
    paths = paths or _parts(find_videos(options.videos), reader, options.window)
    if options.reference is not None and len(paths) > 1:
        raise ConfigError(
            expected="one video with a reference", got=f"{len(paths)} videos", remedy="Score them one by one."
        )
    # A single video that cannot be read is a mistake to name, not a failure to count.
    sources = [reader(paths[0])] if len(paths) == 1 else paths
    batch = score_many(sources, suite, read=reader, workers=options.workers, progress=_Progress(console, len(paths)))
    if not batch.reports:
        raise EvalError(
            expected=f"at least one of {len(paths)} videos that can be scored",
            got=batch.failures[0].error,
            remedy="Check the files.",
        )
    _print(console, batch)
    groups = by_kind(kinds, batch.results)
    if groups:
        console.print(print_kinds(groups))
    with output_folder(options.out) as folder:
        listed = {"orderings": [asdict(o) for o in orderings(groups)]} if groups else {}
        write_json(folder / "scores.json", {**scores_json(batch, suite, options), **listed})
        write_report(
            folder / "report.html",
            title=_title(batch),
            lead=f"Measured: {suite.name.replace('+', ', ')}. Every number is an estimate from pixels; where a measure "
            "could not be taken, the page says why, and no such gap raises a score.",
            sections=[*([kinds_section(groups)] if groups else []), *_sections(batch, paths, reader, options.pictures)],
            provenance={
                "inputs": ", ".join(f"{r.clip} {r.input}" for r in batch.reports),
                "frames at most": options.max_frames,
                "longer side at most": f"{options.max_side} px",
                **({} if options.window is None else {"cut into parts of": f"{options.window} frames"}),
                **versions(),
            },
        )


def scores_json(batch: BatchReport, suite: Suite, options: Options) -> dict[str, Any]:
    """Everything measured, and how to measure it again, as plain data."""
    names = [e.name for e in suite.evaluators]
    return {
        "format": SCORES_FORMAT,
        "options": {k: _plain(v) for k, v in asdict(options).items()},
        "versions": versions(),
        "means": {n: asdict(batch.mean(n)) for n in names},
        "aggregate": asdict(batch.aggregate()),
        "failures": len(batch.failures),
        **batch.to_json(),
    }


def _parts(paths: list[Path], reader: Reader, window: int | None) -> list[Path]:
    return paths if window is None else [part for path in paths for part in windows(path, reader, window)]


class _Progress:
    """Prints a line a clip."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.began = console, total, time.monotonic()

    def __call__(self, done: int, result: Report | Failure) -> None:
        took = time.monotonic() - self.began
        self.began = time.monotonic()
        if isinstance(result, Failure):
            verdict = f"FAILED: {result.error}"
        else:
            values = sum(s.value is not None for s in result.values())
            verdict = f"{values} of {len(result)} measures gave a value"
        line = f"[{done}/{self.total}] {result.clip}: {verdict} ({took:.1f} s)"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _suites(options: Options) -> list[str]:
    if options.suite is None:
        return ["physics", "geometry", "quality", *(["fidelity"] if options.reference else [])]
    named = _listed(options.suite)
    both = sorted(set(named) & set(WORLD_SUITES))
    if both:
        raise ConfigError(
            expected=f"{both[0]} alone: it grades a checkpoint, the others videos",
            got=options.suite,
            remedy="Run the command once for each.",
        )
    return named


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _title(batch: BatchReport) -> str:
    if len(batch.results) == 1:
        return f"Scores of {batch.results[0].clip}"
    failed = f", {len(batch.failures)} failed" if batch.failures else ""
    return f"Scores of {len(batch.results)} videos{failed}"


def _sections(batch: BatchReport, paths: Sequence[Path], reader: Reader, pictures: int) -> list[Section]:
    found = [(path, r) for path, r in zip(paths, batch.results, strict=True) if isinstance(r, Report)]
    shown = [clip_section(reader(path), report) for path, report in found[:pictures]]
    if len(batch.results) == 1:
        return shown
    return [_overview(batch, len(found) - len(shown)), *shown]


def _overview(batch: BatchReport, not_shown: int) -> Section:
    blocks: list[Block] = []
    if batch.failures:
        listed = "\n".join(f"{f.clip}: {f.error}" for f in batch.failures)
        text = f"{len(batch.failures)} of {len(batch.results)} videos failed; each counts as 0 in the means.\n{listed}"
        blocks.append(Note(text=text, tone="warning"))
    each = {r.clip: [r] for r in batch.reports}
    few = len(each) == len(batch.reports) <= MAX_COLUMNS
    blocks.append(Comparison(groups=each if few else {f"all {len(batch.results)} videos": batch.results}))
    if not_shown:
        blocks.append(Note(text=f"{not_shown} further clips are scored in scores.json and not shown below."))
    return Section(title="All videos", blocks=blocks)


def _print(console: Console, batch: BatchReport) -> None:
    if len(batch.reports) > MAX_COLUMNS:
        _print_means(console, batch)
        return
    for report in batch.reports:
        table = Table(title=report.clip, title_justify="left")
        for column in ("measure", "value", "0-1", "coverage"):
            table.add_column(column, justify="left" if column == "measure" else "right", no_wrap=True)
        table.add_column("offending frames / why there is no value", overflow="fold")
        for row in measured_rows(report):
            scale = "" if row.normalised is None else f"{row.normalised:.2f}"
            table.add_row(f"{row.name} {row.better}", row.value, scale, row.coverage, row.offending)
        for group in unmeasured_groups(report):
            count = group.names[0] if len(group.names) == 1 else f"{len(group.names)} measures"
            table.add_row(count, group.status, "", "", group.reason, style="dim")
        console.print(table)


def _print_means(console: Console, batch: BatchReport) -> None:
    table = Table(title=f"{len(batch.results)} videos, {len(batch.failures)} failed", title_justify="left")
    for column in ("measure", "mean 0-1", "measured", "failed", "no value"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    for name in batch.reports[0]:
        mean = batch.mean(name)
        value = "" if mean.value is None else show_value(mean.value, mean.standard_error)
        table.add_row(name, value, f"{mean.measured}", f"{mean.failed}", f"{sum(mean.unmeasured.values())}")
    console.print(table)


def _plain(value: Any) -> Any:  # noqa: ANN401 - options are of any type
    if isinstance(value, Path):
        return str(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
