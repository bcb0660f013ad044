"""How well a learned world knows rewards and ends: on true frames, where only its heads can err, and in its dreams."""

from collections.abc import Sequence

import numpy as np
import torch

from eval.errors import MeasureError
from eval.physics.plausibility import auroc
from eval.uncertainty import wilson_interval
from worldsim.cli.card_rows import Figure
from worldsim.cli.demo_cases import GIVEN, Dreamt
from worldsim.data import Episode
from worldsim.nn.masks import causal_mask
from worldsim.simulator import Simulator
from worldsim.transformer import Conditions
from worldsim.video import to_model

NEAR_FRAMES = 16
"""Frames over which a dream still shows what happened in truth, so that it can know of its rewards."""
_BATCH = 4


@torch.inference_mode()
def outcomes_of(simulator: Simulator, episodes: Sequence[Episode]) -> tuple[np.ndarray, np.ndarray]:
    """What a world says of recorded frames, each given the true past: two (B, T - 1), of the frames but the first.

    Args:
        simulator: A learned world with outcome heads.
        episodes: Of one length.

    Returns:
        Rewards, and probabilities that the episode ends.
    """
    rewards, ends = [], []
    for i in range(0, len(episodes), _BATCH):
        reward, logit = _outcomes(simulator, episodes[i : i + _BATCH])
        rewards.append(reward * simulator.checkpoint.reward_scale)
        ends.append(logit.sigmoid())
    return torch.cat(rewards)[:, 1:].cpu().numpy(), torch.cat(ends)[:, 1:].cpu().numpy()


def _outcomes(simulator: Simulator, episodes: Sequence[Episode]) -> tuple[torch.Tensor, torch.Tensor]:
    model = simulator.model
    frames = np.stack([e.frames for e in episodes])
    actions = np.stack([np.asarray(e.actions) for e in episodes])
    latents = simulator.tokenizer.encode(to_model(frames, simulator.device))
    count = latents.shape[1]
    controls = simulator.inputs.of_past(actions, None, len(frames), count)
    conditions = Conditions(
        actions=controls.actions if model.config.action_dim else None,
        has_action=controls.has_action,
        text=model.encode_text([e.caption or None for e in episodes]),
        camera=controls.camera if model.config.camera_dim else None,
        has_camera=controls.has_camera,
    )
    seen = model(
        latents,
        torch.zeros(latents.shape[:2], device=latents.device),
        conditions,
        positions=torch.arange(count, device=latents.device),
        mask=causal_mask(count, model.config.window, device=latents.device),
    )
    reward, logit = model.outcomes(seen.hidden)
    return reward.float(), logit.float()


def outcome_figures(simulator: Simulator, episodes: Sequence[Episode], dreamt: Dreamt) -> list[Figure]:
    """AUROC of rewards on true frames and in the dream, and of ends; where none ends, the share of false alarms.

    Args:
        simulator: A learned world.
        episodes: What truly happened, of one length.
        dreamt: Their dreams.
    """
    if not simulator.model.config.heads_out:
        return []
    true = np.stack([e.rewards for e in episodes])
    ended = np.stack([e.terminated for e in episodes])
    rewards, ends = outcomes_of(simulator, episodes)
    beyond, near = true[:, GIVEN - 1 :], dreamt.rewards[:, :NEAR_FRAMES]
    figures = _areas("true frames", rewards, true)
    figures += _areas(f"dream, first {near.shape[1]} frames", near, beyond[:, :NEAR_FRAMES])
    if near.shape != beyond.shape:
        figures += _areas(f"dream, all {beyond.shape[1]} frames", dreamt.rewards, beyond)
    figures += _ends("true frames", ends, ended)
    return figures + _ends("dream", dreamt.terminated.astype(float), ended[:, GIVEN - 1 :])


def _areas(label: str, said: np.ndarray, true: np.ndarray) -> list[Figure]:
    """Against frames without reward; an event that these episodes lack has no figure."""
    figures = []
    for name, sign in (("above 0", 1.0), ("below 0", -1.0)):
        figure = _area(f"AUROC of reward {name}, {label}", sign * said[true == 0], sign * said[sign * true > 0])
        figures += [] if figure is None else [figure]
    return figures


def _ends(label: str, said: np.ndarray, ended: np.ndarray) -> list[Figure]:
    figure = _area(f"AUROC of termination, {label}", said[~ended], said[ended])
    if figure is not None:
        return [figure]
    alarms = int((said[~ended] > 0.5).sum())
    low, high = wilson_interval(alarms, said.size)
    return [
        Figure(
            name=f"frames wrongly said to end the episode (none does), {label}",
            unit="",
            value=alarms / said.size,
            low=low,
            high=high,
            count=said.size,
        )
    ]


def _area(name: str, negative: np.ndarray, positive: np.ndarray) -> Figure | None:
    try:
        area = auroc(negative, positive)
    except MeasureError:
        return None
    return Figure(name=name, unit="", value=area.value, low=area.low, high=area.high, count=len(positive))
