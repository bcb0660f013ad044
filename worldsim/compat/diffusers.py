"""Text-to-video pipelines of Diffusers (huggingface/diffusers) as a source of videos to grade.

Such a model takes text and gives a whole video: it is not stepped and takes no actions. Wan, LTX-Video, CogVideoX,
HunyuanVideo, AnimateDiff and whatever else follows Diffusers' conventions go through the same few lines.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from worldsim.errors import CheckpointError, ConfigError, FramesError, TextError
from worldsim.video import Video

# A pipeline's weights do not tell its frame rate, and most pipelines do not ask for it: these are the rates at which
# the examples of Diffusers' own documentation save each family's videos, by the beginning of the class name.
EXAMPLE_FPS: Mapping[str, float] = {
    "Allegro": 15.0,
    "AnyFlow": 16.0,
    "CogVideoX": 8.0,
    "EasyAnimate": 8.0,
    "Helios": 24.0,
    "HunyuanVideo": 15.0,
    "Kandinsky5": 24.0,
    "MotifVideo": 24.0,
    "SanaVideo": 16.0,
    "SkyReelsV2": 24.0,
    "Wan": 16.0,
}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
COUNT_NAMES = ("num_frames", "video_length")
RATE_NAMES = ("frame_rate", "fps")


@dataclass(frozen=True, kw_only=True)
class DiffusersVideo:
    """A text-to-video pipeline: call it with a text.

    Attributes:
        pipeline: The pipeline of Diffusers.
        fps: Frames per second of its videos.
        steps: Denoising steps; None for the pipeline's own number.
        guidance: Weight of guidance by the text; None for the pipeline's own.
    """

    pipeline: Any
    fps: float
    steps: int | None = None
    guidance: float | None = None

    def __call__(
        self,
        text: str,
        *,
        seed: int = 0,
        num_frames: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> Video:
        """The video of a text.

        Args:
            text: What to show.
            seed: Seed of the noise; the same seed gives the same frames.
            num_frames: Frames; the pipeline's own number by default.
            frame_size: (H, W); the pipeline's own by default.

        Returns:
            Frames uint8 (T, H, W, 3) and frames per second: what `eval.Clip` takes.

        Raises:
            TextError: If the text is not a string.
            ConfigError: If the pipeline refuses an argument, or has no such argument.
            FramesError: If the pipeline gives another number of frames, or pixels that are not finite.
        """
        if not isinstance(text, str):
            raise TextError(expected="a text", got=type(text).__name__, remedy="Call once for each text.")
        wanted = {
            _first(COUNT_NAMES, self._takes): num_frames,
            _first(RATE_NAMES, self._takes): self.fps,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "height": None if frame_size is None else frame_size[0],
            "width": None if frame_size is None else frame_size[1],
        }
        options = {k: v for k, v in wanted.items() if k is not None and v is not None}
        foreign = sorted(set(options) - set(self._takes))
        name = type(self.pipeline).__name__
        if foreign:
            raise ConfigError(expected=f"arguments of {name}", got=", ".join(foreign), remedy="Leave them out.")
        # On the CPU, so that the noise is the same on every device.
        generator = torch.Generator("cpu").manual_seed(seed)
        try:
            made = self.pipeline(prompt=text, generator=generator, output_type="np", **options)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                expected=f"what {name} takes", got=error, remedy="Change frames, size, steps or guidance."
            ) from error
        frames = _bytes(getattr(made, "frames", None), name)
        if num_frames is not None and len(frames) != num_frames:
            raise FramesError(
                expected=f"{num_frames} frames from {name}", got=len(frames), remedy=f"Ask for {len(frames)}."
            )
        return Video(frames, self.fps)

    @property
    def _takes(self) -> Mapping[str, inspect.Parameter]:
        return _parameters(type(self.pipeline))


def load_diffusers(
    source: str | Path,
    *,
    fps: float | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> DiffusersVideo:
    """Wraps a text-to-video pipeline.

    Weights are read from safetensors only, and no code that lies beside them is run.

    Args:
        source: A directory that `save_pretrained` wrote. A hub id, "owner/name", is downloaded by Diffusers (into the
            hub's own cache); nothing is downloaded for a directory.
        fps: Frames per second of its videos. By default what the pipeline itself asks for (`frame_rate`), or the rate
            of `EXAMPLE_FPS`.
        steps: Denoising steps; the pipeline's own number by default.
        guidance: Weight of guidance by the text; the pipeline's own by default.
        device: Where to run.
        dtype: Type of the weights.

    Raises:
        ConfigError: If the package is missing, the pipeline is not one from text to video, or no frame rate is known.
        CheckpointError: If there is no such directory or hub id, or it cannot be loaded.
    """
    package = _package()
    local = Path(source).is_dir()
    if not local and not HUB_ID.fullmatch(str(source)):
        raise CheckpointError(
            expected='a directory of a Diffusers pipeline, or a hub id "owner/name"', got=source, remedy="Check it."
        )
    try:
        index = package.DiffusionPipeline.load_config(str(source), local_files_only=local)
    except Exception as error:  # the hub's client raises many kinds
        raise _unreadable(source, error) from error
    kind = _text_to_video(package, index.get("_class_name"))
    rate = _rate(kind, fps)
    try:
        pipeline = kind.from_pretrained(str(source), local_files_only=local, use_safetensors=True, dtype=dtype).to(
            device
        )
    except Exception as error:  # so do truncated and foreign weights
        raise _unreadable(source, error) from error
    pipeline.set_progress_bar_config(disable=None)  # none where nobody watches
    return DiffusersVideo(pipeline=pipeline, fps=rate, steps=steps, guidance=guidance)


def _package() -> ModuleType:
    try:
        return import_module("diffusers")
    except ImportError as error:
        raise ConfigError(
            expected="the package diffusers", got=error, remedy="Install it: pip install 'worldsim[diffusers]'."
        ) from error


def _text_to_video(package: ModuleType, name: object) -> Any:  # noqa: ANN401 - a class of an untyped package
    """The pipeline class, if text alone makes it give a video whose noise can be seeded."""
    kind = getattr(package, name, None) if isinstance(name, str) else None
    takes = {} if kind is None else _parameters(kind)
    needed = [k for k, p in takes.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    understood = {"prompt", "generator", "output_type"} <= set(takes) and _first(COUNT_NAMES, takes)
    if not understood or set(needed) - {"prompt"}:
        raise ConfigError(
            expected="a pipeline of Diffusers that makes a video from text alone, such as WanPipeline",
            got=f"{name}" + (f", which needs {', '.join(needed)}" if needed else ""),
            remedy="Use another pipeline; grade what this one makes with `worldsim score`.",
        )
    return kind


def _rate(kind: Any, fps: float | None) -> float:  # noqa: ANN401 - a class of an untyped package
    takes = _parameters(kind)
    asked = _first(RATE_NAMES, takes)
    known = (
        takes[asked].default
        if asked
        else next((rate for start, rate in EXAMPLE_FPS.items() if kind.__name__.startswith(start)), None)
    )
    rate = fps if fps is not None else known
    if rate is None or not (np.isfinite(rate) and rate > 0):
        raise ConfigError(
            expected=f"frames per second above 0 (the weights of {kind.__name__} do not tell)",
            got=fps,
            remedy="Pass fps: that of the videos it was trained on.",
        )
    return float(rate)


def _parameters(kind: Any) -> Mapping[str, inspect.Parameter]:  # noqa: ANN401 - a class of an untyped package
    found = inspect.signature(kind.__call__).parameters
    return {k: p for k, p in found.items() if k != "self"}


def _first(names: tuple[str, ...], takes: Mapping[str, Any]) -> str | None:
    return next((n for n in names if n in takes), None)


def _bytes(video: Any, name: str) -> np.ndarray:  # noqa: ANN401 - whatever the pipeline gives
    frames = np.asarray(video)
    if frames.ndim != 5 or len(frames) != 1 or frames.shape[-1] != 3 or not np.issubdtype(frames.dtype, np.floating):
        raise FramesError(
            expected=f"one video of floats (1, T, H, W, 3) from {name}",
            got=f"{frames.dtype} {frames.shape}",
            remedy="Use a pipeline that follows Diffusers' conventions.",
        )
    if not (frames.min() >= 0.0 and frames.max() <= 1.0):  # false for NaN
        raise FramesError(
            expected=f"finite pixels in [0, 1] from {name}",
            got=f"{frames.min()} to {frames.max()}",
            remedy="Check the weights, or use another dtype.",
        )
    return np.round(frames[0] * 255.0).astype(np.uint8)


def _unreadable(source: str | Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        expected="a whole Diffusers pipeline with safetensors weights",
        got=f"{source}: {type(error).__name__}: {error}",
        remedy="Check the directory, or the hub id and the connection.",
    )
