"""`worldsim rollout`: a learned world, stepped with actions and text."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from worldsim.camera import read_camera
from worldsim.cli.worlds import WorldOptions, actions_for, read_frames, write_result

FRAMES = 60


@dataclass(frozen=True, kw_only=True)
class Options(WorldOptions):
    """What to roll out.

    Attributes:
        checkpoint: Shipped name or directory.
        frames: Frames to generate; 60 by default, or as many as the camera's motion leads to.
        start: A video whose last frames the world goes on from; without it the first frame is generated.
        text: The text.
        actions: Random held actions by default; else numbers separated by commas (the last one goes on), a .npy file,
            or none.
        camera: The camera's motion: a .npy of motions (T, 6) or of poses `world_from_camera` (T+1, 4, 4); left to the
            model by default.
        out: The video to write: mp4, gif, png or npz.
    """

    checkpoint: tyro.conf.Positional[str] = "bounce"
    frames: int | None = None
    start: Path | None = None
    text: str | None = None
    actions: str | None = None
    camera: Path | None = None
    out: Path = Path("rollout.mp4")


def run(options: Options) -> None:
    """Rolls out, and writes the video."""
    simulator = options.simulator()
    given = None if options.start is None else read_frames(options.start, simulator)[-simulator.model.config.window :]
    camera = None if options.camera is None else read_camera(options.camera)
    told = FRAMES if camera is None else len(camera)
    count = told if options.frames is None else options.frames
    actions = actions_for(simulator, options.actions, count, options.seed)
    frames = simulator.rollout(
        actions=actions,
        camera=camera,
        frames=given,
        text=options.text,
        seed=options.seed,
        num_frames=count,
    )
    write_result(frames, options.out, simulator.fps)
