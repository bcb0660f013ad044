"""What a run leaves behind: checkpoints with what they were made from."""

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from worldsim.checkpoint import Checkpoint
from worldsim.tokenizer import Tokenizer
from worldsim.training.config import TrainConfig
from worldsim.training.corpus import Corpus
from worldsim.transformer import VideoDiT


def world_of(
    config: TrainConfig,
    corpus: Corpus,
    tokenizer: Tokenizer,
    model: VideoDiT,
    scale: float,
    evaluation: Mapping[str, float] | None = None,
    *,
    camera_range: tuple[float, ...] | None = None,
) -> Checkpoint:
    """The learned world that these networks are.

    Args:
        config: The run.
        corpus: What it was trained on.
        tokenizer: The tokenizer.
        model: The transformer.
        scale: Rewards are predicted in units of this.
        evaluation: Numbers on held-out episodes, and `step`, the update at which they were measured.
        camera_range: The largest motions of the camera, for a transformer that takes them.
    """
    about = {"digest": corpus.digest(), "episodes": corpus.num_episodes, "frames": corpus.num_frames}
    sizes = {"frame_sizes": corpus.frame_sizes} if len(corpus) > 1 else {}
    meta: dict[str, Any] = {"training": config.to_dict(), "data": about | sizes, "versions": _versions()}
    if evaluation is not None:
        meta["evaluation"] = dict(evaluation)
    return Checkpoint(
        tokenizer=tokenizer,
        model=model,
        action_space=corpus.action_space if model.config.action_dim else None,
        fps=corpus.fps,
        frame_size=corpus.frame_size,
        reward_scale=scale,
        camera_range=camera_range,
        meta=meta,
    )


def card_of(config: TrainConfig, corpus: Corpus, evaluation: Mapping[str, float] | None = None) -> str:
    """Text of the README.md beside the weights."""
    measured = "Nothing has been measured about its quality yet"
    if evaluation is not None:
        numbers = ", ".join(f"{k} {v:.4g}" for k, v in evaluation.items() if k != "step")
        measured = f"After update {evaluation['step']:.0f} it had on held-out episodes: {numbers}. More"
    sizes = " and ".join(f"{height} x {width}" for height, width in corpus.frame_sizes)
    return f"""# A learned world

Trained by `worldsim train` on {corpus.num_episodes} episodes ({corpus.num_frames} frames at {corpus.fps:g} frames/s,
{sizes} pixels) with seed {config.seed}: {config.tokenizer_optimiser.steps}
updates of the tokenizer and {config.optimiser.steps} of the transformer. The whole configuration is in `config.json`
under `meta.training`. {measured}: run `worldsim score --suite checkpoint`.
"""


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("worldsim", "torch", "numpy")}
