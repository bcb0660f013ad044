"""Presets: functions that return a training configuration."""

from collections.abc import Callable
from dataclasses import replace

from worldsim.config import ForecastConfig, ModelConfig, TextConfig, TokenizerConfig
from worldsim.errors import UnknownNameError
from worldsim.training.config import DynamicsConfig, OptimiserConfig, TrainConfig

Data = str | tuple[str, ...]

# Windows stay short until the second phase: most of what is to be learnt lies between neighbouring frames.
_NEXT_FRAME = DynamicsConfig(
    length=8,
    pure_noise=0.6,
    weight_floor=0.8,
    context_noise=0.2,
    feedback=0.0,
    forecast_steps=1,
    drop_action=0.05,
    bidirectional=0.0,
    first_frames=0.1,
)


def bounce(data: Data) -> TrainConfig:
    """The shipped 2D world: 64 x 64 pixels at 10 frames/s, small enough to train on a CPU core."""
    return _next_frame_world(data, latent_channels=8, window=16, steps=1460)


def room(data: Data) -> TrainConfig:
    """The shipped 3D world: 64 x 64 pixels, textured, with a longer window so that what was seen is remembered."""
    return _next_frame_world(data, latent_channels=16, window=24, steps=4000)


def _next_frame_world(data: Data, *, latent_channels: int, window: int, steps: int) -> TrainConfig:
    """A token is one latent cell, and the network predicts the way from a convolutional forecast of the frame.

    What is near, a convolution learns in minutes and attention in hours (docs/training.md has the figures).
    """
    return TrainConfig(
        data=data,
        tokenizer=TokenizerConfig(latent_channels=latent_channels, width=64, encoder_depth=1, decoder_depth=1),
        model=ModelConfig(
            latent_channels=latent_channels,
            patch=1,
            width=128,
            depth=6,
            heads=4,
            window=window,
            text=TextConfig(summary=128),
            reward_bins=63,
            prediction="velocity",
            source="forecast",
            source_noise=0.05,
            forecast=ForecastConfig(),
        ),
        tokenizer_optimiser=OptimiserConfig(steps=2500, batch_size=16, rate=2e-3),
        forecast_optimiser=OptimiserConfig(steps=14000, batch_size=64, warmup=50, decay=0.4, ema=0.99),
        optimiser=OptimiserConfig(steps=steps, batch_size=8, method="muon", rate=3e-3, warmup=50, ema=0.98),
        dynamics=_NEXT_FRAME,
    )


def tiny(data: Data) -> TrainConfig:
    """A few seconds of training, for trying the machinery on any dataset."""
    return TrainConfig(
        data=data,
        tokenizer=TokenizerConfig(latent_channels=4, width=16, encoder_depth=1, decoder_depth=1),
        model=ModelConfig(
            latent_channels=4, width=32, depth=2, heads=2, window=4, text=TextConfig(buckets=64, slots=4)
        ),
        tokenizer_optimiser=OptimiserConfig(steps=40, batch_size=4, warmup=5),
        optimiser=OptimiserConfig(steps=20, batch_size=4, warmup=5),
        dynamics=DynamicsConfig(length=6),
        held_out=0.2,
        log_every=5,
        evaluate_every=10,
    )


def second_phase(config: TrainConfig, start: str) -> TrainConfig:
    """The same world, trained on from a checkpoint for long rollouts of one denoising step a frame.

    In the manner of self-forcing (Huang et al. 2025), the past that a frame is denoised from is often the model's own,
    made in one or two passes of one step from pure noise, and most of the loss lies on that step. More passes lead away
    from the frames that are to be predicted, and teach to fade; noise on the past teaches to mend it. Windows are
    longer than the model's own, as those of a rollout are, and fewer, so that an update has as many frames as before.
    Paths begin at the forecast, or at the frame before for a model without, windows rich in events come more often, and
    some updates are for first frames alone.

    Args:
        config: The first phase.
        start: Its checkpoint.
    """
    first, length = config.optimiser, config.model.window + 2
    frames = first.batch_size * config.dynamics.length
    return replace(
        config,
        start=start,
        model=replace(config.model, source="forecast" if config.model.forecast else "previous"),
        forecast_optimiser=None,
        optimiser=replace(
            first, steps=4600, batch_size=-(-frames // length), rate=first.rate / 3, warmup=30, decay=0.4
        ),
        dynamics=replace(
            config.dynamics,
            length=length,
            pure_noise=0.8,
            weight_floor=0.8,
            context_noise=0.2,
            feedback=0.5,
            feedback_depth=2,
            events=0.3,
            reward_weight=0.3,
            first_frames=0.25,
        ),
    )


PRESETS: dict[str, Callable[[Data], TrainConfig]] = {"bounce": bounce, "room": room, "tiny": tiny}


def preset(name: str, data: Data, *, start: str | None = None) -> TrainConfig:
    """The preset of that name: its first phase, or with a checkpoint of that to start from, the second.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in PRESETS:
        raise UnknownNameError(kind="preset", name=name, known=PRESETS)
    first = PRESETS[name](data)
    if start is None:
        return first
    return second_phase(first, start)
