"""`worldsim edit`: a video changed by text."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from worldsim.cli.worlds import WorldOptions, read_frames, write_result
from worldsim.generate import edit


@dataclass(frozen=True, kw_only=True)
class Options(WorldOptions):
    """What to edit.

    Attributes:
        video: The video.
        text: What it should show.
        strength: How far it may change, above 0 and up to 1.
        out: The video to write: mp4, gif, png or npz.
    """

    video: tyro.conf.Positional[Path]
    text: str
    strength: float = 0.6
    out: Path = Path("edited.mp4")


def run(options: Options) -> None:
    """Edits, and writes the video."""
    simulator = options.simulator()
    frames = edit(
        simulator,
        read_frames(options.video, simulator),
        options.text,
        strength=options.strength,
        seed=options.seed,
        steps=options.window_steps,
    )
    write_result(frames, options.out, simulator.fps)
