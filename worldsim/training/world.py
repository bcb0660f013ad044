"""What a run leaves behind: checkpoints with what they were made from."""

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from worldsim.checkpoint import Checkpoint
from worldsim.data import Dataset
from worldsim.tokenizer import Tokenizer
from worldsim.training.config import TrainConfig
from worldsim.transformer import VideoDiT


def world_of(
    config: TrainConfig,
    dataset: Dataset,
    tokenizer: Tokenizer,
    model: VideoDiT,
    scale: float,
    evaluation: Mapping[str, float] | None = None,
) -> Checkpoint:
    """The learned world that these networks are.

    Args:
        config: The run.
        dataset: What it was trained on.
        tokenizer: The tokenizer.
        model: The transformer.
        scale: Rewards are predicted in units of this.
        evaluation: Numbers on held-out episodes, and `step`, the update at which they were measured.
    """
    about = {"digest": dataset.digest(), "episodes": len(dataset), "frames": dataset.num_frames}
    meta: dict[str, Any] = {"training": config.to_dict(), "data": about, "versions": _versions()}
    if evaluation is not None:
        meta["evaluation"] = dict(evaluation)
    return Checkpoint(
        tokenizer=tokenizer,
        model=model,
        action_space=dataset.action_space,
        fps=dataset.fps,
        frame_size=dataset.frame_size,
        reward_scale=scale,
        meta=meta,
    )


def card_of(config: TrainConfig, dataset: Dataset, evaluation: Mapping[str, float] | None = None) -> str:
    """Text of the README.md beside the weights."""
    measured = "Nothing has been measured about its quality yet"
    if evaluation is not None:
        numbers = ", ".join(f"{k} {v:.4g}" for k, v in evaluation.items() if k != "step")
        measured = f"After update {evaluation['step']:.0f} it had on held-out episodes: {numbers}. More"
    return f"""# A learned world

Trained by `worldsim train` on {len(dataset)} episodes ({dataset.num_frames} frames at {dataset.fps:g} frames/s,
{dataset.frame_size[0]} x {dataset.frame_size[1]} pixels) with seed {config.seed}: {config.tokenizer_optimiser.steps}
updates of the tokenizer and {config.optimiser.steps} of the transformer. The whole configuration is in `config.json`
under `meta.training`. {measured}: run `worldsim score --suite checkpoint`.
"""


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("worldsim", "torch", "numpy")}
