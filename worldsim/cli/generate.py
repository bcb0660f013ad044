"""`worldsim generate`: a video, or an image, from text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from worldsim.camera import read_camera
from worldsim.cli.worlds import WorldOptions, actions_for, write_result
from worldsim.compat.diffusers import load_diffusers
from worldsim.errors import ConfigError
from worldsim.generate import text_to_video
from worldsim.video import Video

FRAMES = 60


@dataclass(frozen=True, kw_only=True)
class Options(WorldOptions):
    """What to generate.

    Attributes:
        text: What to show.
        frames: Frames; 1 for an image. 60 by default, or a Diffusers pipeline's own number.
        actions: None leaves them to the model; else numbers separated by commas, or a .npy file.
        camera: The camera's motion: a .npy of motions (T, 6) or of poses `world_from_camera` (T+1, 4, 4); left to the
            model by default.
        size: Height and width; the training size by default.
        diffusers: Directory or hub id of a text-to-video pipeline of Diffusers, in place of a checkpoint; a hub id is
            downloaded.
        fps: Frames per second of a Diffusers pipeline's videos, where it is not known.
        dtype: Type of a Diffusers pipeline's weights; a checkpoint has its own.
        out: The video to write: mp4, gif, png or npz.
    """

    text: tyro.conf.Positional[str]
    frames: int | None = None
    actions: str = "none"
    camera: Path | None = None
    size: tuple[int, int] | None = None
    diffusers: str | None = None
    fps: float | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    out: Path = Path("generated.mp4")


def run(options: Options) -> None:
    """Generates, and writes the video."""
    video = _learned(options) if options.diffusers is None else _foreign(options, options.diffusers)
    write_result(video.frames, options.out, video.fps)


def _learned(options: Options) -> Video:
    if options.fps is not None or options.dtype != "float32":
        raise ConfigError(
            expected="--fps and --dtype with --diffusers only",
            got=f"{options.fps} and {options.dtype}",
            remedy="A checkpoint has its own.",
        )
    simulator = options.simulator()
    count = FRAMES if options.frames is None else options.frames
    frames = text_to_video(
        simulator,
        options.text,
        num_frames=count,
        actions=actions_for(simulator, options.actions, count - 1, options.seed),
        camera=None if options.camera is None else read_camera(options.camera),
        seed=options.seed,
        frame_size=options.size,
    )
    return Video(frames, simulator.fps)


def _foreign(options: Options, source: str) -> Video:
    if options.actions != "none" or options.camera is not None:
        raise ConfigError(
            expected="no actions or camera for a Diffusers pipeline",
            got=f"{options.actions} and {options.camera}",
            remedy="It takes text only.",
        )
    pipeline = load_diffusers(
        source,
        fps=options.fps,
        steps=options.steps,
        guidance=options.guidance,
        device=options.device,
        dtype=getattr(torch, options.dtype),
    )
    return pipeline(options.text, seed=options.seed, num_frames=options.frames, frame_size=options.size)
