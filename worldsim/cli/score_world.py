"""Suites that grade a learned world by running it, rather than a video."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.report import write_report
from eval.score import versions
from eval.suite import write_json
from worldsim.cli import score_control, score_phyworld, score_plausibility
from worldsim.cli.output import output_folder
from worldsim.simulator import load

WORLD_SUITES = ("plausibility", "control", "phyworld")
FORMAT = 1


def score_world(
    checkpoint: str,
    suite: str,
    *,
    cases: int,
    seed: int,
    scorers: Sequence[str],
    device: str,
    out: Path,
    console: Console,
) -> None:
    """Measures, prints a table, writes scores.json and report.html.

    Args:
        checkpoint: Shipped name or directory.
        suite: One of `WORLD_SUITES`.
        cases: How much to measure.
        seed: Which fresh scenes.
        scorers: Who judges plausibility.
        device: Where to run.
        out: The folder.
        console: Where the table goes.

    Raises:
        UnknownNameError: If there is no such checkpoint or scorer.
        ConfigError: If the checkpoint learned none of the worlds whose truth is known.
    """
    simulator = load(checkpoint, device=device)
    if suite == "plausibility":
        judged = score_plausibility.measure(simulator, scorers=scorers, cases=cases, seed=seed, console=console)
        table, plain = score_plausibility.show(judged), score_plausibility.as_json(judged)
        sections = score_plausibility.sections(judged, simulator)
    elif suite == "phyworld":
        moved = score_phyworld.measure(simulator, cases=cases, seed=seed)
        table, plain = score_phyworld.show(moved), score_phyworld.as_json(moved)
        sections = score_phyworld.sections(moved, simulator)
    else:
        played = score_control.measure(simulator, cases=cases, seed=seed)
        table, plain = score_control.show(played), score_control.as_json(played)
        sections = score_control.sections(played, simulator)
    about: dict[str, Any] = {
        "suite": suite,
        "checkpoint": checkpoint,
        "fingerprint": simulator.fingerprint,
        "sampling": json.dumps(simulator.sampling.to_dict()),
        "cases": cases,
        "seed": seed,
        **versions(),
    }
    console.print(table)
    with output_folder(out) as folder:
        write_json(folder / "scores.json", {"format": FORMAT, **about, "found": plain})
        write_report(
            folder / "report.html",
            title=f"{suite.capitalize()} of {Path(checkpoint).name}",
            lead="The checkpoint is run on fresh scenes of the true world that it learned.",
            sections=sections,
            provenance=about,
        )
