"""The whole of a training run: tokenizer, latents, dynamics, checkpoint."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from worldsim.camera import MOTION_DIM
from worldsim.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from worldsim.errors import ActionError, DatasetError
from worldsim.nn.compiled import require_compiler
from worldsim.spaces import action_dim
from worldsim.tokenizer import ConvTokenizer, Tokenizer
from worldsim.training.ahead import Ahead
from worldsim.training.config import TrainConfig
from worldsim.training.corpus import Corpus, Mixture
from worldsim.training.data import (
    FrameSource,
    LatentSource,
    cached_latents,
    check_dataset,
    check_same_data,
    latents_file,
)
from worldsim.training.evaluation import Evaluation
from worldsim.training.learner import Learner
from worldsim.training.losses import dynamics_loss
from worldsim.training.memory import keep_freed_memory
from worldsim.training.phase import Part, Phase, pick_device, run_phase
from worldsim.training.run import Run, open_run
from worldsim.training.team import Team, team
from worldsim.training.tokenizer_phase import measure, reconstruction_psnr, tokenizer_loss
from worldsim.training.world import card_of, world_of
from worldsim.transformer import VideoDiT


def train(config: TrainConfig, *, out: str | Path, resume: bool = False, show_progress: bool = True) -> Path:
    """Trains a world on a dataset, or on several.

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
        DatasetError: If the dataset is missing, empty, being written, too short, or not that with which the run began.
        ConfigError: If the device is not there, or the compiler that was asked for.
        FramesError: If its frames do not fit the strides.
        ActionError: If its actions are not those of the checkpoint to start from, or differ among datasets.
        TrainingError: If the directory is in use, taken or damaged, the configuration differs from the one to resume,
            the processes cannot share a batch, the disk is full, or the loss or a gradient is not finite.
    """
    corpus = Corpus.open(config.directories)
    start = load_checkpoint(config.start) if config.start else None
    config = _resolved(config, corpus, start)
    for i, dataset in enumerate(corpus):
        check_dataset(dataset, config.of_dataset(i))
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    if config.compile:
        require_compiler(device)
    if device.type == "cpu":
        keep_freed_memory()
    with team(device) as members, open_run(out, config, members, resume=resume) as run:
        for optimiser in (config.tokenizer_optimiser, config.optimiser):
            members.parts(optimiser)  # raises now rather than after hours
        if members.leads:
            check_same_data(run.path, corpus)
        if start is None:
            tokenizer = _train_tokenizer(config, corpus, run, members, show_progress=show_progress)
        else:
            tokenizer = start.tokenizer.to(members.device)
        # The heads of a transformer that is taken over speak in its unit of reward.
        taken = start if config.start_with == "world" else None
        scale = corpus.reward_scale() if taken is None else taken.reward_scale
        ranges = None
        if config.model.camera_dim:
            ranges = corpus.camera_range() if taken is None else taken.camera_range
        latents = _shared_latents(config, corpus, tokenizer, run, members)
        sources = [
            LatentSource(d, x, config.of_dataset(i), scale, ranges)
            for i, (d, x) in enumerate(zip(corpus, latents, strict=True))
        ]
        examine = Evaluation(config, corpus, sources, tokenizer, run)
        model = _train_dynamics(config, sources, examine, run, members, taken, show_progress=show_progress)
        path = run.path / "checkpoint"
        if members.leads:
            world = world_of(config, corpus, tokenizer, model, scale, camera_range=ranges)
            save_checkpoint(world, path, card=card_of(config, corpus))
        members.wait()
        return path


def _resolved(config: TrainConfig, corpus: Corpus, start: Checkpoint | None) -> TrainConfig:
    """The configuration with what follows from the data and from the checkpoint to start from."""
    if start is None or config.start_with == "tokenizer":
        tokenizer = config.tokenizer if start is None else start.tokenizer.config
        stride = tokenizer.temporal_stride
        model = replace(
            config.model,
            action_dim=action_dim(corpus.action_space) * stride if config.actions else 0,
            camera_dim=MOTION_DIM * stride if config.camera and corpus.has_camera else 0,
            latent_channels=tokenizer.latent_channels,
        )
        return replace(config, model=model, tokenizer=tokenizer)
    if start.camera_range is not None and not corpus.has_camera:
        raise DatasetError(
            expected=f"data with the camera's motion, which {config.start} takes",
            got=f"none in {corpus.name}",
            remedy="Record with --camera, or train a new world.",
        )
    if start.action_space is not None and start.action_space != corpus.action_space:
        raise ActionError(
            expected=f"the action space of {config.start}, {start.action_space}",
            got=f"a dataset with {corpus.action_space}",
            remedy="Record with the same actions, or train a new world.",
        )
    # The shape is the checkpoint's; forecasts, where paths begin and how rewards are said can be learned anew.
    wanted = config.model
    model = replace(
        start.model.config,
        source=wanted.source,
        source_noise=wanted.source_noise,
        reward_bins=wanted.reward_bins if start.model.config.heads_out else 0,
        forecast=wanted.forecast,
    )
    return replace(config, model=model, tokenizer=start.tokenizer.config)


def _train_tokenizer(
    config: TrainConfig, corpus: Corpus, run: Run, members: Team, *, show_progress: bool
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
    sources = [FrameSource(dataset, config.of_dataset(i)) for i, dataset in enumerate(corpus)]
    mixture = Mixture(sources, config.tokenizer_optimiser.batch_size, config.seed)
    held_out = [source.held_out(device) for source in sources]

    def loss(step: int, part: Part) -> tuple[Tensor, dict[str, Tensor], int]:
        groups = ahead(step, part.rows)
        return *learner.objective(groups, part.generators), sum(x.shape[0] * x.shape[1] for x in groups)

    phase = Phase(
        name="tokenizer",
        learner=learner,
        loss_of=loss,
        evaluate=lambda network: reconstruction_psnr(network, held_out),
        describe=mixture.describe,
        extra_state=lambda: {"mean": tokenizer.mean.cpu(), "std": tokenizer.std.cpu()},
    )
    parts = members.parts(config.tokenizer_optimiser)
    with Ahead(lambda step, rows: mixture.batch(step, device, rows), parts, config.workers) as ahead:
        run_phase(phase, run, config, show_progress=show_progress)
    learner.finish()
    measure(tokenizer, (mixture.batch(i, device) for i in range(32)))
    return tokenizer.eval()


def _shared_latents(
    config: TrainConfig, corpus: Corpus, tokenizer: Tokenizer, run: Run, members: Team
) -> list[np.ndarray]:
    """The latents of each dataset that the leading process computed, in every process."""
    names = [latents_file(i) for i in range(len(corpus))]
    if members.leads:
        for dataset, name in zip(corpus, names, strict=True):
            cached_latents(dataset, tokenizer, run.path, config, name)
    members.wait()
    return [np.load(run.path / name, mmap_mode="r") for name in names]


def _take_over(model: VideoDiT, start: VideoDiT) -> None:
    """Gives the model the weights of another of its shape; outcome heads and forecasts of another begin anew.

    So does the last layer where paths begin elsewhere: what it said is the way from there. It begins as nothing, which
    leaves frames where their paths begin.
    """
    anew = []
    if model.config.reward_bins != start.config.reward_bins:
        anew.append("outcome.")
    if model.config.forecast != start.config.forecast:
        anew.append("forecast.")
    if model.config.source != start.config.source:
        anew += ["unpatchify.", "expected."]
    own, taken = model.state_dict(), start.state_dict()
    model.load_state_dict({k: own[k] if k.startswith(tuple(anew)) else taken[k] for k in own})


def _train_dynamics(
    config: TrainConfig,
    sources: Sequence[LatentSource],
    examine: Evaluation,
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
        _take_over(model, start.model)
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
        return total, parts, sum(x.latents.shape[0] * x.latents.shape[1] for x in batch)

    mixture = Mixture(sources, config.optimiser.batch_size, config.seed + 1)
    phase = Phase(
        name="dynamics",
        learner=learner,
        loss_of=loss,
        evaluate=lambda network: examine(network, learner.step),
        describe=mixture.describe,
    )
    parts = members.parts(config.optimiser)
    with Ahead(lambda step, rows: mixture.batch(step, device, rows), parts, config.workers) as ahead:
        run_phase(phase, run, config, show_progress=show_progress)
    return cast("VideoDiT", learner.finish())
