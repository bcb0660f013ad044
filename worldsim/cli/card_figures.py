"""How good a learned world is, on episodes that it was never trained on: the figures of its card."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from eval import Clip
from eval.control import delta_psnr
from eval.fidelity import psnr, ssim
from eval.physics.velocity import velocity_error
from eval.score import Score
from worldsim.cli.card_outcomes import outcome_figures
from worldsim.cli.card_rows import Figure, after, mean_figure, ratio_figure
from worldsim.cli.demo_cases import GIVEN, go_on
from worldsim.data import Episode
from worldsim.simulator import Simulator
from worldsim.transformer import VideoDiT
from worldsim.video import from_model, to_model

HORIZONS = (1, 4, 16, 64)
CEILING_DB = 100.0


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
    told = go_on(simulator, given, actions, texts, seed=seed)
    dreamt = told.frames
    swapped = go_on(simulator, given, np.roll(actions, 1, axis=0), texts, seed=seed).frames
    floor = go_on(untrained(simulator), given, actions, texts, seed=seed).frames
    held = np.repeat(truth[:, GIVEN - 1 : GIVEN], truth.shape[1], axis=1)
    decoded = through_the_tokenizer(simulator, truth)
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
            figures.append(mean_figure(f"PSNR {after(horizon)}, {name}", "dB", values, rng))
        similar = [float(ssim(v[at : at + 1], t[at : at + 1])[0]) for v, t in zip(dreamt, truth, strict=True)]
        figures.append(mean_figure(f"SSIM {after(horizon)}, dream", "", similar, rng))
        gained = [
            float(delta_psnr(t, d, s, ceiling_db=CEILING_DB)[at])
            for t, d, s in zip(truth, dreamt, swapped, strict=True)
        ]
        figures.append(mean_figure(f"ΔPSNR of actions {after(horizon)}", "dB", gained, rng))
    if still_camera:
        figures += _velocities(dreamt, truth, simulator.fps, rng)
    return figures + outcome_figures(simulator, episodes, told)


def untrained(simulator: Simulator) -> Simulator:
    """The same world with its transformer's weights as they were before training: a floor."""
    torch.manual_seed(0)
    known = simulator.checkpoint
    fresh = replace(known, model=VideoDiT(known.model.config), meta={})
    return Simulator(fresh, sampling=simulator.sampling)


@torch.inference_mode()
def through_the_tokenizer(simulator: Simulator, truth: np.ndarray) -> np.ndarray:
    """True videos, uint8 (B, T, H, W, 3), encoded and decoded: as good as a dream could be."""
    tokenizer = simulator.tokenizer
    return np.stack([from_model(tokenizer.decode(tokenizer.encode(to_model(v[None])), starts=True))[0] for v in truth])


def _velocities(dreamt: np.ndarray, truth: np.ndarray, fps: float, rng: np.random.Generator) -> list[Figure]:
    figures = []
    for horizon in HORIZONS[2:]:
        stop = GIVEN + horizon
        if stop > truth.shape[1]:
            continue
        scores = [
            velocity_error(Clip(frames=d[:stop], fps=fps, reference=Clip(frames=t[:stop], fps=fps)), context=GIVEN)
            for d, t in zip(dreamt, truth, strict=True)
        ]
        figures += velocity_figures(f"over {horizon} frames", scores, rng)
        present = [1.0 - float(s.details["missing"]) for s in scores if s.value is not None]
        if present:
            figures.append(mean_figure(f"share of bodies present over {horizon} frames", "", present, rng))
    return figures


def velocity_figures(when: str, scores: Sequence[Score], rng: np.random.Generator) -> list[Figure]:
    """The velocity error where it could be measured, the tracker's own error on true frames, and their ratio."""
    pairs = [(s.value, float(s.details["floor"])) for s in scores if s.value is not None]
    if not pairs:
        return []
    errors, floors = (list(column) for column in zip(*pairs, strict=True))
    name = f"velocity error {when}"
    return [
        mean_figure(f"{name}, dream", "side/s", errors, rng),
        mean_figure(f"{name}, tracking floor", "side/s", floors, rng),
        ratio_figure(f"{name}, dream as a multiple of the floor", errors, floors, rng),
    ]
