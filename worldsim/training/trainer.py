"""The whole of a training run: tokenizer, latents, dynamics, checkpoint."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from worldsim.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from worldsim.data import Dataset
from worldsim.errors import ActionError
from worldsim.spaces import action_dim
from worldsim.tokenizer import ConvTokenizer, Tokenizer
from worldsim.training.config import TrainConfig
from worldsim.training.data import FrameSource, LatentSource, cached_latents, check_dataset, reward_scale
from worldsim.training.evaluation import Evaluation
from worldsim.training.losses import dynamics_loss
from worldsim.training.phase import Phase, pick_device, run_phase
from worldsim.training.run import Learner, Run, open_run
from worldsim.training.tokenizer_phase import reconstruction_psnr, tokenizer_loss
from worldsim.training.world import card_of, world_of
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
    start = load_checkpoint(config.start) if config.start else None
    config = _resolved(config, dataset, start)
    check_dataset(dataset, config)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    with open_run(out, config, resume=resume) as run:
        if start is None:
            tokenizer = _train_tokenizer(config, dataset, run, device, show_progress=show_progress)
        else:
            tokenizer = start.tokenizer.to(device)
        scale = reward_scale(dataset) if start is None else start.reward_scale
        latents = cached_latents(dataset, tokenizer, run.path, config)
        source = LatentSource(dataset, latents, config, scale)
        model = _train_dynamics(config, source, tokenizer, run, device, start, show_progress=show_progress)
        checkpoint = world_of(config, dataset, tokenizer, model, scale)
        return save_checkpoint(checkpoint, run.path / "checkpoint", card=card_of(config, dataset))


def _resolved(config: TrainConfig, dataset: Dataset, start: Checkpoint | None) -> TrainConfig:
    """The configuration with what follows from the dataset and from the checkpoint to start from."""
    if start is None:
        actions = action_dim(dataset.action_space) * config.tokenizer.temporal_stride
        return replace(config, model=replace(config.model, action_dim=actions))
    if start.action_space != dataset.action_space:
        raise ActionError(
            expected=f"the action space of {config.start}, {start.action_space}",
            got=f"a dataset with {dataset.action_space}",
            remedy="Record with the same actions, or train a new world.",
        )
    return replace(config, model=start.model.config, tokenizer=start.tokenizer.config)


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
    config: TrainConfig,
    source: LatentSource,
    tokenizer: Tokenizer,
    run: Run,
    device: torch.device,
    start: Checkpoint | None,
    *,
    show_progress: bool,
) -> VideoDiT:
    torch.manual_seed(config.seed + 1)  # initial weights
    model = VideoDiT(config.model).to(device) if start is None else start.model.to(device).requires_grad_().train()
    learner = Learner(model, config.optimiser, run.path / "dynamics")
    learner.restore()
    if config.compile:
        model.compile(dynamic=False)  # a few shapes; symbolic ones compile for many minutes

    def loss(step: int, generator: Generator) -> tuple[Tensor, dict[str, Tensor], int]:
        batch = source.batch(step, device)
        # An untrained model's own predictions teach nothing yet.
        ready = start is not None or step > 0.1 * config.optimiser.steps
        feedback = ready and float(torch.rand((), generator=generator)) < config.dynamics.feedback
        total, parts = dynamics_loss(model, batch, config.dynamics, generator, feedback=feedback)
        return total, parts, batch.latents.shape[0] * batch.latents.shape[1]

    examine = Evaluation(config, source, tokenizer, run)

    run_phase(
        Phase(name="dynamics", learner=learner, loss_of=loss, evaluate=lambda: examine(model, learner.step)),
        run,
        config,
        show_progress=show_progress,
    )
    learner.adopt_average()
    return model.eval()
