"""The whole of a training run: tokenizer, latents, dynamics, checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from worldsim.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from worldsim.data import Dataset
from worldsim.errors import ActionError
from worldsim.spaces import action_dim
from worldsim.tokenizer import ConvTokenizer, Tokenizer
from worldsim.training.ahead import Ahead
from worldsim.training.config import TrainConfig
from worldsim.training.data import (
    LATENTS,
    FrameSource,
    LatentSource,
    cached_latents,
    check_dataset,
    check_same_data,
    reward_scale,
)
from worldsim.training.evaluation import Evaluation
from worldsim.training.learner import Learner
from worldsim.training.losses import dynamics_loss
from worldsim.training.phase import Part, Phase, pick_device, run_phase
from worldsim.training.run import Run, open_run
from worldsim.training.team import Team, team
from worldsim.training.tokenizer_phase import reconstruction_psnr, tokenizer_loss
from worldsim.training.world import card_of, world_of
from worldsim.transformer import VideoDiT


def train(config: TrainConfig, *, out: str | Path, resume: bool = False, show_progress: bool = True) -> Path:
    """Trains a world on a dataset.

    Under `torchrun` its processes train together, over one file system; what they compute does not depend on how many
    they are.

    Args:
        config: The run, for example from `worldsim.presets.bounce(data=...)`.
        out: Run directory; its `checkpoint` folder is what `worldsim.load` takes.
        resume: Go on with the run that is there; it repeats what an uninterrupted run would have computed.
        show_progress: Whether to draw progress bars.

    Returns:
        The checkpoint's directory.

    Raises:
        DatasetError: If the dataset is missing, empty, being written, or not the one that the run began with.
        FramesError: If its frames do not fit the strides.
        ActionError: If its actions are not those of the checkpoint to start from.
        TrainingError: If the directory is in use or taken, the configuration differs from the one to be resumed, the
            processes cannot share a batch, the disk is full, or the loss or a gradient is not finite.
    """
    dataset = Dataset.open(config.data)
    start = load_checkpoint(config.start) if config.start else None
    config = _resolved(config, dataset, start)
    check_dataset(dataset, config)
    if config.threads:
        torch.set_num_threads(config.threads)
    with team(pick_device(config.device)) as members, open_run(out, config, members, resume=resume) as run:
        for optimiser in (config.tokenizer_optimiser, config.optimiser):
            members.parts(optimiser)  # raises now rather than after hours
        if members.leads:
            check_same_data(run.path, dataset)
        if start is None:
            tokenizer = _train_tokenizer(config, dataset, run, members, show_progress=show_progress)
        else:
            tokenizer = start.tokenizer.to(members.device)
        # The heads of a transformer that is taken over speak in its unit of reward.
        taken = start if config.start_with == "world" else None
        scale = reward_scale(dataset) if taken is None else taken.reward_scale
        latents = _shared_latents(config, dataset, tokenizer, run, members)
        source = LatentSource(dataset, latents, config, scale)
        model = _train_dynamics(config, source, tokenizer, run, members, taken, show_progress=show_progress)
        path = run.path / "checkpoint"
        if members.leads:
            save_checkpoint(world_of(config, dataset, tokenizer, model, scale), path, card=card_of(config, dataset))
        members.wait()
        return path


def _resolved(config: TrainConfig, dataset: Dataset, start: Checkpoint | None) -> TrainConfig:
    """The configuration with what follows from the dataset and from the checkpoint to start from."""
    if start is None or config.start_with == "tokenizer":
        tokenizer = config.tokenizer if start is None else start.tokenizer.config
        actions = action_dim(dataset.action_space) * tokenizer.temporal_stride
        model = replace(config.model, action_dim=actions, latent_channels=tokenizer.latent_channels)
        return replace(config, model=model, tokenizer=tokenizer)
    if start.action_space != dataset.action_space:
        raise ActionError(
            expected=f"the action space of {config.start}, {start.action_space}",
            got=f"a dataset with {dataset.action_space}",
            remedy="Record with the same actions, or train a new world.",
        )
    # The shape is the checkpoint's; where paths begin can be learned anew.
    model = replace(start.model.config, source=config.model.source, source_noise=config.model.source_noise)
    return replace(config, model=model, tokenizer=start.tokenizer.config)


def _train_tokenizer(
    config: TrainConfig, dataset: Dataset, run: Run, members: Team, *, show_progress: bool
) -> ConvTokenizer:
    device = members.device
    torch.manual_seed(config.seed)  # initial weights
    tokenizer = ConvTokenizer(config.tokenizer).to(device)
    loss_of = torch.compile(tokenizer_loss) if config.compile else tokenizer_loss
    learner = Learner(tokenizer, loss_of, config.tokenizer_optimiser, run.path / "tokenizer", members)
    restored = learner.restore()
    if restored:
        tokenizer.mean.copy_(restored["mean"])
        tokenizer.std.copy_(restored["std"])
    source = FrameSource(dataset, config)

    def loss(step: int, part: Part) -> tuple[Tensor, dict[str, Tensor], int]:
        frames = ahead(step, part.rows)
        return *learner.objective(frames, part.generators), frames.shape[0] * frames.shape[1]

    phase = Phase(
        name="tokenizer",
        learner=learner,
        loss_of=loss,
        evaluate=lambda network: reconstruction_psnr(network, source.held_out(device)),
        describe=source.describe,
        extra_state=lambda: {"mean": tokenizer.mean.cpu(), "std": tokenizer.std.cpu()},
    )
    parts = members.parts(config.tokenizer_optimiser)
    with Ahead(lambda step, rows: source.batch(step, device, rows), parts, config.workers) as ahead:
        run_phase(phase, run, config, show_progress=show_progress)
    learner.finish()
    with torch.no_grad():
        tokenizer.measure(torch.cat([tokenizer.bottleneck(source.batch(i, device)) for i in range(32)]))
    return tokenizer.eval()


def _shared_latents(config: TrainConfig, dataset: Dataset, tokenizer: Tokenizer, run: Run, members: Team) -> np.ndarray:
    """The latents that the leading process computed, in every process."""
    if members.leads:
        cached_latents(dataset, tokenizer, run.path, config)
    members.wait()
    return np.load(run.path / LATENTS, mmap_mode="r")


def _train_dynamics(
    config: TrainConfig,
    source: LatentSource,
    tokenizer: Tokenizer,
    run: Run,
    members: Team,
    start: Checkpoint | None,
    *,
    show_progress: bool,
) -> VideoDiT:
    device = members.device
    torch.manual_seed(config.seed + 1)  # initial weights
    model = VideoDiT(config.model)
    if start is not None:
        model.load_state_dict(start.model.state_dict())
    model = model.to(device)
    if config.compile:
        model.compile_blocks()
    learner = Learner(model, dynamics_loss, config.optimiser, run.path / "dynamics", members, shard=config.shard)
    learner.restore()

    def loss(step: int, part: Part) -> tuple[Tensor, dict[str, Tensor], int]:
        batch = ahead(step, part.rows)
        # An untrained model's own predictions teach nothing yet.
        ready = start is not None or step > 0.1 * config.optimiser.steps
        feedback = ready and float(torch.rand((), generator=part.generators.shared)) < config.dynamics.feedback
        total, parts = learner.objective(batch, config.dynamics, part.generators, feedback=feedback)
        return total, parts, batch.latents.shape[0] * batch.latents.shape[1]

    examine = Evaluation(config, source, tokenizer, run)
    phase = Phase(
        name="dynamics",
        learner=learner,
        loss_of=loss,
        evaluate=lambda network: examine(network, learner.step),
        describe=source.describe,
    )
    parts = members.parts(config.optimiser)
    with Ahead(lambda step, rows: source.batch(step, device, rows), parts, config.workers) as ahead:
        run_phase(phase, run, config, show_progress=show_progress)
    return cast("VideoDiT", learner.finish())
