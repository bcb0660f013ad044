"""`worldsim generate`: a video, or an image, from text."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from worldsim.cli.worlds import WorldOptions, actions_for, write_result
from worldsim.generate import text_to_video


@dataclass(frozen=True, kw_only=True)
class Options(WorldOptions):
    """What to generate.

    Attributes:
        text: What to show.
        frames: Frames; 1 for an image.
        actions: None leaves them to the model; else numbers separated by commas, or a .npy file.
        size: Height and width; the training size by default.
        out: The video to write: mp4, gif, png or npz.
    """

    text: tyro.conf.Positional[str]
    frames: int = 60
    actions: str = "none"
    size: tuple[int, int] | None = None
    out: Path = Path("generated.mp4")


def run(options: Options) -> None:
    """Generates, and writes the video."""
    simulator = options.simulator()
    frames = text_to_video(
        simulator,
        options.text,
        num_frames=options.frames,
        actions=actions_for(simulator, options.actions, options.frames - 1, options.seed),
        seed=options.seed,
        frame_size=options.size,
    )
    write_result(frames, options.out, simulator)
