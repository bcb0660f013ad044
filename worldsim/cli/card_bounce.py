"""Figures that only a world learned from Bounce can have: what it shows of a text, for how long, and how far out."""

from collections.abc import Sequence

import gymnasium as gym
import numpy as np

from envs.bounce.env import BounceEnv
from envs.bounce.ranges import TRAIN, splits
from envs.policies import RandomPolicy
from eval import Clip, score
from eval.fidelity import psnr
from eval.physics.velocity import velocity_error
from worldsim.cli.bounce_reader import agreement, read_bodies
from worldsim.cli.card_figures import Figure, mean_figure
from worldsim.cli.demo_cases import FRESH_SEED, GIVEN, go_on
from worldsim.cli.worlds import HELD_FRAMES
from worldsim.simulator import Simulator

SCENARIO = "billiards"
LAWS = ("constant_acceleration", "momentum", "energy", "permanence")
PRESENT_AFTER = (16, 64, 600)
LAW_FRAMES = 64
OUT_OF_DISTRIBUTION_FRAMES = 16
_TEXT_SEED, _SPLIT_SEED = 1_000_000, 2_000_000  # so that no two figures share a scene
_BATCH = 16


def bounce_figures(simulator: Simulator, *, cases: int, seed: int) -> list[Figure]:
    """Text-following, bodies that stay, laws kept, and generalisation by axis; each beside its floor or ceiling.

    Args:
        simulator: A world learned from Bounce's billiards.
        cases: Scenes for each figure.
        seed: Which fresh scenes.
    """
    rng = np.random.default_rng(seed)
    first = FRESH_SEED + seed
    figures = text_following(simulator, cases=cases, seed=first + _TEXT_SEED, rng=rng)
    figures += staying(simulator, cases=cases, seed=first, rng=rng)
    return figures + by_axis(simulator, cases=cases, seed=first + _SPLIT_SEED, rng=rng)


def text_following(simulator: Simulator, *, cases: int, seed: int, rng: np.random.Generator) -> list[Figure]:
    """Whether the first frame dreamt from a caption alone shows the bodies that it names."""
    env = _world(simulator)
    texts, asked, truth = [], [], []
    for k in range(cases):
        frame, info = env.reset(seed=seed + k)
        texts.append(info["caption"])
        asked.append(_bodies(env))
        truth.append(frame)
    dreamt = []
    for i in range(0, cases, _BATCH):
        seeds = [seed + k for k in range(i, min(i + _BATCH, cases))]
        _, frames = simulator.reset(text=texts[i : i + _BATCH], seed=seeds, num_envs=len(seeds))
        dreamt.extend(frames)
    least = _least_area(simulator)
    found: dict[str, list[float]] = {}
    for label, pictures in (("dream", dreamt), ("true frame (ceiling)", truth)):
        for picture, wanted in zip(pictures, asked, strict=True):
            for name, value in agreement(read_bodies(picture, least_area_px=least), wanted).items():
                found.setdefault(f"text-following, {_ASPECTS[name]}, {label}", []).append(value)
    return [mean_figure(name, "", values, rng) for name, values in found.items()]


_ASPECTS = {"count": "as many bodies as asked for", "colours": "colours as asked for", "bodies": "colours and shapes"}


def staying(simulator: Simulator, *, cases: int, seed: int, rng: np.random.Generator) -> list[Figure]:
    """Bodies present, none lost and none doubled, long after the last given frame; and laws that dreams break."""
    given, asked, actions, texts = _begun(simulator, cases, seed, max(PRESENT_AFTER))
    dreamt = _dream(simulator, given, actions, texts, seed)
    least = _least_area(simulator)
    figures = []
    for after in PRESENT_AFTER:
        seen = [read_bodies(video[GIVEN - 1 + after], least_area_px=least) for video in dreamt]
        kept = [agreement(bodies, wanted) for bodies, wanted in zip(seen, asked, strict=True)]
        figures += [
            mean_figure(f"bodies present after {after} frames, by colour", "", [k["colours"] for k in kept], rng),
            mean_figure(f"dreams with every body after {after} frames", "", [k["colours"] == 1 for k in kept], rng),
        ]
    longest = min(LAW_FRAMES, dreamt.shape[1])
    truth = _true_videos(simulator, actions[:, : longest - 1], seed)
    for law in LAWS:
        for label, videos in (("dream", dreamt[:, :longest]), ("truth", truth)):
            clips = (
                Clip(frames=v, fps=simulator.fps, actions=a[: longest - 1])
                for v, a in zip(videos, actions, strict=True)
            )
            found = [score(clip, suite=[law])[law] for clip in clips]
            broken = [float(bool(s.offending)) for s in found if s.value is not None]
            if broken:
                figures.append(mean_figure(f"clips of {longest} frames that break {law}, {label}", "", broken, rng))
    return figures


def by_axis(simulator: Simulator, *, cases: int, seed: int, rng: np.random.Generator) -> list[Figure]:
    """PSNR and velocity error over some frames, in distribution and along every axis outside it."""
    figures = []
    horizon = OUT_OF_DISTRIBUTION_FRAMES
    for split in splits(SCENARIO):
        given, _, actions, texts = _begun(simulator, cases, seed, horizon, split=split)
        truth = _true_videos(simulator, actions, seed, split=split)
        dreamt = _dream(simulator, given, actions, texts, seed)
        close = [float(np.mean(psnr(d[GIVEN:], t[GIVEN:]))) for d, t in zip(dreamt, truth, strict=True)]
        name = f"{'in distribution' if split == 'train' else split}, {horizon} frames"
        figures.append(mean_figure(f"PSNR, {name}", "dB", close, rng))
        errors, floors = [], []
        for d, t in zip(dreamt, truth, strict=True):
            clip = Clip(frames=d, fps=simulator.fps, reference=Clip(frames=t, fps=simulator.fps))
            measured = velocity_error(clip, context=GIVEN)
            if measured.value is not None:
                errors.append(measured.value)
                floors.append(float(measured.details["floor"]))
        if errors:
            figures.append(mean_figure(f"velocity error, {name}", "side/s", errors, rng))
            figures.append(mean_figure(f"velocity error, {name}, tracking floor", "side/s", floors, rng))
    return figures


def _world(simulator: Simulator, split: str = "train") -> BounceEnv:
    env = gym.make("envs:Bounce-v0", scenario=SCENARIO, size=simulator.frame_size, split=split).unwrapped
    assert isinstance(env, BounceEnv)
    return env


def _bodies(env: BounceEnv) -> list[tuple[str, str]]:
    return [(solid.colour, solid.shape) for solid in env.scene.solids]


def _least_area(simulator: Simulator) -> float:
    """Pixels of the smallest body of the distribution that was trained on."""
    low = min(begin for begin, _ in TRAIN[SCENARIO].radius_m)
    return float(np.pi * (low * min(simulator.frame_size) / 10.0) ** 2)


def _begun(
    simulator: Simulator, cases: int, seed: int, horizon: int, *, split: str = "train"
) -> tuple[np.ndarray, list[list[tuple[str, str]]], np.ndarray, list[str]]:
    """Given frames (B, GIVEN, H, W, 3), bodies of each scene, actions (B, GIVEN - 1 + horizon), captions."""
    env = _world(simulator, split)
    frames, asked, texts = [], [], []
    actions = _actions(env, cases, GIVEN - 1 + horizon, seed)
    for k in range(cases):
        frame, info = env.reset(seed=seed + k)
        asked.append(_bodies(env))
        texts.append(info["caption"])
        frames.append(np.stack([frame, *(env.step(a)[0] for a in actions[k, : GIVEN - 1])]))
    return np.stack(frames), asked, actions, texts


def _actions(env: BounceEnv, cases: int, length: int, seed: int) -> np.ndarray:
    rows = []
    for k in range(cases):
        policy, rng = RandomPolicy(env.action_space, HELD_FRAMES), np.random.default_rng(seed + k)
        rows.append([policy(np.empty(0), {}, rng) for _ in range(length)])
    return np.array(rows)


def _true_videos(simulator: Simulator, actions: np.ndarray, seed: int, *, split: str = "train") -> np.ndarray:
    """(B, T, H, W, 3) of what truly happens."""
    env = _world(simulator, split)
    videos = []
    for k, row in enumerate(actions):
        frame, _ = env.reset(seed=seed + k)
        videos.append(np.stack([frame, *(env.step(a)[0] for a in row)]))
    return np.stack(videos)


def _dream(simulator: Simulator, given: np.ndarray, actions: np.ndarray, texts: Sequence[str], seed: int) -> np.ndarray:
    """(B, T, H, W, 3): the given frames, then the dream under the actions, made in batches that fit in memory."""
    starts = range(0, len(given), _BATCH)
    parts = ((slice(i, i + _BATCH), seed + i) for i in starts)
    return np.concatenate([go_on(simulator, given[p], actions[p], texts[p], seed=s)[0] for p, s in parts])
