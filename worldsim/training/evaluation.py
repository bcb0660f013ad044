"""What is measured on held-out episodes while the transformer trains, and the best checkpoint so far."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from worldsim.checkpoint import Checkpoint, save_checkpoint
from worldsim.errors import CheckpointError
from worldsim.tokenizer import Tokenizer
from worldsim.training.config import TrainConfig
from worldsim.training.corpus import Corpus
from worldsim.training.data import LatentSource
from worldsim.training.draws import generators_for
from worldsim.training.first_frames import FirstFrames
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
        corpus: What it trains on.
        sources: Where windows come from, of each dataset with long enough episodes.
        firsts: Where first frames come from, or nothing.
        tokenizer: The trained tokenizer.
        run: Where samples and the best checkpoint go.
    """

    def __init__(
        self,
        config: TrainConfig,
        corpus: Corpus,
        sources: Sequence[LatentSource],
        firsts: Sequence[FirstFrames],
        tokenizer: Tokenizer,
        run: Run,
    ) -> None:
        self.config, self.corpus, self.sources, self.firsts = config, corpus, sources, firsts
        self.tokenizer, self.run = tokenizer, run
        wanted = sources if config.evaluation.clips > 0 else ()
        clips = {
            1 + corpus.datasets.index(s.dataset): HeldOutClips(s.dataset, s.held_out_episodes, config) for s in wanted
        }
        # By the number of the dataset, whose episodes may be too short.
        self.clips = {i: c for i, c in clips.items() if c.steps > 0}

    def __call__(self, model: VideoDiT, step: int) -> Mapping[str, float]:
        """Numbers after `step` updates.

        Args:
            model: The transformer with the weights to measure.
            step: Number of updates.
        """
        device = model.patchify.weight.device
        numbers = held_out_loss(model, self.sources, self.config, device)
        if self.firsts:
            numbers |= held_out_loss(model, self.firsts, self.config, device)
        found = {}
        for i, clips in self.clips.items():
            dreams = clips.dream(self._world(model))
            found[i] = dreams.numbers()
            if self.config.evaluation.videos:
                name = f"step-{step:08d}.mp4" if i == 1 else f"step-{step:08d}-{i}.mp4"
                dreams.write(self.run.path / "samples" / name, self.corpus.fps, self.config.evaluation.videos)
        numbers |= _over_datasets(found)
        self._keep_best(model, {"step": step, **numbers})
        return numbers

    def _world(self, model: VideoDiT, numbers: Mapping[str, float] | None = None) -> Checkpoint:
        scale, ranges = self.sources[0].reward_scale, self.sources[0].camera_range
        return world_of(self.config, self.corpus, self.tokenizer, model, scale, numbers, camera_range=ranges)

    def _keep_best(self, model: VideoDiT, numbers: Mapping[str, float]) -> None:
        best = _kept(self.run.path / BEST)
        if best is not None and _merit(best) >= _merit(numbers) and _merit(best)[0] == _merit(numbers)[0]:
            return
        card = card_of(self.config, self.corpus, numbers)
        save_checkpoint(self._world(model, numbers), self.run.path / BEST, card=card)


def _over_datasets(found: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """The numbers of each dataset, `dataI_NAME`, and under their own name their means; of a single one, itself."""
    if len(found) <= 1:
        return {k: v for numbers in found.values() for k, v in numbers.items()}
    names = {k: None for numbers in found.values() for k in numbers}
    means = {k: float(np.mean([numbers[k] for numbers in found.values() if k in numbers])) for k in names}
    return means | {f"data{i}_{k}": v for i, numbers in found.items() for k, v in numbers.items()}


@torch.no_grad()
def held_out_loss(
    model: VideoDiT,
    sources: Sequence[LatentSource] | Sequence[FirstFrames],
    config: TrainConfig,
    device: torch.device,
) -> dict[str, float]:
    """The objective on held-out episodes, with clean context and the same noise every time."""
    told = {"drop_text": 0.0, "drop_action": 0.0, "drop_camera": 0.0}
    quiet = replace(config.dynamics, bidirectional=0.0, context_clean=1.0, pure_noise=1.0, **told)
    sums: dict[str, float] = {}
    for i in range(_ROUNDS):
        batch = [s.held_out(i, device) for s in sources]
        generators = generators_for(config.seed, "held", i, range(sum(len(b.latents) for b in batch)))
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
