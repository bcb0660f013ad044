"""Figures that only a world learned from Bounce can have: what it shows of a text, for how long, and how far out."""

from collections.abc import Mapping, Sequence

import gymnasium as gym
import numpy as np

from envs.bounce.env import BounceEnv
from envs.bounce.ranges import TRAIN, splits
from envs.bounce.scene import VIEW_M
from envs.policies import RandomPolicy
from eval import Clip, score
from eval.fidelity import psnr
from eval.physics.velocity import velocity_error
from worldsim.cli.bounce_reader import agreement, read_bodies
from worldsim.cli.card_figures import velocity_figures
from worldsim.cli.card_motion import motion_figures
from worldsim.cli.card_rows import Figure, after, mean_figure
from worldsim.cli.demo_cases import FRESH_SEED, GIVEN, go_on
from worldsim.cli.worlds import HELD_FRAMES
from worldsim.simulator import Simulator

SCENARIO = "billiards"
LAWS = {
    "constant_acceleration": "constant acceleration",
    "equal_gravity": "equal gravity",
    "energy": "energy",
    "restitution": "restitution",
    "momentum": "momentum",
    "permanence": "permanence",
}
PRESENT_AFTER = (16, 64, 600)
LAW_FRAMES = 64
RESIDUAL_FRAMES = 16
OUT_OF_DISTRIBUTION_FRAMES = 16
_AXES = {
    "train": "in distribution",
    "ood_speed": "out of distribution in speed",
    "ood_size": "out of distribution in size",
    "ood_speed_size": "out of distribution in speed and size",
    "ood_mass": "out of distribution in mass",
    "ood_count": "out of distribution in the number of bodies",
    "ood_gravity": "out of distribution in gravity",
    "ood_combination": "out of distribution in the pairing of colours and shapes",
}
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
    """Bodies present, none lost and none doubled, long after the last given frame; residuals of motion; laws broken."""
    given, asked, actions, texts = _begun(simulator, cases, seed, max(PRESENT_AFTER))
    videos = {
        "dream": _dream(simulator, given, actions, texts, seed),
        "true frames (ceiling)": _true_videos(simulator, actions, seed),
    }
    least = _least_area(simulator)
    figures = []
    for horizon in PRESENT_AFTER:
        for label, shown in videos.items():
            seen = [read_bodies(video[GIVEN - 1 + horizon], least_area_px=least) for video in shown]
            kept = [agreement(bodies, wanted)["colours"] for bodies, wanted in zip(seen, asked, strict=True)]
            whole = [float(share == 1.0) for share in kept]
            figures += [
                mean_figure(f"bodies present {after(horizon)}, none lost or doubled, {label}", "", kept, rng),
                mean_figure(f"videos with exactly their bodies {after(horizon)}, {label}", "", whole, rng),
            ]
    begins = {label: video[:, GIVEN - 2 : GIVEN + RESIDUAL_FRAMES] for label, video in videos.items()}
    figures += motion_figures(
        begins["true frames (ceiling)"],
        begins["dream"],
        [[colour for colour, _ in bodies[1:]] for bodies in asked],
        gravity_px=_gravity_px(simulator),
        least_area_px=least,
        rng=rng,
    )
    longest = min(LAW_FRAMES, GIVEN + max(PRESENT_AFTER))
    shown = {label: video[:, :longest] for label, video in videos.items()}
    return figures + laws(shown, actions[:, : longest - 1], simulator.fps, rng)


def laws(videos: Mapping[str, np.ndarray], actions: np.ndarray, fps: float, rng: np.random.Generator) -> list[Figure]:
    """The share of clips that break each law, of those in which it can be tested.

    Args:
        videos: What is judged, label to (B, T, H, W, 3).
        actions: (B, T - 1), known to the evaluators.
        fps: Frames a second.
        rng: For the intervals.
    """
    broken: dict[tuple[str, str], list[float]] = {(law, label): [] for law in LAWS for label in videos}
    for label, shown in videos.items():
        for video, row in zip(shown, actions, strict=True):
            # One clip at a time: its tracks are found once for all laws.
            for law, verdict in score(Clip(frames=video, fps=fps, actions=row), suite=list(LAWS)).items():
                if verdict.value is not None:
                    broken[law, label].append(float(bool(verdict.offending)))
    return [
        mean_figure(
            f"clips of {actions.shape[1] + 1} frames that break the law of {LAWS[law]}, {label}", "", found, rng
        )
        for (law, label), found in broken.items()
        if found
    ]


def by_axis(simulator: Simulator, *, cases: int, seed: int, rng: np.random.Generator) -> list[Figure]:
    """PSNR and velocity error over some frames, in distribution and along every axis outside it."""
    figures = []
    horizon = OUT_OF_DISTRIBUTION_FRAMES
    for split in splits(SCENARIO):
        given, _, actions, texts = _begun(simulator, cases, seed, horizon, split=split)
        truth = _true_videos(simulator, actions, seed, split=split)
        dreamt = _dream(simulator, given, actions, texts, seed)
        close = [float(np.mean(psnr(d[GIVEN:], t[GIVEN:]))) for d, t in zip(dreamt, truth, strict=True)]
        name = f"{_AXES[split]}, over {horizon} frames"
        figures.append(mean_figure(f"PSNR {name}", "dB", close, rng))
        clips = (
            Clip(frames=d, fps=simulator.fps, reference=Clip(frames=t, fps=simulator.fps))
            for d, t in zip(dreamt, truth, strict=True)
        )
        figures += velocity_figures(name, [velocity_error(clip, context=GIVEN) for clip in clips], rng)
    return figures


def _world(simulator: Simulator, split: str = "train") -> BounceEnv:
    env = gym.make("envs:Bounce-v0", scenario=SCENARIO, size=simulator.frame_size, split=split).unwrapped
    assert isinstance(env, BounceEnv)
    return env


def _bodies(env: BounceEnv) -> list[tuple[str, str]]:
    return [(solid.colour, solid.shape) for solid in env.scene.solids]


def _gravity_px(simulator: Simulator) -> float:
    """The acceleration trained on, in px/frame²."""
    ((strength, _),) = TRAIN[SCENARIO].gravity_m_per_s2
    return strength * min(simulator.frame_size) / VIEW_M / simulator.fps**2


def _least_area(simulator: Simulator) -> float:
    """Pixels of the smallest body of the distribution that was trained on."""
    low = min(begin for begin, _ in TRAIN[SCENARIO].radius_m)
    return float(np.pi * (low * min(simulator.frame_size) / VIEW_M) ** 2)


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
