"""What a training run is made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from worldsim.config import Config, ModelConfig, TextConfig, TokenizerConfig
from worldsim.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig(Config):
    """AdamW or Muon with warm-up, a constant rate, and a linear decay to zero at the end.

    Attributes:
        method: "adamw", or "muon" for the matrices inside the transformer's blocks (Jordan 2024), whose updates are
            orthogonalised and of AdamW's size (Liu et al. 2025); everything else stays with AdamW.
        steps: Updates in all.
        batch_size: Windows an update, in all processes together.
        accumulate: Parts that each process computes its share of the batch in, one after another, to save memory.
        rate: Peak learning rate.
        warmup: Updates over which the rate rises.
        decay: Share of the updates, at the end, over which the rate falls.
        weight_decay: Decoupled weight decay of matrices.
        clip: Largest gradient norm.
        ema: Decay of the moving average of the weights.
    """

    steps: int
    batch_size: int
    method: Literal["adamw", "muon"] = "adamw"
    accumulate: int = 1
    rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.25
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.accumulate) < 1 or self.rate <= 0:
            raise ConfigError(
                expected="steps, batch_size, accumulate and rate above 0",
                got=f"{self.steps}, {self.batch_size}, {self.accumulate}, {self.rate}",
                remedy="Raise them.",
            )

        _check_range(self, ("decay", "ema"), 0.0, 1.0)
        _check_range(self, ("warmup", "weight_decay", "clip"), 0.0)

    def rate_at(self, step: int) -> float:
        """The learning rate of update `step`, counted from 0."""
        up = min(1.0, (step + 1) / max(1, self.warmup))
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.rate * min(up, left, 1.0)


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig(Config):
    """The objective of the transformer.

    Attributes:
        length: Frames of a training window; above the model's window, so that sliding is seen.
        lengths: The same for each dataset by itself, where a run has several; empty for `length` in all of them.
        level_mean: Mean of the logit of the target frames' noise level.
        level_std: Its standard deviation.
        pure_noise: Share of target frames at level 1, where sampling starts.
        weight_floor: The loss weighs a frame by 1 / max(level, floor)^2, the velocity loss with a floor.
        context_noise: Largest noise level of context frames.
        context_clean: Share of windows whose context stays clean.
        feedback: Share of updates whose context is partly the model's own prediction.
        feedback_depth: Most passes that such a prediction is made in; in pass n the frames see those of pass n - 1, so
            that frame i of the context carries the errors of a rollout of min(i, n) steps. Each update draws a depth
            from 1 to this one.
        drop_text: Share of windows without text.
        drop_action: Share of windows without actions.
        drop_camera: Share of windows without the camera's motion.
        bidirectional: Share of updates in which time is bidirectional.
        first_frames: Share of updates on single frames of many scenes, with nothing before them: how a world begins
            from its text. A window holds one such frame beside many others. Datasets give them by turns, in
            proportion to their episodes.
        forecast_steps: Frames that a forecast runs on from its own in training.
        forecast_noise: Largest noise level of the frames that it is shown.
        forecast_short: Share of its windows that show fewer frames than it sees, as a rollout does at its beginning.
            What cannot be known there errs some twenty times as much: with many of them it learns from little else.
        events: Share of the weight by which windows are drawn that lies on frames with events (contacts, rewards,
            terminations, the most abrupt changes of the latents), in [0, 1); 0 draws all windows alike.
        summary_weight: Weight of what texts say of first frames on the whole, where the model has `text.summary`.
        reward_weight: Weight of the reward loss.
        termination_weight: Weight of the termination loss.
    """

    length: int = 20
    lengths: tuple[int, ...] = ()
    level_mean: float = 1.0
    level_std: float = 1.4
    pure_noise: float = 0.15
    weight_floor: float = 0.3
    context_noise: float = 0.4
    context_clean: float = 0.4
    feedback: float = 0.25
    feedback_depth: int = 1
    drop_text: float = 0.1
    drop_action: float = 0.1
    drop_camera: float = 0.1
    bidirectional: float = 0.1
    first_frames: float = 0.0
    forecast_steps: int = 2
    forecast_noise: float = 0.05
    forecast_short: float = 0.06
    events: float = 0.0
    summary_weight: float = 0.2
    reward_weight: float = 0.1
    termination_weight: float = 0.1

    def __post_init__(self) -> None:
        shares = (
            "pure_noise",
            "context_noise",
            "context_clean",
            "feedback",
            "drop_text",
            "drop_action",
            "drop_camera",
            "bidirectional",
            "first_frames",
            "forecast_noise",
            "forecast_short",
        )
        _check_range(self, ("length", "feedback_depth", "forecast_steps"), 1)
        _check_range(self, (*shares, "events"), 0.0, 1.0)
        _check_range(self, ("level_std", "weight_floor", "summary_weight", "reward_weight", "termination_weight"), 0.0)
        if min(self.lengths, default=1) < 1:
            raise ConfigError(expected="dynamics.lengths of at least 1", got=self.lengths, remedy="Raise them.")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Config):
    """Rollouts on held-out episodes, at each evaluation of the transformer.

    Attributes:
        clips: Clips rolled out; 0 for none.
        given: Latent frames that each begins with.
        horizon: Steps dreamt, at most; fewer where the held-out episodes are shorter.
        steps: Denoising steps a frame.
        videos: Clips in the sample video; 0 for no video.
    """

    clips: int = 8
    given: int = 4
    horizon: int = 16
    steps: int = 1
    videos: int = 4

    def __post_init__(self) -> None:
        if min(self.clips, self.videos) < 0 or min(self.given, self.horizon, self.steps) < 1:
            raise ConfigError(
                expected="clips and videos of at least 0; given, horizon and steps of at least 1",
                got=f"{self.clips}, {self.videos}; {self.given}, {self.horizon}, {self.steps}",
                remedy="Raise them.",
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """A whole run: tokenizer, forecast where the model has one, dynamics.

    Attributes:
        data: Directory of the dataset, or of several with the same actions and frame rate. Their frame sizes and window
            lengths may differ; windows are then packed without padding. With `dynamics.first_frames`, datasets whose
            episodes are too short for windows give first frames.
        tokenizer: The tokenizer's shape.
        model: The transformer's shape; `action_dim` and `camera_dim` are taken from the dataset.
        actions: Whether the world takes the dataset's actions.
        camera: Whether it takes the camera's motion, where a dataset has it.
        tokenizer_optimiser: Training of the tokenizer, on single frames.
        forecast_optimiser: Training of the forecast, of a model that has one, on short windows; None keeps that of
            `start` as it is.
        optimiser: Training of the transformer.
        dynamics: Objective of the transformer.
        held_out: Share of episodes, the last ones, that are never trained on.
        seed: Everything random follows from it.
        precision: Autocast type.
        compile: Whether to run the networks through torch.compile.
        device: Where to train; "auto" takes CUDA if there is one.
        start: A checkpoint (a shipped name or a directory) to start from: its tokenizer is kept as it is, and its
            transformer, whatever shape `model` says, is where training begins; only the forecast, where paths begin
            (`source`), how rewards are said (`reward_bins`) and what texts say (`text.summary`) follow `model`. Empty
            for a new world.
        start_with: What of it to take: "world" is both networks, "tokenizer" leaves the transformer to be trained anew,
            with the shape that `model` says.
        episodes: Train on so many of the dataset's episodes only, the first ones; 0 for all.
        shard: Whether the processes that `torchrun` starts share the transformer's weights, gradients and moments
            (FSDP2) rather than hold a copy each (DDP).
        threads: CPU threads; 0 leaves PyTorch's choice.
        workers: Threads that prepare batches ahead; 0 prepares each when it is needed.
        log_every: Updates between two lines of metrics.
        save_minutes: Minutes between two saved states.
        evaluate_every: Updates between two evaluations on held-out episodes.
        evaluation: Rollouts at each of them.
        tensorboard: Whether to write TensorBoard event files beside metrics.jsonl.
    """

    data: str | tuple[str, ...]
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(text=TextConfig()))
    actions: bool = True
    camera: bool = True
    tokenizer_optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(steps=4000, batch_size=32))
    forecast_optimiser: OptimiserConfig | None = None
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(steps=4000, batch_size=16))
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    held_out: float = 0.02
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    compile: bool = False
    device: str = "auto"
    start: str = ""
    start_with: Literal["world", "tokenizer"] = "world"
    episodes: int = 0
    shard: bool = False
    threads: int = 0
    workers: int = 1
    log_every: int = 20
    save_minutes: float = 2.0
    evaluate_every: int = 500
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tensorboard: bool = True

    def __post_init__(self) -> None:
        _check_range(self, ("log_every", "evaluate_every"), 1)
        _check_range(self, ("episodes", "threads", "workers", "save_minutes"), 0)
        _check_range(self, ("held_out",), 0.0, 1.0)
        lengths = self.dynamics.lengths
        if not self.directories or len(lengths) not in (0, len(self.directories)):
            raise ConfigError(
                expected="a dataset, and dynamics.lengths for each of several or for none",
                got=f"{len(self.directories)} datasets and {len(lengths)} lengths",
                remedy="Name as many lengths as datasets.",
            )

    @property
    def directories(self) -> tuple[str, ...]:
        """Directories of the datasets."""
        return (self.data,) if isinstance(self.data, str) else self.data

    @property
    def optimisers(self) -> list[OptimiserConfig]:
        """Of all phases."""
        return [o for o in (self.tokenizer_optimiser, self.forecast_optimiser, self.optimiser) if o is not None]

    def of_dataset(self, index: int) -> "TrainConfig":
        """The run as if the dataset of that number were its only one."""
        lengths = self.dynamics.lengths
        dynamics = replace(self.dynamics, length=lengths[index] if lengths else self.dynamics.length, lengths=())
        return replace(self, data=self.directories[index], dynamics=dynamics)


def _check_range(config: Config, names: Sequence[str], least: float, most: float = math.inf) -> None:
    for name in names:
        if not least <= getattr(config, name) <= most:  # also refuses NaN
            raise ConfigError(
                expected=f"{name} of at least {least:g}" + (f" and at most {most:g}" if most < math.inf else ""),
                got=getattr(config, name),
                remedy="Change it.",
            )
