"""`worldsim import`: other projects' checkpoints as ours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from worldsim.checkpoint import save_checkpoint
from worldsim.cli.options import Many, flat
from worldsim.compat.open_oasis import ACTIONS, import_open_oasis

_CARD = """# Oasis, imported

Converted from the weight files `{dit}` and `{vae}` of etched-ai/open-oasis (MIT licence; the project says what it
was trained on). {height} x {width} pixels at {fps:g} frames/s, window {window}, {steps} denoising steps. It was trained
without windowed attention: the cache is refreshed exactly once the window slides.

Actions: {actions}.
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to convert.

    Attributes:
        project: Where the weights are from.
        dit: The transformer's safetensors file.
        vae: The tokenizer's safetensors file.
        out: Directory of the checkpoint.
        frame_size: Height and width of the frames.
        window: Frames that the transformer was trained on.
        vae_heads: Attention heads of the tokenizer.
        action_names: Names of the entries of an action; those of the released model by default.
        fps: Frames per second.
        steps: Denoising steps a frame.
    """

    project: tyro.conf.Positional[Literal["open-oasis"]]
    dit: tyro.conf.Positional[Path]
    vae: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    frame_size: tuple[int, int] = (360, 640)
    window: int = 32
    vae_heads: int = 16
    action_names: Many[str] = ()
    fps: float = 20.0
    steps: int = 10


def run(options: Options) -> None:
    """Converts, and says what was written."""
    names = flat(options.action_names) if options.action_names else ACTIONS
    checkpoint = import_open_oasis(
        options.dit,
        options.vae,
        frame_size=options.frame_size,
        window=options.window,
        vae_heads=options.vae_heads,
        action_names=names,
        fps=options.fps,
        steps=options.steps,
    )
    height, width = options.frame_size
    card = _CARD.format(
        dit=options.dit.name,
        vae=options.vae.name,
        height=height,
        width=width,
        fps=options.fps,
        window=options.window,
        steps=options.steps,
        actions=", ".join(names) or "none",
    )
    path = save_checkpoint(checkpoint, options.out, card=card)
    weights = sum(p.numel() for module in (checkpoint.model, checkpoint.tokenizer) for p in module.parameters())
    print(f"{path}: {weights:,} weights, {height}x{width} pixels, {len(names)} action entries")
