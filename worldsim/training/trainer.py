"""The whole of a training run: tokenizer, latents, dynamics, checkpoint."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from worldsim.checkpoint import Checkpoint, save_checkpoint
from worldsim.data import Dataset
from worldsim.spaces import action_dim
from worldsim.tokenizer import ConvTokenizer
from worldsim.training.config import TrainConfig
from worldsim.training.data import FrameSource, LatentSource, cached_latents, check_dataset, reward_scale
from worldsim.training.losses import dynamics_loss
from worldsim.training.phase import Phase, autocast, pick_device, run_phase
from worldsim.training.run import Learner, Run, generator_for, open_run
from worldsim.training.tokenizer_phase import reconstruction_psnr, tokenizer_loss
from worldsim.transformer import VideoDiT


def train(config: TrainConfig, *, out: str | Path, resume: bool = False, show_progress: bool = True) -> Path:
    """Trains a world on a dataset.

    Args:
        config: The run, for example from `worldsim.presets.bounce(data=...)`.
        out: Run directory; its `checkpoint` folder is what `worldsim.load` takes.
        resume: Go on with the run that is there; it repeats what an uninterrupted run would have computed.
        show_progress: Whether to draw progress bars.

    Returns:
        The checkpoint's directory.

    Raises:
        DatasetError: If the dataset is missing, empty, or being written.
        TrainingError: If the directory is in use or taken, the configuration differs from the one to be resumed, the
            disk is full, or the loss is not finite.
    """
    dataset = Dataset.open(config.data)
    model_config = replace(config.model, action_dim=action_dim(dataset.action_space) * config.tokenizer.temporal_stride)
    config = replace(config, model=model_config)
    check_dataset(dataset, config)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    with open_run(out, config, resume=resume) as run:
        tokenizer = _train_tokenizer(config, dataset, run, device, show_progress=show_progress)
        scale = reward_scale(dataset)
        latents = cached_latents(dataset, tokenizer, run.path, config)
        source = LatentSource(dataset, latents, config, scale)
        model = _train_dynamics(config, source, run, device, show_progress=show_progress)
        checkpoint = Checkpoint(
            tokenizer=tokenizer,
            model=model,
            action_space=dataset.action_space,
            fps=dataset.fps,
            frame_size=dataset.frame_size,
            reward_scale=scale,
            meta={"training": config.to_dict(), "data": _about(dataset), "versions": _versions()},
        )
        return save_checkpoint(checkpoint, run.path / "checkpoint", card=_card(config, dataset))


def _train_tokenizer(
    config: TrainConfig, dataset: Dataset, run: Run, device: torch.device, *, show_progress: bool
) -> ConvTokenizer:
    torch.manual_seed(config.seed)  # initial weights
    tokenizer = ConvTokenizer(config.tokenizer).to(device)
    learner = Learner(tokenizer, config.tokenizer_optimiser, run.path / "tokenizer")
    restored = learner.restore()
    if restored:
        tokenizer.mean.copy_(restored["mean"])
        tokenizer.std.copy_(restored["std"])
    source = FrameSource(dataset, config)
    loss_of = torch.compile(tokenizer_loss) if config.compile else tokenizer_loss

    def loss(step: int, generator: Generator) -> tuple[Tensor, dict[str, Tensor], int]:
        frames = source.batch(step, device)
        return *loss_of(tokenizer, frames, generator), frames.shape[0] * frames.shape[1]

    phase = Phase(
        name="tokenizer",
        learner=learner,
        loss_of=loss,
        evaluate=lambda: reconstruction_psnr(tokenizer, source.held_out(device)),
        extra_state=lambda: {"mean": tokenizer.mean.cpu(), "std": tokenizer.std.cpu()},
    )
    run_phase(phase, run, config, show_progress=show_progress)
    learner.adopt_average()
    with torch.no_grad():
        tokenizer.measure(torch.cat([tokenizer.bottleneck(source.batch(i, device)) for i in range(32)]))
    return tokenizer.eval()


def _train_dynamics(
    config: TrainConfig, source: LatentSource, run: Run, device: torch.device, *, show_progress: bool
) -> VideoDiT:
    torch.manual_seed(config.seed + 1)  # initial weights
    model = VideoDiT(config.model).to(device)
    learner = Learner(model, config.optimiser, run.path / "dynamics")
    learner.restore()
    if config.compile:
        model.compile()

    def loss(step: int, generator: Generator) -> tuple[Tensor, dict[str, Tensor], int]:
        batch = source.batch(step, device)
        # An untrained model's own predictions teach nothing yet.
        ready = step > 0.1 * config.optimiser.steps
        feedback = ready and float(torch.rand((), generator=generator)) < config.dynamics.feedback
        total, parts = dynamics_loss(model, batch, config.dynamics, generator, feedback=feedback)
        return total, parts, batch.latents.shape[0] * batch.latents.shape[1]

    def evaluate() -> Mapping[str, float]:
        return _held_out_loss(model, source, config, device)

    run_phase(
        Phase(name="dynamics", learner=learner, loss_of=loss, evaluate=evaluate),
        run,
        config,
        show_progress=show_progress,
    )
    learner.adopt_average()
    return model.eval()


@torch.no_grad()
def _held_out_loss(
    model: VideoDiT, source: LatentSource, config: TrainConfig, device: torch.device
) -> Mapping[str, float]:
    """The objective on held-out episodes, with clean context and the same noise every time."""
    quiet = replace(
        config.dynamics, bidirectional=0.0, drop_text=0.0, drop_action=0.0, context_clean=1.0, pure_noise=1.0
    )
    sums: dict[str, float] = {}
    rounds = 4
    for i in range(rounds):
        with autocast(device, config.precision):
            _, parts = dynamics_loss(
                model, source.held_out(i, device), quiet, generator_for(config.seed, "held", i), feedback=False
            )
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + float(value) / rounds
    return sums


def _about(dataset: Dataset) -> dict[str, Any]:
    return {"digest": dataset.digest(), "episodes": len(dataset), "frames": dataset.num_frames}


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("worldsim", "torch", "numpy")}


def _card(config: TrainConfig, dataset: Dataset) -> str:
    return f"""# A learned world

Trained by `worldsim train` on {len(dataset)} episodes ({dataset.num_frames} frames at {dataset.fps:g} frames/s,
{dataset.frame_size[0]} x {dataset.frame_size[1]} pixels) with seed {config.seed}: {config.tokenizer_optimiser.steps}
updates of the tokenizer and {config.optimiser.steps} of the transformer. The whole configuration is in `config.json`
under `meta.training`. Nothing has been measured about its quality yet: run `worldsim score --suite checkpoint`.
"""
