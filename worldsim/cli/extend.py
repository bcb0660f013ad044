"""`worldsim extend`: a video continued, or given a past."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from worldsim.camera import read_camera
from worldsim.cli.worlds import WorldOptions, actions_for, read_frames, write_result
from worldsim.generate import extend


@dataclass(frozen=True, kw_only=True)
class Options(WorldOptions):
    """What to extend.

    Attributes:
        video: The video.
        frames: Frames to add.
        backward: Add them before the video instead of after it.
        text: The text.
        actions: None leaves them to the model; else numbers separated by commas, or a .npy file (forward only).
        camera: The camera's motion to each added frame, or with --backward from each to the next: a .npy of motions
            (T, 6) or of poses `world_from_camera` (T+1, 4, 4); left to the model by default.
        out: The video to write: mp4, gif, png or npz.
    """

    video: tyro.conf.Positional[Path]
    frames: int = 30
    backward: bool = False
    text: str | None = None
    actions: str = "none"
    camera: Path | None = None
    out: Path = Path("extended.mp4")


def run(options: Options) -> None:
    """Extends, and writes the video."""
    simulator = options.simulator()
    given = read_frames(options.video, simulator)
    frames = extend(
        simulator,
        given,
        num_frames=options.frames,
        direction="backward" if options.backward else "forward",
        actions=actions_for(simulator, options.actions, options.frames, options.seed),
        camera=None if options.camera is None else read_camera(options.camera),
        text=options.text,
        seed=options.seed,
        steps=options.window_steps,
    )
    write_result(frames, options.out, simulator.fps)
