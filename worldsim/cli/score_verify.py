"""`worldsim score --verify scores.json`: measures saved scores again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.errors import EvalError
from eval.suite import Report, read_json
from eval.verify import Verdict, verify
from worldsim.cli.clips import Reader, find_videos, windows
from worldsim.cli.options import flat
from worldsim.cli.score_kinds import parse_kinds


def verify_scores(saved: Path, videos: Sequence[Path], console: Console) -> None:
    """Reads the videos as they were read then, scores them again, and prints what became of each score.

    Args:
        saved: A scores.json.
        videos: The videos, where they lie elsewhere now; else they are where they were.
        console: Where to print.

    Raises:
        EvalError: If the file is none of `worldsim score`, videos are missing, or a score was not reproduced.
    """
    data = read_json(saved)
    options, results = _parts(data, saved)
    paths = list(find_videos(videos) if videos else _listed(options))
    reference = options["reference"]
    reader = Reader(
        fps=options["fps"],
        max_frames=options["max_frames"],
        max_side=options["max_side"],
        reference=None if reference is None else Path(reference),
    )
    if options["window"] is not None:
        paths = [part for path in paths for part in windows(path, reader, options["window"])]
    if len(paths) != len(results):
        raise EvalError(
            expected=f"the {len(results)} videos that were scored", got=f"{len(paths)}", remedy="Name the same ones."
        )
    counts = dict.fromkeys(("reproduced", "differs", "refused"), 0)
    for path, result in zip(paths, results, strict=True):
        # A file that failed has no score to reproduce.
        verdicts = verify(Report.from_json(result), reader(path)) if "scores" in result else ()
        for found in verdicts:
            counts[found.verdict] += 1
        _print(console, path, verdicts)
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    console.print(summary)
    if counts["differs"] or counts["refused"]:
        raise EvalError(expected="every saved score reproduced", got=summary, remedy="Score the videos again.")


def _parts(data: Any, saved: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # noqa: ANN401 - JSON is untyped
    try:
        options, results = data["options"], data["results"]
        options = {k: options[k] for k in ("videos", "compare", "reference", "fps", "max_frames", "max_side", "window")}
    except (KeyError, TypeError) as error:
        raise EvalError(
            expected=f"scores of videos in {saved}", got=repr(error), remedy="Pass a scores.json of worldsim score."
        ) from error
    return options, results


def _listed(options: dict[str, Any]) -> list[Path]:
    if options["compare"]:
        return [path for listed in parse_kinds(flat(options["compare"])).values() for path in listed]
    return find_videos([Path(v) for v in options["videos"]])


def _print(console: Console, path: Path, verdicts: Sequence[Verdict]) -> None:
    wrong = [v for v in verdicts if v.verdict != "reproduced"]
    console.print(f"{path}: {len(verdicts) - len(wrong)} of {len(verdicts)} scores reproduced", markup=False)
    for found in wrong:
        console.print(f"  {found.name} {found.verdict}: {found.reason}", markup=False, soft_wrap=True)
