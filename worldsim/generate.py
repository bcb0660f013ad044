"""What one model does beside stepping: videos from text, extending either way, connecting, editing.

Forward generation steps the simulator. The other tasks see the future too: they run the same weights with bidirectional
time over windows no longer than those of training, longer videos window by window.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from worldsim.controls import Controls
from worldsim.errors import ConfigError, FramesError, TextError
from worldsim.noise import clean_from_prediction, mix
from worldsim.sampler import first_order_step
from worldsim.simulator import Simulator
from worldsim.state import frame_noise
from worldsim.tokenizer import check_frame_size
from worldsim.transformer import Conditions
from worldsim.video import check_frames, from_model, to_model

OVERLAP = 4  # latent frames that a window shares with what is already known
# Frames that a window adds to the past: bodies fade from frames far from any that is known (docs/simulator.md).
BACKWARD_FRAMES = 2
WINDOW_STEPS = 8  # denoising steps of frames that come at once: they need more than the next frame does


def text_to_video(
    simulator: Simulator,
    text: str | None,
    *,
    num_frames: int,
    actions: Any = None,  # noqa: ANN401 - any space's value
    camera: np.ndarray | None = None,
    seed: int = 0,
    frame_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """A video from text alone; one frame is an image.

    Args:
        simulator: The learned world.
        text: What to show; None lets the model choose.
        num_frames: Frames in all; 1 + a multiple of the temporal stride.
        actions: The num_frames - 1 actions, or None to leave them to the model.
        camera: The (num_frames - 1, 6) motions of the camera (`worldsim.camera`), or None likewise.
        seed: The seed.
        frame_size: (H, W); the training size by default.

    Returns:
        uint8 (num_frames, H, W, 3).

    Raises:
        ConfigError: If the length does not fit the temporal stride.
        ActionError: If the actions do not fit the length or the space.
        CameraError: If the motions do not fit the length, or the model takes none.
    """
    stride = simulator.actions_per_step
    if num_frames < 1 or (num_frames - 1) % stride:
        raise ConfigError(expected=f"1 + a multiple of {stride} frames", got=num_frames, remedy="Change the number.")
    return simulator.rollout(
        actions=actions, camera=camera, text=text, seed=seed, num_frames=num_frames - 1, frame_size=frame_size
    )


def extend(
    simulator: Simulator,
    frames: np.ndarray,
    *,
    num_frames: int,
    direction: Literal["forward", "backward"] = "forward",
    actions: Any = None,  # noqa: ANN401 - any space's value
    camera: np.ndarray | None = None,
    text: str | None = None,
    seed: int = 0,
    steps: int = WINDOW_STEPS,
) -> np.ndarray:
    """A video continued, or given a past.

    Args:
        simulator: The learned world.
        frames: uint8 (T, H, W, 3).
        num_frames: Frames to add.
        direction: "forward" steps the simulator; "backward" denoises earlier frames given later ones.
        actions: Actions of the added frames ("forward" only), or None to leave them to the model.
        camera: Motions of the camera (`worldsim.camera`), (num_frames, 6): to each added frame, or, "backward", from
            each to the next. None leaves them to the model.
        text: The text.
        seed: The seed.
        steps: Denoising steps of a window ("backward"); "forward" uses the simulator's own number.

    Returns:
        uint8 (T + num_frames, H, W, 3), the given frames untouched.

    Raises:
        FramesError: If the frames do not fit the model.
        ConfigError: If actions are given for going backward.
        ActionError: If the actions do not fit the number of frames or the space.
        CameraError: If the motions do not fit that number, or the model takes none.
    """
    check_frames(frames)
    if direction == "forward":
        return simulator.rollout(
            frames=frames, actions=actions, camera=camera, text=text, seed=seed, num_frames=num_frames
        )
    if actions is not None:
        raise ConfigError(expected="no actions for going backward", got="some", remedy="Pass None.")
    _single_stride(simulator)
    later = _encode(simulator, frames)
    controls = simulator.inputs.of_window(camera, num_frames, num_frames + later.shape[1], first=1)
    added = num_frames
    while added > 0:
        count = min(added, BACKWARD_FRAMES, _longest(simulator) - 1)
        known = later[:, : _longest(simulator) - count]
        unknown = torch.zeros_like(known[:, :1]).expand(-1, count, -1, -1, -1)
        window = torch.cat((unknown, known), dim=1)
        start = torch.cat((torch.ones(count), torch.zeros(known.shape[1])))
        own = controls.at(slice(added - count, added - count + window.shape[1]))
        solved = _denoise_window(simulator, window, start, own, text=text, seed=seed + added, steps=steps)
        later = torch.cat((solved[:, :count], later), dim=1)
        added -= count
    return np.concatenate((_decode(simulator, later[:, :num_frames]), frames))


def connect(
    simulator: Simulator,
    before: np.ndarray,
    after: np.ndarray,
    *,
    num_frames: int,
    camera: np.ndarray | None = None,
    text: str | None = None,
    seed: int = 0,
    steps: int = WINDOW_STEPS,
) -> np.ndarray:
    """Frames between two videos.

    Args:
        simulator: The learned world.
        before: uint8 (T0, H, W, 3).
        after: uint8 (T1, H, W, 3) of the same size.
        num_frames: Frames to put between them; with one known frame on each side they must fit a training window.
        camera: Motions of the camera (`worldsim.camera`) from the last frame of the first video to the first one of the
            second, (num_frames + 1, 6). None leaves them to the model.
        text: The text.
        seed: The seed.
        steps: Denoising steps.

    Returns:
        uint8 (T0 + num_frames + T1, H, W, 3), the given frames untouched.

    Raises:
        FramesError: If the sizes differ or do not fit the model.
        ConfigError: If there are more frames to fill than a window holds.
        CameraError: If the motions do not fit the number of frames, or the model takes none.
    """
    check_frames(before)
    check_frames(after)
    _single_stride(simulator)
    if before.shape[1:] != after.shape[1:]:
        raise FramesError(expected=f"frames of {before.shape[1:3]}", got=after.shape[1:3], remedy="Resize one video.")
    room = _longest(simulator) - num_frames
    if num_frames < 1 or room < 2:
        raise ConfigError(
            expected=f"1 to {_longest(simulator) - 2} frames to fill (a training window, less a known one each side)",
            got=num_frames,
            remedy="Fill fewer frames, or extend one video first.",
        )
    left = _encode(simulator, before[-(room // 2) :])
    right = _encode(simulator, after[: room - room // 2])
    gap = torch.zeros_like(left[:, :1]).expand(-1, num_frames, -1, -1, -1)
    start = torch.cat((torch.zeros(left.shape[1]), torch.ones(num_frames), torch.zeros(right.shape[1])))
    window = torch.cat((left, gap, right), dim=1)
    controls = simulator.inputs.of_window(camera, num_frames + 1, window.shape[1], first=left.shape[1])
    solved = _denoise_window(simulator, window, start, controls, text=text, seed=seed, steps=steps)
    middle = solved[:, left.shape[1] : left.shape[1] + num_frames]
    return np.concatenate((before, _decode(simulator, middle), after))


def edit(
    simulator: Simulator,
    frames: np.ndarray,
    text: str,
    *,
    strength: float = 0.6,
    camera: np.ndarray | None = None,
    seed: int = 0,
    steps: int = WINDOW_STEPS,
) -> np.ndarray:
    """A video changed by text: noised in part, then denoised under the new text (SDEdit, Meng et al. 2021).

    Args:
        simulator: The learned world.
        frames: uint8 (T, H, W, 3).
        text: What it should show.
        strength: Noise level to which the video is taken, in (0, 1]; 1 keeps nothing of it.
        camera: The (T - 1, 6) motions of the camera (`worldsim.camera`), or None to leave them to the model.
        seed: The seed.
        steps: Denoising steps.

    Returns:
        uint8 (T, H, W, 3).

    Raises:
        ConfigError: If `strength` is out of range.
        TextError: If the model has no text.
        FramesError: If the frames do not fit the model.
        CameraError: If the motions do not fit the frames, or the model takes none.
    """
    if not 0.0 < strength <= 1.0:
        raise ConfigError(expected="strength in (0, 1]", got=strength, remedy="Choose for example 0.6.")
    if simulator.model.config.text is None:
        raise TextError(expected="a model with text", got="one without", remedy="Use another checkpoint.")
    check_frames(frames)
    _single_stride(simulator)
    source = _encode(simulator, frames)
    controls = simulator.inputs.of_window(camera, source.shape[1] - 1, source.shape[1], first=1)
    done = source[:, :0]
    while done.shape[1] < source.shape[1]:
        known = done[:, -OVERLAP:] if done.shape[1] else done
        fresh = source[:, done.shape[1] : done.shape[1] + _longest(simulator) - known.shape[1]]
        start = torch.cat((torch.zeros(known.shape[1]), torch.full((fresh.shape[1],), strength)))
        window = torch.cat((known, fresh), dim=1)
        own = controls.at(slice(done.shape[1] - known.shape[1], done.shape[1] + fresh.shape[1]))
        solved = _denoise_window(simulator, window, start, own, text=text, seed=seed + done.shape[1], steps=steps)
        done = torch.cat((done, solved[:, known.shape[1] :]), dim=1)
    return _decode(simulator, done)


@torch.inference_mode()
def _denoise_window(
    simulator: Simulator,
    latents: Tensor,
    start: Tensor,
    controls: Controls,
    *,
    text: str | None,
    seed: int,
    steps: int,
) -> Tensor:
    """Denoises a window with bidirectional time, each frame from its own start level (0 keeps it as given).

    Args:
        simulator: The learned world.
        latents: (1, F, C, h, w) clean latents; what lies at unknown frames does not matter.
        start: (F,) levels.
        controls: (1, F, ...), what led to the frames; to the first one of a window nothing does.
        text: The text.
        seed: The seed.
        steps: Denoising steps.
    """
    model = simulator.model
    start = start.to(latents)[None]
    count = latents.shape[1]
    seeds, positions = torch.full((count,), seed), torch.arange(count)
    noise = frame_noise(seeds, positions, latents.shape[2:]).to(latents)[None]
    x = mix(model.path, latents, noise, start)
    fixed = (start == 0.0)[..., None, None, None]
    has_camera = controls.has_camera & (positions > 0).to(latents.device)
    camera = controls.camera if model.config.camera_dim else None
    told, untold = (Conditions(camera=camera, has_camera=has_camera, text=model.encode_text([t])) for t in (text, None))
    weight = 1.0 if text is None else simulator.sampling.text_guidance
    places = positions.to(latents.device)
    for i in range(steps):
        here, there = start * (1.0 - i / steps), start * (1.0 - (i + 1) / steps)
        clean = _clean(simulator, x, here, told, places)
        if weight != 1.0:
            clean = clean + (weight - 1.0) * (clean - _clean(simulator, x, here, untold, places))
        moved = first_order_step(x, clean, here[..., None, None, None], there[..., None, None, None], model.path)
        x = torch.where(fixed, latents, moved)
    return x


def _clean(simulator: Simulator, x: Tensor, levels: Tensor, conditions: Conditions, positions: Tensor) -> Tensor:
    """The estimate of the clean latents of a window under bidirectional time."""
    model = simulator.model
    out = model(x, levels, conditions, positions=positions, mask=None)
    return clean_from_prediction(model.path, model.config.prediction, out.prediction, x, levels)


def _longest(simulator: Simulator) -> int:
    """Frames of the windows that bidirectional time was trained on."""
    training = simulator.checkpoint.meta.get("training", {})
    return int(training.get("dynamics", {}).get("length", simulator.model.config.window))


@torch.inference_mode()
def _encode(simulator: Simulator, frames: np.ndarray) -> Tensor:
    config = simulator.model.config
    check_frame_size(frames.shape[1], frames.shape[2], simulator.tokenizer.config, patch=config.patch)
    return simulator.tokenizer.encode(to_model(frames[None], simulator.device))


@torch.inference_mode()
def _decode(simulator: Simulator, latents: Tensor) -> np.ndarray:
    return from_model(simulator.tokenizer.decode(latents))[0]


def _single_stride(simulator: Simulator) -> None:
    if simulator.actions_per_step != 1:
        raise ConfigError(
            expected="a tokenizer with temporal stride 1", got=simulator.actions_per_step, remedy="Use such a world."
        )
