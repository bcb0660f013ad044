"""What is checked of a run's data before anything is trained."""

import json
from pathlib import Path

import numpy as np

from worldsim.data import Dataset
from worldsim.errors import ConfigError, DatasetError, FramesError, TrainingError
from worldsim.files import write_text
from worldsim.training.config import TrainConfig
from worldsim.training.corpus import Corpus
from worldsim.training.data import split_episodes, window_frames


def check_corpus(config: TrainConfig, corpus: Corpus) -> list[int]:
    """Raises a named error if a run cannot use its data: now, rather than after the tokenizer's training.

    Returns:
        Numbers of the datasets that windows come from; the others, with short episodes, give first frames.

    Raises:
        ConfigError: If the networks are to be compiled for the windows of several datasets.
        DatasetError: If episodes are too short.
        FramesError: If frames do not fit the strides.
        TrainingError: If tokenizer and model do not fit each other.
    """
    for i, dataset in enumerate(corpus):
        _check_sizes(dataset, config.of_dataset(i))
    wanted = [window_frames(config.of_dataset(i)) for i in range(len(corpus))]
    found = [longest_episodes(d, config) for d in corpus]
    long = [i for i, (longest, _) in enumerate(found) if longest >= wanted[i]]
    if not long or (len(long) < len(corpus) and not config.dynamics.first_frames):
        at = next(i for i in range(len(corpus)) if i not in long)
        longest, episodes = found[at]
        raise DatasetError(
            expected=f"episodes of at least {wanted[at]} frames, among those to train on and those held out",
            got=f"episodes {episodes[0]} to {episodes[-1]} of {corpus.datasets[at].path}, the longest of {longest}",
            remedy="Shorten the window (dynamics.length), or record longer episodes. Beside long ones, short ones teach"
            " how worlds begin, with dynamics.first_frames above 0.",
        )
    if config.compile and len(long) > 1:
        raise ConfigError(
            expected="windows of one dataset with compile",
            got=f"{len(long)} datasets, whose shares of a batch vary: each would be compiled for by itself",
            remedy="Leave compile out, or train on one of them.",
        )
    return long


def longest_episodes(dataset: Dataset, config: TrainConfig) -> tuple[int, np.ndarray]:
    """Frames of the longest episode of those to train on or of those held out, whichever are shorter; and which."""
    split = split_episodes(dataset, config.held_out, config.episodes)
    return min(((int(dataset.lengths[e].max()), e) for e in split), key=lambda found: found[0])


def _check_sizes(dataset: Dataset, config: TrainConfig) -> None:
    unit = config.tokenizer.spatial_stride * config.model.patch
    height, width = dataset.frame_size
    if height % unit or width % unit:
        fitting = [max(n // unit, 1) * unit for n in (height, width)]
        raise FramesError(
            expected=f"frames whose height and width are multiples of {unit}",
            got=f"{height} x {width}",
            remedy=f"Record again, for example with --resize {fitting[0]} {fitting[1]}.",
        )
    if config.model.latent_channels != config.tokenizer.latent_channels:
        raise TrainingError(
            expected="the same latent_channels in tokenizer and model",
            got=f"{config.tokenizer.latent_channels} and {config.model.latent_channels}",
            remedy="Correct the configuration.",
        )


def check_same_data(folder: Path, corpus: Corpus) -> None:
    """Notes in a run directory which data it trains on.

    Raises:
        DatasetError: If it was other data when the run began.
    """
    file = folder / "data.json"
    if file.exists():
        began = json.loads(file.read_text())["digest"]
        if began != corpus.digest():
            raise DatasetError(
                expected=f"the data that the run began with, {began[:12]}",
                got=f"{corpus.name}, {corpus.digest()[:12]}",
                remedy="Point to that data, or begin a new run; `start` takes this one's weights over.",
            )
    about = {"digest": corpus.digest(), "episodes": corpus.num_episodes, "frames": corpus.num_frames}
    write_text(file, json.dumps(about))
