"""Training of the transformer on windows of latents."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from worldsim.training.ahead import Ahead
from worldsim.training.batches import LatentBatch
from worldsim.training.config import TrainConfig
from worldsim.training.corpus import Mixture, Turns
from worldsim.training.data import LatentSource
from worldsim.training.evaluation import Evaluation
from worldsim.training.first_frames import FirstFrames, due
from worldsim.training.learner import Learner
from worldsim.training.losses import dynamics_loss
from worldsim.training.phase import Part, Phase, run_phase
from worldsim.training.run import Run
from worldsim.training.team import Team
from worldsim.transformer import VideoDiT


def train_dynamics(
    model: VideoDiT,
    config: TrainConfig,
    sources: Sequence[LatentSource],
    firsts: Sequence[FirstFrames],
    examine: Evaluation,
    run: Run,
    members: Team,
    *,
    show_progress: bool,
) -> VideoDiT:
    """Trains the transformer.

    Args:
        model: It, on the device of `members`.
        config: The run.
        sources: Windows of each dataset with long enough episodes.
        firsts: First frames of each, or none.
        examine: What is measured now and then.
        run: Where states go.
        members: The processes that train together.
        show_progress: Whether to draw a progress bar.

    Returns:
        It with averaged weights, whole in the leading process.
    """
    device = members.device
    if model.forecast is not None:
        model.forecast.requires_grad_(requires_grad=False)  # it has learnt before
    if config.compile:
        model.compile_blocks()
    learner = Learner(model, dynamics_loss, config.optimiser, run.path / "dynamics", members, shard=config.shard)
    learner.restore()

    def loss(step: int, part: Part) -> tuple[Tensor, dict[str, Tensor], int]:
        batch = ahead(step, part.rows)
        # An untrained model's own predictions teach nothing yet.
        ready = (config.start and config.start_with == "world") or step > 0.1 * config.optimiser.steps
        feedback = ready and float(torch.rand((), generator=part.generators.shared)) < config.dynamics.feedback
        total, parts = learner.objective(batch, config.dynamics, part.generators, feedback=feedback)
        return total, parts, sum(x.latents.shape[0] * x.latents.shape[1] for x in batch)

    windows = Mixture(sources, config.optimiser.batch_size, config.seed + 1)
    turns = Turns(firsts, config.seed + 4) if firsts else None

    def drawn(step: int) -> Mixture[LatentBatch] | Turns[LatentBatch]:
        return turns if turns is not None and due(step, config.dynamics.first_frames) else windows

    phase = Phase(
        name="dynamics",
        learner=learner,
        loss_of=loss,
        evaluate=lambda network: examine(network, learner.step),
        describe=lambda step: drawn(step).describe(step),
    )
    parts = members.parts(config.optimiser)
    with Ahead(lambda step, rows: drawn(step).batch(step, device, rows), parts, config.workers) as ahead:
        run_phase(phase, run, config, show_progress=show_progress)
    return cast("VideoDiT", learner.finish())
