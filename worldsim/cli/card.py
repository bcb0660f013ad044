"""`worldsim card`: measures a learned world on fresh episodes, and writes its card."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from worldsim.checkpoint import resolve
from worldsim.cli.card_aims import aims_table
from worldsim.cli.card_bounce import bounce_figures
from worldsim.cli.card_control import control_figures
from worldsim.cli.card_figures import measure
from worldsim.cli.card_room import room_figures
from worldsim.cli.card_rows import Figure, as_rows
from worldsim.cli.demo_cases import FRESH_SEED, GIVEN, record_truth, world_of
from worldsim.files import write_text
from worldsim.sampling import Sampling
from worldsim.simulator import Simulator, load


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure.

    Attributes:
        checkpoint: Shipped name or directory.
        cases: Episodes.
        frames: Frames of each episode.
        seed: Which fresh episodes.
        write: Write the card, README.md and card.json, into the checkpoint's directory.
        note: A file whose text the card begins with: how the world was trained, and what it cannot do.
    """

    checkpoint: tyro.conf.Positional[str] = "bounce"
    cases: int = 24
    frames: int = 72
    seed: int = 1
    write: bool = False
    note: Path | None = None


def run(options: Options) -> None:
    """Measures, prints, and writes if asked."""
    simulator = load(options.checkpoint)
    world = world_of(simulator)
    episodes = record_truth(world, simulator, cases=options.cases, frames=options.frames, seed=options.seed)
    figures = measure(simulator, [e for e, _ in episodes], seed=options.seed, still_camera=world.title == "Bounce")
    figures += control_figures(simulator, cases=options.cases, seed=options.seed)
    if world.title == "Bounce":
        figures += bounce_figures(simulator, cases=options.cases, seed=options.seed)
    else:
        figures += room_figures(simulator, cases=options.cases, seed=options.seed)
    _print(figures, options.checkpoint)
    if options.write:
        folder = resolve(options.checkpoint)
        write_text(folder / "card.json", json.dumps(as_rows(figures), indent=1) + "\n")
        write_text(folder / "README.md", _card(simulator, world.title, figures, options))
        print(f"written to {folder}")


def _print(figures: Sequence[Figure], name: str) -> None:
    table = Table(title=f"{name}, on episodes never trained on")
    for column in ("figure", "value", "95 % interval", "n"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for row in figures:
        table.add_row(row.name, f"{row.value:.3f} {row.unit}", f"{row.low:.3f} to {row.high:.3f}", str(row.count))
    Console(width=120).print(table)


def _card(simulator: Simulator, title: str, figures: Sequence[Figure], options: Options) -> str:
    note = "" if options.note is None else options.note.read_text().strip() + "\n\n"
    checkpoint = simulator.checkpoint
    training = checkpoint.meta.get("training", {})
    rows = "\n".join(
        f"| {f.name} | {f.value:.3f}{f.unit and ' ' + f.unit} | {f.low:.3f} to {f.high:.3f} | {f.count} |"
        for f in figures
    )
    about = checkpoint.meta.get("data", {})
    return f"""# The learned world `{Path(options.checkpoint).name}`

{note}Data: {about.get("episodes")} episodes, {about.get("frames")} frames (digest `{str(about.get("digest"))[:16]}`).
Training: seed {training.get("seed")}, {training.get("tokenizer_optimiser", {}).get("steps")} updates of the tokenizer,
{training.get("optimiser", {}).get("steps")} of the transformer; the whole configuration is in `config.json` under
`meta.training`.

## Aims

{aims_table(title, figures)}

## Figures

`worldsim card {options.checkpoint} --cases {options.cases} --frames {options.frames} --seed {options.seed}`: on fresh
episodes (recording seed {FRESH_SEED + options.seed} and up), {GIVEN} frames given, then alone with the true actions
and the caption; {_sampled(simulator.sampling)}. Means with 95 % intervals
(bootstrap over episodes; Newcombe's for AUROC, Wilson's for false alarms).

| figure | value | 95 % interval | n |
|---|---|---|---|
{rows}
"""


def _sampled(sampling: Sampling) -> str:
    later, first = (f"{n} denoising step{'s' * (n != 1)}" for n in (sampling.steps, sampling.first_steps))
    return f"{later} a frame, {first} for a first one"
