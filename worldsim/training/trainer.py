"""The whole of a training run: tokenizer, latents, dynamics, checkpoint."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from worldsim.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from worldsim.nn.compiled import require_compiler
from worldsim.tokenizer import Tokenizer
from worldsim.training.checks import check_corpus, check_same_data
from worldsim.training.config import TrainConfig
from worldsim.training.corpus import Corpus
from worldsim.training.data import LatentSource, cached_latents, latents_file
from worldsim.training.dynamics_phase import train_dynamics
from worldsim.training.evaluation import Evaluation
from worldsim.training.first_frames import FirstFrames
from worldsim.training.forecast_phase import check_forecast, examples, forecast_datasets, train_forecast
from worldsim.training.memory import keep_freed_memory
from worldsim.training.phase import pick_device
from worldsim.training.run import Run, open_run
from worldsim.training.start import new_model, resolved
from worldsim.training.team import Team, team
from worldsim.training.tokenizer_phase import train_tokenizer
from worldsim.training.world import card_of, world_of


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
    config = resolved(config, corpus, start)
    long = check_corpus(config, corpus)
    check_forecast(config, corpus, start)
    device = _prepared(config)
    with team(device) as members, open_run(out, config, members, resume=resume) as run:
        for optimiser in config.optimisers:
            members.parts(optimiser)  # raises now rather than after hours
        if members.leads:
            check_same_data(run.path, corpus)
        if start is None:
            tokenizer = train_tokenizer(config, corpus, run, members, show_progress=show_progress)
        else:
            tokenizer = start.tokenizer.to(members.device)
        latents = _shared_latents(config, corpus, tokenizer, run, members)
        taken = start if config.start_with == "world" else None
        scale, ranges = _units(config, corpus, taken)

        def sources(of: TrainConfig, datasets: Sequence[int]) -> list[LatentSource]:
            return [LatentSource(corpus.datasets[i], latents[i], of.of_dataset(i), scale, ranges) for i in datasets]

        model = new_model(config, taken).to(members.device)
        if model.forecast is not None and config.forecast_optimiser is not None:
            own = sources(examples(config), forecast_datasets(config, corpus))
            train_forecast(model.forecast, config, own, run, members, show_progress=show_progress)
        windows, firsts = sources(config, long), _first_frames(config, corpus, latents)
        examine = Evaluation(config, corpus, windows, firsts, tokenizer, run)
        model = train_dynamics(model, config, windows, firsts, examine, run, members, show_progress=show_progress)
        path = run.path / "checkpoint"
        if members.leads:
            world = world_of(config, corpus, tokenizer, model, scale, camera_range=ranges)
            save_checkpoint(world, path, card=card_of(config, corpus))
        members.wait()
        return path


def _first_frames(config: TrainConfig, corpus: Corpus, latents: Sequence[np.ndarray]) -> list[FirstFrames]:
    """Where first frames come from, if any are to be drawn by themselves."""
    if not config.dynamics.first_frames:
        return []
    camera = config.model.camera_dim > 0
    return [FirstFrames(d, latents[i], config.of_dataset(i), camera=camera) for i, d in enumerate(corpus)]


def _prepared(config: TrainConfig) -> torch.device:
    """Sets PyTorch up for the run, and says where it is to compute."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    if config.compile:
        require_compiler(device)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def _units(config: TrainConfig, corpus: Corpus, taken: Checkpoint | None) -> tuple[float, tuple[float, ...] | None]:
    """The unit of rewards, and the camera's largest motions for a transformer that takes them.

    They are those of the checkpoint whose transformer is taken over, which speaks in them.
    """
    if taken is None:
        return corpus.reward_scale(), corpus.camera_range() if config.model.camera_dim else None
    return taken.reward_scale, taken.camera_range if config.model.camera_dim else None


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
