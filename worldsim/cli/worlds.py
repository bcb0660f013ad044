"""What the commands that run a learned world share: loading it, actions from the command line, writing the result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from worldsim.checkpoint import load_checkpoint
from worldsim.errors import ActionError
from worldsim.generate import WINDOW_STEPS
from worldsim.simulator import Sampling, Simulator
from worldsim.spaces import stack_actions
from worldsim.transformer import Precision
from worldsim.video import read_video, write_video

HELD_FRAMES = 4.0


@dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """How a learned world is run.

    Attributes:
        checkpoint: Shipped name or directory.
        seed: The seed; the same seed gives the same frames.
        steps: Denoising steps a frame; the checkpoint's own by default. Of a window where frames come at once (edit,
            connect, extend backward) 8 by default.
        first_steps: The same for a frame that is made from text alone.
        guidance: Weight of guidance by the text, 1 being none; the checkpoint's own by default.
        device: Where to run.
        precision: Of the transformer: float32 or bfloat16.
        compile: Whether to compile steps first, which takes a minute and pays for long or many rollouts.
    """

    checkpoint: str = "bounce"
    seed: int = 0
    steps: int | None = None
    first_steps: int | None = None
    guidance: float | None = None
    device: str = "cpu"
    precision: Precision = "float32"
    compile: bool = False

    @property
    def window_steps(self) -> int:
        """Denoising steps of frames that come at once."""
        return WINDOW_STEPS if self.steps is None else self.steps

    def simulator(self) -> Simulator:
        """The world, loaded."""
        checkpoint = load_checkpoint(self.checkpoint, device=self.device)
        asked = {"text_guidance": self.guidance, "steps": self.steps, "first_steps": self.first_steps}
        changes = {k: v for k, v in asked.items() if v is not None}
        sampling = Sampling.from_dict(checkpoint.meta.get("sampling", {}) | changes)
        return Simulator(
            checkpoint, sampling=sampling, device=self.device, precision=self.precision, compiled=self.compile
        )


def read_frames(path: Path, simulator: Simulator) -> np.ndarray:
    """A video's frames, resized by area to the size that the world was trained at if they differ, and saying so."""
    import cv2  # noqa: PLC0415 - only this needs it

    frames, _ = read_video(path)
    height, width = simulator.frame_size
    if frames.shape[1:3] == (height, width):
        return frames
    print(f"{path.name}: resized from {frames.shape[2]}x{frames.shape[1]} to {width}x{height}")
    return np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in frames])


def actions_for(simulator: Simulator, text: str | None, count: int, seed: int) -> Any:  # noqa: ANN401 - any space
    """Actions from `--actions`.

    Args:
        simulator: The world.
        text: None for random held actions; "none" to leave them to the model; a .npy file; or numbers separated by
            commas, the last one repeated (for a Discrete space).
        count: How many are needed.
        seed: Seed of random actions.

    Raises:
        ActionError: If the text is none of these, or the world has no actions.
    """
    space = simulator.action_space
    if space is None or text == "none":
        return None
    if text is None:
        return random_actions(space, count, seed)
    if text.endswith(".npy"):
        return np.load(text)[:count]
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ActionError(
            expected="--actions as numbers separated by commas, a .npy file, or none", got=text, remedy="Correct it."
        ) from error
    if not isinstance(space, spaces.Discrete):
        raise ActionError(expected="a .npy file for this action space", got=text, remedy=f"The space is {space}.")
    return np.array((numbers + numbers[-1:] * count)[:count])


def random_actions(space: spaces.Space, count: int, seed: int) -> Any:  # noqa: ANN401 - any space
    """Random actions, each held for some frames so that its effect can be seen."""
    rng = np.random.default_rng(seed)
    space.seed(seed)
    actions = [space.sample()]
    while len(actions) < count:
        actions.append(space.sample() if rng.random() < 1.0 / HELD_FRAMES else actions[-1])
    return stack_actions(space, actions[:count])


def write_result(frames: np.ndarray, path: Path, fps: float) -> None:
    """Writes the video, and says so."""
    write_video(path, frames, fps)
    print(f"{len(frames)} frames ({len(frames) / fps:.1f} s) in {path}")
