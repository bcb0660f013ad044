"""What a run starts from: a configuration that fits its data, and the weights of a checkpoint."""

from dataclasses import replace

import torch

from worldsim.camera import MOTION_DIM
from worldsim.checkpoint import Checkpoint
from worldsim.config import TextConfig
from worldsim.errors import ActionError, DatasetError
from worldsim.spaces import action_dim
from worldsim.training.config import TrainConfig
from worldsim.training.corpus import Corpus
from worldsim.transformer import VideoDiT


def resolved(config: TrainConfig, corpus: Corpus, start: Checkpoint | None) -> TrainConfig:
    """The configuration with what follows from the data and from the checkpoint to start from.

    Raises:
        ActionError: If the checkpoint takes other actions than the data.
        DatasetError: If it takes the camera's motion, which the data lacks.
    """
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
        text=_text_taken(wanted.text, start.model.config.text),
    )
    return replace(config, model=model, tokenizer=start.tokenizer.config)


def new_model(config: TrainConfig, start: Checkpoint | None) -> VideoDiT:
    """The transformer to train, with initial weights by the seed, or those of a checkpoint as far as they fit.

    Args:
        config: From `resolved`.
        start: What to take over, or None.
    """
    torch.manual_seed(config.seed + 1)  # initial weights
    model = VideoDiT(config.model)
    if start is not None:
        _take_over(model, start.model)
    return model


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
    if model.text_summary is not None:
        said = 0 if start.config.text is None else start.config.text.summary
        anew += ["text_summary."] if said != model.text_summary.out_features else []
        anew += [] if said else ["text."]
    own, taken = model.state_dict(), start.state_dict()
    model.load_state_dict({k: own[k] if k.startswith(tuple(anew)) else taken[k] for k in own})


def _text_taken(wanted: TextConfig | None, taken: TextConfig | None) -> TextConfig | None:
    """The text encoder of a checkpoint to start from; the summaries that it says can be learned anew."""
    return replace(taken, summary=wanted.summary) if wanted and taken else taken
