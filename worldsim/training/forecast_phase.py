"""How forecasts learn: on many short windows, before the transformer that begins from them.

Shape legend: B windows, F frames, C latent channels, h x w latent grid, K frames that a forecast sees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from worldsim.checkpoint import Checkpoint
from worldsim.errors import ConfigError, DatasetError
from worldsim.nn.forecast import Forecast
from worldsim.nn.passes import Conditions
from worldsim.noise import mix, path_named
from worldsim.training.ahead import Ahead
from worldsim.training.batches import LatentBatch, mean_over_windows
from worldsim.training.checks import longest_episodes
from worldsim.training.config import DynamicsConfig, TrainConfig
from worldsim.training.corpus import Corpus, Mixture
from worldsim.training.data import LatentSource, window_frames
from worldsim.training.draws import Draw, Source, divided, generators_for
from worldsim.training.learner import Learner
from worldsim.training.phase import Part, Phase, autocast, run_phase
from worldsim.training.run import Run
from worldsim.training.team import Team

_HELD_ROUNDS = 4
# Of the spread's likelihood beside the squared error; it reaches the layer that says the spread and no other.
_SPREAD_WEIGHT = 0.1


def examples(config: TrainConfig) -> TrainConfig:
    """The run as those see it who draw its windows: K frames, then those to forecast, many windows at once."""
    assert config.model.forecast is not None
    assert config.forecast_optimiser is not None
    length = config.model.forecast.frames + config.dynamics.forecast_steps
    dynamics = replace(config.dynamics, length=length, lengths=(), first_frames=0.0)
    return replace(config, optimiser=config.forecast_optimiser, dynamics=dynamics)


def check_forecast(config: TrainConfig, corpus: Corpus, start: Checkpoint | None) -> None:
    """Checks that a forecast is trained, or was.

    Raises:
        ConfigError: If one is to be used untrained.
        DatasetError: If no dataset has long enough episodes.
    """
    if config.model.forecast is None:
        return
    if config.forecast_optimiser is not None:
        forecast_datasets(config, corpus)
        return
    taken = start.model.config.forecast if start is not None and config.start_with == "world" else None
    if taken != config.model.forecast:
        raise ConfigError(
            expected="a `forecast_optimiser` for a forecast that is not that of a checkpoint to start from",
            got=None,
            remedy='For example --set \'forecast_optimiser={"steps": 4000, "batch_size": 64}\'.',
        )


def forecast_datasets(config: TrainConfig, corpus: Corpus) -> list[int]:
    """Numbers of the datasets that a forecast is trained on: those with long enough episodes.

    Raises:
        DatasetError: If there is none.
    """
    wanted = examples(config)
    found = [i for i, d in enumerate(corpus) if longest_episodes(d, wanted)[0] >= window_frames(wanted)]
    if not found:
        raise DatasetError(
            expected=f"episodes of at least {window_frames(wanted)} frames, to train the forecast on and held out",
            got=f"none in {corpus.name}",
            remedy="Record longer episodes, or lower model.forecast.frames or dynamics.forecast_steps.",
        )
    return found


def train_forecast(
    forecast: Forecast,
    config: TrainConfig,
    sources: Sequence[LatentSource],
    run: Run,
    members: Team,
    *,
    show_progress: bool,
) -> None:
    """Trains a forecast, in place.

    Args:
        forecast: The network, on the device of `members`.
        config: The run, with a `forecast_optimiser`.
        sources: Windows, as `examples` says.
        run: Where states and metrics go.
        members: The processes that train together; each holds a copy.
        show_progress: Whether to draw a progress bar.
    """
    optimiser, device = config.forecast_optimiser, members.device
    assert optimiser is not None
    learner = Learner(forecast, forecast_loss, optimiser, run.path / "forecast", members)
    learner.restore()
    mixture = Mixture(sources, optimiser.batch_size, config.seed + 3)
    held = [[s.held_out(i, device) for s in sources] for i in range(_HELD_ROUNDS)]

    def loss(step: int, part: Part) -> tuple[Tensor, dict[str, Tensor], int]:
        groups = ahead(step, part.rows)
        return *learner.objective(groups, config.dynamics, part.generators), sum(len(g.latents) for g in groups)

    phase = Phase(
        name="forecast",
        learner=learner,
        loss_of=loss,
        evaluate=lambda network: held_out_error(network, held, config),
        describe=mixture.describe,
    )
    with Ahead(lambda step, rows: mixture.batch(step, device, rows), members.parts(optimiser), config.workers) as ahead:
        run_phase(phase, run, config, show_progress=show_progress)
    learner.finish()


def forecast_error(forecast: Tensor, spread: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error of forecasts, and its likelihood under their spread.

    The spread learns from errors that it does not weigh: likelihood alone gives up where it is unsure (Seitzer et al.
    2022).

    Args:
        forecast: Latents.
        spread: The same.
        clean: The true ones, the same.

    Returns:
        Two scalars: the loss, and the squared error in it.
    """
    error = (forecast - clean.float()).square()
    unlikely = spread.log() + 0.5 * error.detach() / spread.square()
    return error.mean() + _SPREAD_WEIGHT * unlikely.mean(), error.mean().detach()


def forecast_loss(
    forecast: Forecast, batch: LatentBatch | Sequence[LatentBatch], config: DynamicsConfig, generator: Source
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one update of a forecast, which runs on from its own frames as far as the windows reach.

    Errors are not followed back through the run (the pushforward trick, Brandstetter et al. 2022): where they are, all
    frames of it fade to what is right on average.

    Args:
        forecast: The network.
        batch: Windows of more than K frames; several groups of them where sizes differ.
        config: The objective.
        generator: As for `dynamics_loss`.

    Returns:
        The loss; the squared errors of the first step and of the last, and that of the last frame shown standing still.
    """
    groups = [batch] if isinstance(batch, LatentBatch) else list(batch)
    sources = divided(generator, [len(g.latents) for g in groups])
    found = [_group_loss(forecast, g, config, Draw(s, g.latents.device)) for g, s in zip(groups, sources, strict=True)]
    return mean_over_windows(found, groups)


def _group_loss(
    forecast: Forecast, batch: LatentBatch, config: DynamicsConfig, draw: Draw
) -> tuple[Tensor, dict[str, Tensor]]:
    clean, seen = batch.latents, forecast.frames
    b, f = clean.shape[:2]
    levels = config.forecast_noise * draw.uniform(b, 1)
    shown = mix(path_named(forecast.config.path), clean[:, :seen], draw.normal(clean)[:, :seen], levels.expand(b, seen))
    first = (draw.uniform(b, 1) < config.forecast_short) * (seen * draw.uniform(b, 1)).long()
    before = torch.where((torch.arange(seen, device=clean.device) >= first)[..., None, None, None], shown, 0.0)
    conditions = _conditions(batch, config, draw)
    losses, errors = [], []
    for at in range(seen, f):
        forecasts, spread = forecast(before[:, None], _at(conditions, at))
        loss, error = forecast_error(forecasts, spread, clean[:, at : at + 1])
        losses.append(loss)
        errors.append(error)
        before = torch.cat((before[:, 1:], forecasts.detach()), dim=1)
    still = (clean[:, seen] - clean[:, seen - 1]).float().square().mean()
    return torch.stack(losses).mean(), {"error": errors[0], "last_error": errors[-1], "still_error": still}


def _conditions(batch: LatentBatch, config: DynamicsConfig, draw: Draw) -> Conditions:
    b, f = batch.latents.shape[:2]
    has_action, has_camera = (draw.uniform(b, 1) >= share for share in (config.drop_action, config.drop_camera))
    return Conditions(
        actions=batch.actions,
        has_action=has_action.expand(b, f),
        camera=batch.camera,
        has_camera=None if batch.camera is None else has_camera.expand(b, f),
    )


def _at(conditions: Conditions, frame: int) -> Conditions:
    """What leads to the frame of that number."""

    def cut(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[:, frame : frame + 1]

    return Conditions(
        actions=cut(conditions.actions),
        has_action=cut(conditions.has_action),
        camera=cut(conditions.camera),
        has_camera=cut(conditions.has_camera),
    )


@torch.no_grad()
def held_out_error(
    forecast: Forecast, batches: Sequence[Sequence[LatentBatch]], config: TrainConfig
) -> Mapping[str, float]:
    """The errors on held-out windows, shown as they are, with all that led to them.

    Args:
        forecast: The network.
        batches: Some batches, each a group of windows for each dataset.
        config: The run.
    """
    quiet = replace(config.dynamics, forecast_noise=0.0, forecast_short=0.0, drop_action=0.0, drop_camera=0.0)
    sums: dict[str, float] = {}
    for i, groups in enumerate(batches):
        generators = generators_for(config.seed, "held", i, range(sum(len(g.latents) for g in groups)))
        with autocast(groups[0].latents.device, config.precision):
            _, parts = forecast_loss(forecast, groups, quiet, generators)
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + float(value) / len(batches)
    return sums
