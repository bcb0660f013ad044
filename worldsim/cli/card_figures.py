"""How good a learned world is, on episodes that it was never trained on: the figures of its card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from eval import Clip
from eval.control import delta_psnr
from eval.errors import MeasureError
from eval.fidelity import psnr, ssim
from eval.physics.plausibility import auroc
from eval.physics.velocity import velocity_error
from eval.uncertainty import mean_interval
from worldsim.cli.demo_cases import GIVEN, go_on
from worldsim.data import Episode
from worldsim.simulator import Simulator
from worldsim.transformer import VideoDiT
from worldsim.video import from_model, to_model

HORIZONS = (1, 4, 16, 64)
CEILING_DB = 100.0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure with its 95 % interval over episodes.

    Attributes:
        name: What was measured.
        unit: Its unit.
        value: The mean over episodes.
        low: Lower end of the interval.
        high: Upper end.
        count: Episodes, or events, that it rests on.
    """

    name: str
    unit: str
    value: float
    low: float
    high: float
    count: int


def measure(simulator: Simulator, episodes: Sequence[Episode], *, seed: int, still_camera: bool) -> list[Figure]:
    """All figures.

    Args:
        simulator: The learned world.
        episodes: Fresh episodes of one length, with rewards and captions.
        seed: Seed of the dreams and of the bootstrap.
        still_camera: Whether bodies can be followed by colour (Bounce), so that velocities are measured.
    """
    truth = np.stack([e.frames for e in episodes])
    actions = np.stack([np.asarray(e.actions) for e in episodes])
    given, texts = truth[:, :GIVEN], [e.caption for e in episodes]
    dreamt, rewards = go_on(simulator, given, actions, texts, seed=seed)
    swapped, _ = go_on(simulator, given, np.roll(actions, 1, axis=0), texts, seed=seed)
    floor, _ = go_on(untrained(simulator), given, actions, texts, seed=seed)
    held = np.repeat(truth[:, GIVEN - 1 : GIVEN], truth.shape[1], axis=1)
    decoded = _through_the_tokenizer(simulator, truth)
    rng = np.random.default_rng(seed)
    figures = []
    videos = {
        "dream": dreamt,
        "tokenizer alone (ceiling)": decoded,
        "last frame repeated": held,
        "untrained transformer": floor,
    }
    for horizon in (h for h in HORIZONS if GIVEN - 1 + h < truth.shape[1]):
        at = GIVEN - 1 + horizon
        for name, video in videos.items():
            values = [
                float(min(psnr(v[at : at + 1], t[at : at + 1])[0], CEILING_DB))
                for v, t in zip(video, truth, strict=True)
            ]
            figures.append(mean_figure(f"PSNR after {horizon} frames, {name}", "dB", values, rng))
        similar = [float(ssim(v[at : at + 1], t[at : at + 1])[0]) for v, t in zip(dreamt, truth, strict=True)]
        figures.append(mean_figure(f"SSIM after {horizon} frames, dream", "", similar, rng))
        gained = [
            float(delta_psnr(t, d, s, ceiling_db=CEILING_DB)[at])
            for t, d, s in zip(truth, dreamt, swapped, strict=True)
        ]
        figures.append(mean_figure(f"ΔPSNR of actions after {horizon} frames", "dB", gained, rng))
    if still_camera:
        figures += _velocities(dreamt, truth, simulator.fps, rng)
    return figures + _rewards(rewards, np.stack([e.rewards for e in episodes])[:, GIVEN - 1 :])


def untrained(simulator: Simulator) -> Simulator:
    """The same world with its transformer's weights as they were before training: a floor."""
    torch.manual_seed(0)
    known = simulator.checkpoint
    fresh = replace(known, model=VideoDiT(known.model.config), meta={})
    return Simulator(fresh, sampling=simulator.sampling)


@torch.inference_mode()
def _through_the_tokenizer(simulator: Simulator, truth: np.ndarray) -> np.ndarray:
    tokenizer = simulator.tokenizer
    return np.stack([from_model(tokenizer.decode(tokenizer.encode(to_model(v[None])), starts=True))[0] for v in truth])


def _velocities(dreamt: np.ndarray, truth: np.ndarray, fps: float, rng: np.random.Generator) -> list[Figure]:
    found: dict[tuple[str, str], list[float]] = {}
    for horizon in HORIZONS[2:]:
        stop = GIVEN + horizon
        if stop > truth.shape[1]:
            continue
        for video, reference in zip(dreamt, truth, strict=True):
            clip = Clip(frames=video[:stop], fps=fps, reference=Clip(frames=reference[:stop], fps=fps))
            score = velocity_error(clip, context=GIVEN)
            if score.value is None:
                continue
            found.setdefault((f"velocity error over {horizon} frames", "side/s"), []).append(score.value)
            found.setdefault((f"velocity error over {horizon} frames, tracking floor", "side/s"), []).append(
                float(score.details["floor"])
            )
            present = 1.0 - float(score.details["missing"])
            found.setdefault((f"share of bodies present over {horizon} frames", ""), []).append(present)
    return [mean_figure(name, unit, values, rng) for (name, unit), values in found.items()]


def _rewards(predicted: np.ndarray, true: np.ndarray) -> list[Figure]:
    """How well predicted rewards tell rewarded frames from others, in dreams that may have left the truth."""
    figures = []
    for name, positive in (("reward above 0", true > 0), ("reward below 0", true < 0)):
        sign = 1.0 if name.endswith("above 0") else -1.0
        try:
            area = auroc(sign * predicted[true == 0], sign * predicted[positive])
        except MeasureError:
            continue  # no such event in these episodes; the card says so by leaving the figure out
        count = int(positive.sum())
        figures.append(
            Figure(name=f"AUROC of {name}", unit="", value=area.value, low=area.low, high=area.high, count=count)
        )
    return figures


def mean_figure(name: str, unit: str, values: Sequence[float], rng: np.random.Generator) -> Figure:
    """A figure from one value for each episode."""
    low, high = mean_interval(np.asarray(values), rng=rng)
    return Figure(name=name, unit=unit, value=float(np.mean(values)), low=low, high=high, count=len(values))


def as_rows(figures: Sequence[Figure]) -> list[Mapping[str, Any]]:
    """The figures as plain data."""
    return [vars(f) for f in figures]
