"""`worldsim info`: what there is, or what a checkpoint, dataset or video is."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from worldsim.checkpoint import Checkpoint, load_checkpoint, resolve, shipped
from worldsim.data import Dataset
from worldsim.errors import UnknownNameError
from worldsim.simulator import Sampling
from worldsim.sizes import SIZES, cost, size, training_cost
from worldsim.training.presets import PRESETS
from worldsim.video import read_video

_ACTIONS = 5  # of the models in the table of sizes; a few weights more or less


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to describe.

    Attributes:
        what: A shipped checkpoint's name, or the path of a checkpoint, a dataset or a video; without it, a table of the
            shipped checkpoints, the training presets and the model sizes.
    """

    what: tyro.conf.Positional[str] = ""


def run(options: Options) -> None:
    """Prints tables."""
    console = Console()
    if not options.what:
        _overview(console)
        return
    path = Path(options.what)
    if options.what in shipped() or (path / "config.json").exists():
        _describe(console, f"checkpoint {options.what}", _of_checkpoint(load_checkpoint(options.what)))
        console.print(resolve(options.what) / "README.md")
    elif path.is_dir():
        _describe(console, f"dataset {path}", _of_dataset(Dataset.open(path)))
    elif path.exists():
        frames, fps = read_video(path)
        seconds = f"{len(frames) / fps:.2f} s at {fps:g} frames/s"
        _describe(console, f"video {path}", [("frames", f"{frames.shape}"), ("length", seconds)])
    else:
        raise UnknownNameError(
            kind="checkpoint, or path of a checkpoint, dataset or video", name=options.what, known=shipped()
        )


def _overview(console: Console) -> None:
    console.print(f"shipped checkpoints: {', '.join(shipped()) or 'none'}; training presets: {', '.join(PRESETS)}")
    table = Table(title="model sizes on 64 x 64 pixels (latents of 8 x 8, window of 16 frames)")
    columns = (
        "size",
        "width x depth",
        "parameters",
        "weights",
        "GFLOP a pass",
        "GFLOP a frame (2 steps)",
        "cache an env",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "size" else "right")
    steps = Sampling().steps
    for name in SIZES:
        config = replace(size(name), action_dim=_ACTIONS)
        found = cost(config, latent_grid=(8, 8))
        table.add_row(
            name,
            f"{config.width} x {config.depth}",
            f"{found.parameters / 1e6:.1f} M",
            f"{found.weight_bytes / 2**20:.0f} MiB",
            f"{found.flops_per_pass / 1e9:.2f}",
            f"{found.flops_per_pass * (steps + 1) / 1e9:.2f}",
            f"{found.cache_bytes / 2**20:.1f} MiB",
        )
    console.print(table)
    console.print(_training_table())


def _training_table() -> Table:
    """What training each size takes on frames of 256 x 256."""
    table = Table(
        title="training on 256 x 256 pixels (latents of 32 x 32), 20 target tokens a parameter, 8 devices of "
        "989 TFLOP/s (H100, H200) at 40 % utilisation"
    )
    for column in ("size", "tokens", "frames", "FLOP", "state, a copy each", "state, shared by 8", "a window", "time"):
        table.add_column(column, justify="left" if column == "size" else "right")
    for name in SIZES:
        found = training_cost(replace(size(name), action_dim=_ACTIONS), latent_grid=(32, 32))
        table.add_row(
            name,
            f"{found.tokens / 1e9:.2f} G",
            f"{found.frames / 1e6:.2f} M",
            f"{found.flops:.1e}",
            f"{found.state_bytes / 2**30:.2f} GiB",
            f"{found.state_bytes / 8 / 2**30:.2f} GiB",
            f"{found.window_bytes / 2**30:.2f} GiB",
            _duration(found.days),
        )
    return table


def _duration(days: float) -> str:
    """In the largest unit of which there is one.

    >>> _duration(0.5), _duration(3.21)
    ('12.0 h', '3.2 days')
    """
    units = {"days": 1.0, "h": 1 / 24, "min": 1 / 1440}
    unit = next((unit for unit, in_days in units.items() if days >= in_days), "s")
    return f"{days / units.get(unit, 1 / 86400):.1f} {unit}"


def _of_checkpoint(checkpoint: Checkpoint) -> Iterable[tuple[str, str]]:
    model, tokenizer = checkpoint.model.config, checkpoint.tokenizer.config
    height, width = checkpoint.frame_size
    grid = (height // tokenizer.spatial_stride, width // tokenizer.spatial_stride)
    found = cost(model, latent_grid=grid)
    return [
        ("frames", f"{height} x {width} at {checkpoint.fps:g} frames/s"),
        ("actions", f"{checkpoint.action_space}"),
        ("camera", f"motions up to {_motions(checkpoint.camera_range)}" if checkpoint.camera_range else "no"),
        ("text", "yes" if model.text else "no"),
        (
            "transformer",
            f"{found.parameters / 1e6:.2f} M parameters, {model.width} x {model.depth}, window {model.window}",
        ),
        ("tokenizer", f"{sum(p.numel() for p in checkpoint.tokenizer.parameters()) / 1e6:.2f} M parameters"),
        (
            "cost",
            f"{found.flops_per_pass / 1e9:.3f} GFLOP a pass"
            + (f", {found.flops_per_forecast / 1e9:.3f} a forecast" if found.flops_per_forecast else "")
            + f", {found.cache_bytes / 2**20:.1f} MiB cache an env",
        ),
        ("trained on", f"{checkpoint.meta.get('data', 'unknown')}"),
        ("versions", f"{checkpoint.meta.get('versions', 'unknown')}"),
    ]


def _motions(ranges: tuple[float, ...]) -> str:
    """The largest rotation about, and translation along, x, y and z.

    >>> _motions((0.0, 0.13, 0.0, 0.0, 0.0, 0.15))
    '(0, 0.13, 0) rad and (0, 0, 0.15) m a frame'
    """
    turn, move = (", ".join(f"{n:.3g}" for n in part) for part in (ranges[:3], ranges[3:]))
    return f"({turn}) rad and ({move}) m a frame"


def _of_dataset(dataset: Dataset) -> Iterable[tuple[str, str]]:
    return [
        ("episodes", f"{len(dataset)}"),
        ("frames", f"{dataset.num_frames} of {dataset.frame_size} at {dataset.fps:g} frames/s"),
        ("actions", f"{dataset.action_space}"),
        ("captions", "yes" if dataset.has_captions else "no"),
        ("camera motion", "yes" if dataset.has_camera else "no"),
        ("truth", ", ".join(dataset.truth_keys) or "none"),
        ("digest", dataset.digest()),
    ]


def _describe(console: Console, title: str, rows: Iterable[tuple[str, str]]) -> None:
    table = Table(title=title, show_header=False)
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
