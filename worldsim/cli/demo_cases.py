"""What the demo shows a learned world: fresh episodes of the true one, the dream of each, and two bad baselines."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from envs.policies import RandomPolicy
from envs.room.policies import Wander, follow_path
from eval import Clip
from worldsim.cli.worlds import HELD_FRAMES
from worldsim.data import Episode, record
from worldsim.errors import ConfigError
from worldsim.simulator import Simulator

GIVEN = 4
"""Frames of the truth that the learned world is shown before it goes on alone."""
FRESH_SEED = 10_000_000
"""Truth cases are recorded with this seed and up; no shipped world was trained on any of these episodes."""
TRUTH, DREAM, STILL, SHUFFLED = "truth", "dream", "last frame held", "frames shuffled"


@dataclass(frozen=True, kw_only=True)
class World:
    """A true world that demos are recorded from.

    Attributes:
        env_id: For `gymnasium.make`.
        title: For people.
        suites: What is measured.
        wander: Makes the policy that acts at random, from an action space.
        paths: Camera paths to record, an episode each by turns; None acts at random.
        known: Truth that grading may use, for every clip alike: what the dream was asked to show.
    """

    env_id: str
    title: str
    suites: tuple[str, ...]
    wander: Callable[[gym.Space], Any]
    paths: tuple[str | None, ...] = (None,)
    known: tuple[str, ...] = ()


WORLDS: Mapping[str, World] = {
    "bounce": World(
        env_id="envs:Bounce-v0",
        title="Bounce",
        suites=("fidelity", "physics", "quality"),
        wander=lambda space: RandomPolicy(space, HELD_FRAMES),
    ),
    "room": World(
        env_id="envs:Room-v0",
        title="Room",
        # Of fidelity, what holds for a moving camera.
        suites=("psnr", "ssim", "perceptual", "divergence_horizon", "geometry"),
        wander=lambda _: Wander(),
        paths=("look_away", None),
        known=("depth_m", "world_from_camera", "K", "segmentation", "world_from_object"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One episode, and the videos that claim to show it.

    Attributes:
        clips: Label to clip: the truth first, then the dream and the baselines, whose `reference` is the truth.
        seed: What the environment was reset with.
        policy: How the actions were chosen.
    """

    clips: Mapping[str, Clip]
    seed: int
    policy: str

    @property
    def caption(self) -> str:
        """The scene in words."""
        return self.clips[TRUTH].text or ""


def world_of(simulator: Simulator) -> World:
    """The true world whose actions a learned world takes.

    Raises:
        ConfigError: If there is none.
    """
    for world in WORLDS.values():
        env = gym.make(world.env_id)
        same = env.action_space == simulator.action_space
        env.close()
        if same:
            return world
    raise ConfigError(
        expected=f"a checkpoint that learned one of {', '.join(w.env_id for w in WORLDS.values())}",
        got=f"one with actions {simulator.action_space}",
        remedy="Show it with `worldsim rollout`, and grade its videos with `worldsim score`.",
    )


def record_truth(
    world: World, simulator: Simulator, *, cases: int, frames: int, seed: int
) -> list[tuple[Episode, str]]:
    """Fresh episodes, and how their actions were chosen."""
    found: list[tuple[Episode, str]] = []
    for turn, path in enumerate(world.paths):
        count = len(range(turn, cases, len(world.paths)))
        if not count:
            continue
        kwargs: dict[str, Any] = {"size": simulator.frame_size} | ({} if path is None else {"camera_path": path})
        with tempfile.TemporaryDirectory() as scratch:
            env = gym.make(world.env_id, **kwargs)
            policy: Any = world.wander(env.action_space) if path is None else follow_path
            dataset = record(
                env,
                policy,
                episodes=count,
                seed=FRESH_SEED + seed * len(world.paths) + turn,
                path=Path(scratch) / "truth",
                max_steps=frames - 1,
                truth=world.known or False,
                progress=False,
            )
            env.close()
            name = "random actions, held for a while" if path is None else f"the camera path {path!r}"
            found += [(episode, name) for episode in dataset]
    return found


def dream(simulator: Simulator, episodes: Sequence[Episode], *, seed: int) -> np.ndarray:
    """The learned world's video of each episode, from its first frames, actions and caption: (B, T, H, W, 3).

    All episodes are of one length; they are stepped together.
    """
    given = np.stack([e.frames[:GIVEN] for e in episodes])
    actions = np.stack([np.asarray(e.actions) for e in episodes])
    return go_on(simulator, given, actions, [e.caption for e in episodes], seed=seed)[0]


def go_on(
    simulator: Simulator, given: np.ndarray, actions: np.ndarray, texts: Sequence[str | None], *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Dreams a batch of episodes on from their first frames.

    Args:
        simulator: The learned world.
        given: uint8 (B, GIVEN, H, W, 3).
        actions: (B, T - 1, ...), those between the given frames included.
        texts: A caption of each, or None; left out for a world without text.
        seed: Of the first; the others count up from it.

    Returns:
        uint8 (B, T, H, W, 3), the given frames first, and the rewards (B, T - GIVEN) that the world predicts.
    """
    known = simulator.checkpoint.model.config.text is not None
    state, _ = simulator.reset(
        frames=given,
        actions=actions[:, : GIVEN - 1],
        text=[text or None for text in texts] if known else None,
        seed=[seed + k for k in range(len(given))],
    )
    frames, rewards = list(given.swapaxes(0, 1)), []
    for t in range(GIVEN - 1, actions.shape[1]):
        step = simulator.step(state, actions[:, t], donate=True)
        state = step.state
        frames.append(step.frames)
        rewards.append(step.rewards)
    return np.stack(frames, axis=1), np.stack(rewards, axis=1)


def make_cases(world: World, simulator: Simulator, *, cases: int, frames: int, seed: int) -> list[Case]:
    """Fresh episodes with their dreams and baselines."""
    recorded = record_truth(world, simulator, cases=cases, frames=frames, seed=seed)
    dreamt = dream(simulator, [e for e, _ in recorded], seed=seed)
    rng = np.random.default_rng(seed)
    return [_case(world, e, policy, video, rng) for (e, policy), video in zip(recorded, dreamt, strict=True)]


def hold_last(frames: np.ndarray) -> np.ndarray:
    """The given frames, then the last of them for ever; (T, H, W, 3)."""
    return np.concatenate([frames[:GIVEN], np.repeat(frames[GIVEN - 1 : GIVEN], len(frames) - GIVEN, axis=0)])


def shuffle(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The given frames, then the true ones in random order; (T, H, W, 3)."""
    return np.concatenate([frames[:GIVEN], rng.permutation(frames[GIVEN:])])


def _case(world: World, episode: Episode, policy: str, dreamt: np.ndarray, rng: np.random.Generator) -> Case:
    common: dict[str, Any] = {
        "fps": episode.fps,
        "actions": np.asarray(episode.actions),
        "text": episode.caption,
        "truth": {key: episode.truth[key] for key in world.known},
    }
    truth = Clip(frames=episode.frames, name=TRUTH, **common)
    videos = {DREAM: dreamt, STILL: hold_last(episode.frames), SHUFFLED: shuffle(episode.frames, rng)}
    claims = {label: Clip(frames=v, name=label, reference=truth, **common) for label, v in videos.items()}
    return Case(clips={TRUTH: truth, **claims}, seed=episode.seed or 0, policy=policy)
