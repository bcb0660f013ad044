"""What is measured on held-out episodes while the transformer trains, and the best checkpoint so far."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from worldsim.checkpoint import save_checkpoint
from worldsim.errors import CheckpointError
from worldsim.tokenizer import Tokenizer
from worldsim.training.config import TrainConfig
from worldsim.training.data import LatentSource
from worldsim.training.draws import generators_for
from worldsim.training.losses import dynamics_loss
from worldsim.training.phase import autocast
from worldsim.training.rollouts import HeldOutClips
from worldsim.training.run import Run
from worldsim.training.world import card_of, world_of
from worldsim.transformer import VideoDiT

BEST = "checkpoint_best"
_ROUNDS = 4


class Evaluation:
    """Measures the transformer on held-out episodes, writes a sample video, and keeps the best checkpoint.

    The best is the one with the highest PSNR over all dreamt frames; without rollouts, with the lowest denoising loss.

    Args:
        config: The run.
        source: Where windows come from.
        tokenizer: The trained tokenizer.
        run: Where samples and the best checkpoint go.
    """

    def __init__(self, config: TrainConfig, source: LatentSource, tokenizer: Tokenizer, run: Run) -> None:
        self.config, self.source, self.tokenizer, self.run = config, source, tokenizer, run
        wanted = config.evaluation.clips > 0
        clips = HeldOutClips(source.dataset, source.held_out_episodes, config) if wanted else None
        self.clips = clips if clips is not None and clips.steps > 0 else None

    def __call__(self, model: VideoDiT, step: int) -> Mapping[str, float]:
        """Numbers after `step` updates.

        Args:
            model: The transformer with the weights to measure.
            step: Number of updates.
        """
        device = model.patchify.weight.device
        numbers = held_out_loss(model, self.source, self.config, device)
        if self.clips is not None:
            world = world_of(self.config, self.source.dataset, self.tokenizer, model, self.source.reward_scale)
            dreams = self.clips.dream(world)
            numbers |= dreams.numbers()
            if self.config.evaluation.videos:
                file = self.run.path / "samples" / f"step-{step:08d}.mp4"
                dreams.write(file, self.source.dataset.fps, self.config.evaluation.videos)
        self._keep_best(model, {"step": step, **numbers})
        return numbers

    def _keep_best(self, model: VideoDiT, numbers: Mapping[str, float]) -> None:
        best = _kept(self.run.path / BEST)
        if best is not None and _merit(best) >= _merit(numbers) and _merit(best)[0] == _merit(numbers)[0]:
            return
        dataset = self.source.dataset
        world = world_of(self.config, dataset, self.tokenizer, model, self.source.reward_scale, numbers)
        save_checkpoint(world, self.run.path / BEST, card=card_of(self.config, dataset, numbers))


@torch.no_grad()
def held_out_loss(model: VideoDiT, source: LatentSource, config: TrainConfig, device: torch.device) -> dict[str, float]:
    """The objective on held-out episodes, with clean context and the same noise every time."""
    quiet = replace(
        config.dynamics, bidirectional=0.0, drop_text=0.0, drop_action=0.0, context_clean=1.0, pure_noise=1.0
    )
    sums: dict[str, float] = {}
    for i in range(_ROUNDS):
        batch = source.held_out(i, device)
        generators = generators_for(config.seed, "held", i, range(len(batch.latents)))
        with autocast(device, config.precision):
            _, parts = dynamics_loss(model, batch, quiet, generators, feedback=False)
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + float(value) / _ROUNDS
    return sums


def _merit(numbers: Mapping[str, float]) -> tuple[bool, float]:
    """What makes a checkpoint the best: its kind (a rollout or a loss), and a number that is better when higher."""
    return ("psnr_db" in numbers, numbers.get("psnr_db", -numbers["denoising"]))


def _kept(path: Path) -> Mapping[str, float] | None:
    """The numbers of the best checkpoint so far, or None if there is none.

    Raises:
        CheckpointError: If it is not one of a run's.
    """
    file = path / "config.json"
    if not file.exists():
        return None
    try:
        return dict(json.loads(file.read_text())["meta"]["evaluation"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            expected=f"the best checkpoint of a run at {path}",
            got=f"something else ({error!r})",
            remedy="Move it away.",
        ) from error
