"""What the demo shows a learned world: fresh episodes of the true one, the dream of each, and two bad baselines."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from envs.policies import RandomPolicy
from envs.room.moves import ACTIONS
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
class Acting:
    """A way to act in a world.

    Attributes:
        words: For people.
        make: Makes the policy from the action space, the number of actions, and how many frames a learned world sees.
        camera_path: What the environment is made with, where it has paths.
    """

    words: str
    make: Callable[[gym.Space, int, int], Any]
    camera_path: str | None = None


class Dreamt(NamedTuple):
    """What a learned world made of a batch of episodes.

    Attributes:
        frames: uint8 (B, T, H, W, 3), the given frames first.
        rewards: float32 (B, T - GIVEN), as it predicts them.
        terminated: bool (B, T - GIVEN), likewise.
    """

    frames: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray


class TurnAndReturn:
    """Stands, turns away as far as there is time for (half a turn at most), and turns back.

    Where there is time left, it waits in between until a learned world has lost sight of what it saw first.

    Args:
        steps: Actions in all.
        window: Frames that the learned world sees.
    """

    def __init__(self, steps: int, window: int) -> None:
        stay, left, right = (ACTIONS.index(name) for name in ("stay", "turn left", "turn right"))
        moving = steps - (GIVEN - 1)
        turns = min(HALF_TURN, moving // 2)
        wait = max(0, min(window - turns, moving - 2 * turns))
        self._actions = [stay] * (GIVEN - 1) + [left] * turns + [stay] * wait + [right] * turns
        self._rest, self._step = stay, 0

    def __call__(self, observation: np.ndarray, info: Mapping[str, Any], rng: np.random.Generator) -> np.int64:
        """The next action; in the end it stands."""
        del observation, info, rng
        action = self._actions[self._step] if self._step < len(self._actions) else self._rest
        self._step += 1
        return np.int64(action)


HALF_TURN = 24
"""Turns of Room's camera to look the other way."""
_WANDER = Acting(words="a random walk", make=lambda *_: Wander())


@dataclass(frozen=True, kw_only=True)
class World:
    """A true world that demos are recorded from.

    Attributes:
        env_id: For `gymnasium.make`.
        title: For people.
        suites: What is measured.
        acting: How episodes come about, by turns.
        shown: The same for the demo, one that asks more of memory; None is `acting`.
        cases: Episodes that the demo grades.
        known: Truth that grading may use, for every clip alike: what the dream was asked to show.
        curves: What the demo draws over time: evaluator to the heading of its plot.
        headline: What the demo says first: evaluator to words.
    """

    env_id: str
    title: str
    suites: tuple[str, ...]
    acting: tuple[Acting, ...]
    shown: tuple[Acting, ...] | None = None
    cases: int
    known: tuple[str, ...] = ()
    curves: Mapping[str, str]
    headline: Mapping[str, str]


WORLDS: Mapping[str, World] = {
    "bounce": World(
        env_id="envs:Bounce-v0",
        title="Bounce",
        suites=("fidelity", "physics", "quality"),
        acting=(
            Acting(
                words="random actions, held for a while",
                make=lambda space, *_: RandomPolicy(space, HELD_FRAMES),
            ),
        ),
        cases=4,
        curves={"psnr": "PSNR / dB", "ssim": "SSIM", "divergence_horizon": "agreement with the truth"},
        headline={"divergence_horizon": "stays with the truth for", "psnr": "PSNR to the truth"},
    ),
    "room": World(
        env_id="envs:Room-v0",
        title="Room",
        # Of fidelity, what holds for a moving camera.
        suites=("psnr", "ssim", "perceptual", "divergence_horizon", "geometry"),
        acting=(
            Acting(words="the camera path 'look_away'", make=lambda *_: follow_path, camera_path="look_away"),
            _WANDER,
        ),
        shown=(
            Acting(
                words="the camera turns away and back",
                make=lambda _, steps, window: TurnAndReturn(steps, window),
            ),
            _WANDER,
        ),
        cases=2,
        known=("depth_m", "world_from_camera", "K", "segmentation", "world_from_object"),
        curves={"psnr": "PSNR / dB", "ssim": "SSIM", "residual_flow": "not explained by the camera"},
        headline={
            "psnr": "PSNR to the truth",
            "residual_flow": "not explained by the commanded camera",
            "camera_following": "camera off its commanded path by",
            "revisit": "kept of a place out of sight",
        },
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
    world: World,
    simulator: Simulator,
    *,
    cases: int,
    frames: int,
    seed: int,
    acting: Sequence[Acting] | None = None,
) -> list[tuple[Episode, str]]:
    """Fresh episodes, and how their actions were chosen: by turns as `acting` says, or else the world."""
    ways = world.acting if acting is None else acting
    window = simulator.checkpoint.model.config.window
    found: list[tuple[Episode, str]] = []
    for turn, way in enumerate(ways):
        count = len(range(turn, cases, len(ways)))
        if not count:
            continue
        path = way.camera_path
        kwargs: dict[str, Any] = {"size": simulator.frame_size} | ({} if path is None else {"camera_path": path})
        with tempfile.TemporaryDirectory() as scratch:
            env = gym.make(world.env_id, **kwargs)
            dataset = record(
                env,
                way.make(env.action_space, frames - 1, window),
                episodes=count,
                seed=FRESH_SEED + seed * len(ways) + turn,
                path=Path(scratch) / "truth",
                max_steps=frames - 1,
                truth=world.known or False,
                progress=False,
            )
            env.close()
            found += [(episode, way.words) for episode in dataset]
    return found


def dream(simulator: Simulator, episodes: Sequence[Episode], *, seed: int) -> np.ndarray:
    """The learned world's video of each episode, from its first frames, actions and caption: (B, T, H, W, 3).

    All episodes are of one length; they are stepped together.
    """
    given = np.stack([e.frames[:GIVEN] for e in episodes])
    actions = np.stack([np.asarray(e.actions) for e in episodes])
    return go_on(simulator, given, actions, [e.caption for e in episodes], seed=seed).frames


def go_on(
    simulator: Simulator, given: np.ndarray, actions: np.ndarray, texts: Sequence[str | None], *, seed: int
) -> Dreamt:
    """Dreams a batch of episodes on from their first frames.

    Args:
        simulator: The learned world.
        given: uint8 (B, GIVEN, H, W, 3).
        actions: (B, T - 1, ...), those between the given frames included.
        texts: A caption of each, or None; left out for a world without text.
        seed: Of the first; the others count up from it.
    """
    known = simulator.checkpoint.model.config.text is not None
    state, _ = simulator.reset(
        frames=given,
        actions=actions[:, : GIVEN - 1],
        text=[text or None for text in texts] if known else None,
        seed=[seed + k for k in range(len(given))],
    )
    frames, rewards, terminated = list(given.swapaxes(0, 1)), [], []
    for t in range(GIVEN - 1, actions.shape[1]):
        step = simulator.step(state, actions[:, t], donate=True)
        state = step.state
        frames.append(step.frames)
        rewards.append(step.rewards)
        terminated.append(step.terminated)
    return Dreamt(*(np.stack(part, axis=1) for part in (frames, rewards, terminated)))


def make_cases(
    world: World,
    simulator: Simulator,
    *,
    cases: int,
    frames: int,
    seed: int,
    acting: Sequence[Acting] | None = None,
) -> list[Case]:
    """Fresh episodes, acted as in `record_truth`, with their dreams and baselines."""
    recorded = record_truth(world, simulator, cases=cases, frames=frames, seed=seed, acting=acting)
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
