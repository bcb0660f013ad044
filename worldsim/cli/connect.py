"""`worldsim connect`: frames between two videos."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from worldsim.camera import read_camera
from worldsim.cli.worlds import WorldOptions, read_frames, write_result
from worldsim.generate import connect


@dataclass(frozen=True, kw_only=True)
class Options(WorldOptions):
    """What to connect.

    Attributes:
        before: The first video.
        after: The second video.
        frames: Frames to put between them.
        camera: The camera's motion from the first video's last frame to the second one's first: a .npy of motions
            (frames + 1, 6) or of poses `world_from_camera` (frames + 2, 4, 4); left to the model by default.
        text: The text.
        out: The video to write: mp4, gif, png or npz.
    """

    before: tyro.conf.Positional[Path]
    after: tyro.conf.Positional[Path]
    frames: int = 8
    camera: Path | None = None
    text: str | None = None
    out: Path = Path("connected.mp4")


def run(options: Options) -> None:
    """Connects, and writes the video."""
    simulator = options.simulator()
    before, after = (read_frames(path, simulator) for path in (options.before, options.after))
    frames = connect(
        simulator,
        before,
        after,
        num_frames=options.frames,
        camera=None if options.camera is None else read_camera(options.camera),
        text=options.text,
        seed=options.seed,
        steps=options.window_steps,
    )
    write_result(frames, options.out, simulator.fps)
