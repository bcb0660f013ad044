"""`worldsim edit`: a video changed by text."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from worldsim.camera import read_camera
from worldsim.cli.worlds import WorldOptions, read_frames, write_result
from worldsim.generate import edit


@dataclass(frozen=True, kw_only=True)
class Options(WorldOptions):
    """What to edit.

    Attributes:
        video: The video.
        text: What it should show.
        strength: How far it may change, above 0 and up to 1.
        camera: The camera's motion between the frames: a .npy of motions (T-1, 6) or of poses `world_from_camera`
            (T, 4, 4); left to the model by default.
        out: The video to write: mp4, gif, png or npz.
    """

    video: tyro.conf.Positional[Path]
    text: str
    strength: float = 0.6
    camera: Path | None = None
    out: Path = Path("edited.mp4")


def run(options: Options) -> None:
    """Edits, and writes the video."""
    simulator = options.simulator()
    frames = edit(
        simulator,
        read_frames(options.video, simulator),
        options.text,
        strength=options.strength,
        camera=None if options.camera is None else read_camera(options.camera),
        seed=options.seed,
        steps=options.window_steps,
    )
    write_result(frames, options.out, simulator.fps)
