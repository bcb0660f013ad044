"""How forecasts learn: from their own error, one frame on and a few.

Shape legend: B windows, F frames, C latent channels, h x w latent grid.
"""

import torch
from torch import Tensor

from worldsim.nn.forecast import frames_before
from worldsim.transformer import Conditions, VideoDiT

# Of the spread's likelihood beside the squared error; it reaches the layer that says the spread and no other.
_SPREAD_WEIGHT = 0.1


def forecast_error(
    forecast: Tensor, spread: Tensor, clean: Tensor, *, first: int = 1
) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error of forecasts, and its likelihood under their spread.

    The spread learns from errors that it does not weigh: likelihood alone gives up where it is unsure (Seitzer et al.
    2022).

    Args:
        forecast: (B, F, C, h, w).
        spread: The same.
        clean: The true frames, the same.
        first: Number of the first frame that counts; nought where there is none, as in windows of one frame.

    Returns:
        The loss, and both parts of it.
    """
    error = (forecast - clean.float()).square()
    likelihood = spread.log() + 0.5 * error.detach() / spread.square()
    counted = max(error[:, first:].numel(), 1)
    squared, unlikely = (x[:, first:].sum() / counted for x in (error, likelihood))
    return squared + _SPREAD_WEIGHT * unlikely, {"forecast": squared.detach(), "spread": unlikely.detach()}


def run_of_forecasts(
    model: VideoDiT, clean: Tensor, shown: Tensor, conditions: Conditions, *, steps: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """From every frame of a window the forecast runs on for some frames, each from its own ones before.

    Errors are not followed back through the run (the pushforward trick, Brandstetter et al. 2022): where they are, all
    frames of it fade to what is right on average.

    Args:
        model: With a forecast.
        clean: (B, F, C, h, w) the true frames.
        shown: The past as the forecast sees it, the same.
        conditions: What led to the frames.
        steps: Frames to run on; fewer in windows that are too short for them.

    Returns:
        The loss, and the squared errors of the first step and of the last.
    """
    assert model.config.forecast is not None
    seen = model.config.forecast.frames
    before = frames_before(shown, seen)
    losses, errors = [], []
    for step in range(max(1, min(steps, clean.shape[1] - seen))):
        forecast, spread = model.forecasts(before, _later(conditions, step))
        # Where too few frames were seen to tell how things move, what becomes of them teaches nothing but to blur.
        loss, now = forecast_error(forecast, spread, clean[:, step:], first=seen if step else 1)
        losses.append(loss)
        errors.append(now["forecast"])
        before = torch.cat((before[:, :, 1:], forecast.detach()[:, :, None]), dim=2)[:, :-1]
    return torch.stack(losses).mean(), {"forecast": errors[0], "forecast_last": errors[-1]}


def _later(conditions: Conditions, frames: int) -> Conditions:
    """What leads to the frames from that number on."""

    def cut(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[:, frames:]

    return Conditions(
        actions=cut(conditions.actions),
        has_action=cut(conditions.has_action),
        camera=cut(conditions.camera),
        has_camera=cut(conditions.has_camera),
    )
