"""A person's own text and video, taken up by a learned world."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from eval import Clip
from worldsim.cli.worlds import random_actions
from worldsim.simulator import Simulator
from worldsim.video import read_video

RATE_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class OwnInput:
    """What a person gave, and what the learned world made of it.

    Attributes:
        clip: Given frames, if any, and what followed.
        given: Number of leading frames that were given.
        notes: What was done to the input, in words.
    """

    clip: Clip
    given: int
    notes: Sequence[str]


def continue_input(
    simulator: Simulator, *, text: str | None, video: Path | None, frames: int, seed: int
) -> OwnInput | None:
    """Generates from text alone, or goes on from a video; None where neither is given.

    Raises:
        VideoError: If the video cannot be read.
        TextError: If the text is too long, or the world takes none.
    """
    if text is None and video is None:
        return None
    prompt, notes = (None, []) if video is None else fit_video(video, simulator)
    if prompt is None:
        rule = simulator.sampling
        notes.append(f"The first frame took {rule.first_steps} denoising steps, the others {rule.steps} each.")
    state, first = simulator.reset(frames=prompt, text=text, seed=seed)
    given = 0 if prompt is None else len(prompt)
    made = list(first if prompt is None else prompt)
    actions = None if simulator.action_space is None else random_actions(simulator.action_space, frames, seed)
    for t in range(frames - 1 if prompt is None else frames):
        step = simulator.step(state, None if actions is None else actions[t : t + 1], donate=True)
        state = step.state
        made += list(step.frames)
    if actions is not None:
        notes.append("The agent, or the camera, is moved at random, each action held for a while.")
    name = "your text" if video is None else f"{video.name}, continued"
    return OwnInput(clip=Clip(frames=np.stack(made), fps=simulator.fps, text=text, name=name), given=given, notes=notes)


def fit_video(path: Path, simulator: Simulator) -> tuple[np.ndarray, list[str]]:
    """The end of a video at the size and rate of a learned world, as much as it can attend to.

    The picture is cropped around its centre to the world's proportions and resized; of faster videos the frames nearest
    in time are taken. Nothing is blended.

    Returns:
        uint8 (T, H, W, 3), and what was done, in words.
    """
    height, width = simulator.frame_size
    sizes: list[tuple[int, int]] = []

    def fit(frame: np.ndarray) -> np.ndarray:
        sizes.append((frame.shape[0], frame.shape[1]))
        crop = _centre(frame, height / width)
        smaller = crop.shape[0] >= height
        how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        return cv2.resize(crop, (width, height), interpolation=how)

    frames, fps = read_video(path, default_fps=simulator.fps, each=fit)
    notes = []
    if sizes[0] != (height, width):
        cropped = _centre(np.empty((*sizes[0], 0)), height / width).shape[:2]
        crop = "" if cropped == sizes[0] else f"cropped around the centre to {cropped[0]}×{cropped[1]} and "
        notes.append(f"Your video of {sizes[0][0]}×{sizes[0][1]} was {crop}resized to {height}×{width}.")
    step = fps / simulator.fps
    if step > 1 + RATE_TOLERANCE:
        frames = frames[np.round(np.arange(0.0, len(frames) - 0.5, step)).astype(int)]
        notes.append(f"Of {fps:g} frames/s the nearest at {simulator.fps:g} were taken.")
    elif step < 1 - RATE_TOLERANCE:
        notes.append(f"Its {fps:g} frames/s are taken as {simulator.fps:g}: it runs {1 / step:.2g} times as fast here.")
    most = simulator.checkpoint.model.config.window - 1
    if len(frames) > most:
        notes.append(f"The world is shown the last {most} of its {len(frames)} frames, all it can attend to.")
    notes.append("This world has only ever seen its own kind of picture; anything else will turn into that.")
    return frames[-most:], notes


def _centre(frame: np.ndarray, aspect: float) -> np.ndarray:
    """The largest part around the centre with height / width of `aspect`."""
    height, width = frame.shape[:2]
    tall, wide = min(height, max(1, round(width * aspect))), min(width, max(1, round(height / aspect)))
    top, left = (height - tall) // 2, (width - wide) // 2
    return frame[top : top + tall, left : left + wide]
