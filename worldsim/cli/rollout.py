"""`worldsim rollout`: a learned world, stepped with actions and text."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from worldsim.cli.worlds import WorldOptions, actions_for, read_frames, write_result


@dataclass(frozen=True, kw_only=True)
class Options(WorldOptions):
    """What to roll out.

    Attributes:
        checkpoint: Shipped name or directory.
        frames: Frames to generate.
        start: A video whose last frames the world goes on from; without it the first frame is generated.
        text: The text.
        actions: Random held actions by default; else numbers separated by commas (the last one goes on), a .npy file,
            or none.
        out: The video to write: mp4, gif, png or npz.
    """

    checkpoint: tyro.conf.Positional[str] = "bounce"
    frames: int = 60
    start: Path | None = None
    text: str | None = None
    actions: str | None = None
    out: Path = Path("rollout.mp4")


def run(options: Options) -> None:
    """Rolls out, and writes the video."""
    simulator = options.simulator()
    given = None if options.start is None else read_frames(options.start, simulator)[-simulator.model.config.window :]
    actions = actions_for(simulator, options.actions, options.frames, options.seed)
    frames = simulator.rollout(
        actions=actions, frames=given, text=options.text, seed=options.seed, num_frames=options.frames
    )
    write_result(frames, options.out, simulator.fps)
