"""One episode of an environment as rows of a dataset, in blocks of bounded size."""

import copy
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol

import cv2
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from worldsim.camera import camera_motion
from worldsim.data.block import Block, Row, Step
from worldsim.errors import ActionError, ConfigError, DatasetError, FramesError, UnknownNameError
from worldsim.video import check_frames

_BLOCK_BYTES = 4 * 1024 * 1024
POSE = "world_from_camera"
_PROVIDERS = {"ALE": ("ale_py", "worldsim[atari]")}  # namespaces that a package registers only when it is imported


class Policy(Protocol):
    """Chooses actions: any callable of this form. A deep copy plays each episode, so each begins without memory."""

    def __call__(self, observation: Any, info: Mapping[str, Any], rng: np.random.Generator, /) -> Any:  # noqa: ANN401
        """The action for this observation; `rng` is the episode's own source of randomness."""
        ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to record, in a form that travels to worker processes.

    Attributes:
        env: An environment, or what `gymnasium.make` takes.
        env_kwargs: Further arguments of `gymnasium.make`.
        policy: What acts; None takes uniformly random actions.
        seed: Base seed.
        max_steps: Longest episode, or None for the environment's own limit.
        resize: (H, W) of the stored frames, or None for the environment's.
        truth: Keys of `info["truth"]` to store; True for all, False for none.
        camera: Whether to store the camera's motion, from `info["truth"]["world_from_camera"]`.
    """

    env: gym.Env | str | EnvSpec
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    policy: Policy | None = None
    seed: int = 0
    max_steps: int | None = None
    resize: tuple[int, int] | None = None
    truth: bool | tuple[str, ...] = True
    camera: bool = False


@dataclass(frozen=True)
class EpisodeEnd:
    """Follows the last rows of an episode."""

    caption: str | None
    seed: int


def episode_seed(seed: int, index: int) -> int:
    """The seed that episode `index` resets the environment with: below 2^31, and no two episodes of a recording alike.

    The first comes from `numpy.random.SeedSequence(seed)`; an odd stride modulo 2^31 visits every value once.
    """
    first = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return (first + index * 0x9E3779B1) % 2**31


def make_env(env: gym.Env | str | EnvSpec, kwargs: Mapping[str, Any]) -> gym.Env:
    """The environment with frames in its observations, or rendering to arrays if its observations are no frames.

    Raises:
        UnknownNameError: If no environment of that name is registered; the message suggests the nearest.
        ConfigError: If the environment gives no frames, or kwargs were passed along with a made environment.
    """
    if isinstance(env, gym.Env):
        if kwargs:
            raise ConfigError(
                expected="no further arguments with an environment that is made already",
                got=sorted(kwargs),
                remedy="Pass them when you make it, or pass its id here.",
            )
        if not _is_frame_space(env.observation_space) and env.render_mode != "rgb_array":
            raise _no_frames(env)
        return env
    made = _make(env, kwargs)
    if _is_frame_space(made.observation_space):
        return made
    modes = made.metadata.get("render_modes", ())
    if "render_mode" in kwargs or "rgb_array" not in modes:
        if made.render_mode == "rgb_array":
            return made
        made.close()
        raise _no_frames(made)
    made.close()
    return _make(env, {**kwargs, "render_mode": "rgb_array"})


def run_episode(env: gym.Env, job: Job, index: int) -> Iterator[dict[str, np.ndarray] | EpisodeEnd]:
    """Plays episode `index`; yields its rows, block by block, and last an `EpisodeEnd`.

    Raises:
        ActionError: If the policy returns an action outside the action space.
        FramesError: If the environment shows anything but uint8 (H, W, 3).
        DatasetError: If a reward is not finite.
        UnknownNameError: If the truth lacks a key that was asked for, or the pose of the camera.
        CameraError: If that pose is none.
    """
    seed = episode_seed(job.seed, index)
    rng = np.random.default_rng(np.random.SeedSequence(job.seed, spawn_key=(index,)))
    act = _uniform(env.action_space, rng) if job.policy is None else copy.deepcopy(job.policy)
    observation, info = env.reset(seed=seed)
    caption = info.get("caption")
    block = Block(env.action_space, camera=job.camera)
    steps, over = 0, False
    while not over:
        row = Row(_frame(env, observation, job.resize), _truth(info, job.truth))
        pose = _pose(info) if job.camera else None
        action = act(observation, info, rng)
        if not env.action_space.contains(action):
            raise ActionError(expected=f"an action in {env.action_space}", got=repr(action), remedy="Mend the policy.")
        observation, reward, terminated, truncated, info = env.step(action)
        steps += 1
        over = bool(terminated or truncated) or steps == job.max_steps
        if not np.isfinite(float(reward)):
            raise DatasetError(expected="finite rewards", got=reward, remedy="Mend the environment.")
        # Reaching max_steps is a truncation, like the environment's own time limit.
        motion = None if pose is None else camera_motion(np.stack([pose, _pose(info)]))[0]
        block.add(row, Step(action, float(reward), bool(terminated), over and not terminated, motion))
        if block.bytes >= _BLOCK_BYTES:
            yield block.take()
    block.add_last(Row(_frame(env, observation, job.resize), _truth(info, job.truth)))
    yield block.take()
    yield EpisodeEnd(caption, seed)


def _frame(env: gym.Env, observation: Any, size: tuple[int, int] | None) -> np.ndarray:  # noqa: ANN401 - any observation
    frame = observation if _is_frame_space(env.observation_space) else _render(env)
    if not isinstance(frame, np.ndarray):
        raise FramesError(expected="uint8 (H, W, 3) from render()", got=type(frame).__name__, remedy="Wrap it.")
    check_frames(frame[None])
    if size is not None and frame.shape[:2] != size:
        return cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return frame.copy()  # environments may reuse their buffers


def _render(env: gym.Env) -> Any:  # noqa: ANN401 - checked by the caller
    try:
        return env.render()
    except gym.error.DependencyNotInstalled as error:
        raise ConfigError(expected=f"what {env} renders with", got=str(error), remedy="Install it.") from error


def _truth(info: Mapping[str, Any], keys: bool | tuple[str, ...]) -> dict[str, np.ndarray]:  # noqa: FBT001
    given = info.get("truth") or {}
    if keys is False:
        return {}
    if keys is True:
        return {key: np.array(value) for key, value in given.items()}
    for key in keys:
        if key not in given:
            raise UnknownNameError(kind="key of the environment's truth", name=key, known=given)
    return {key: np.array(given[key]) for key in keys}


def _pose(info: Mapping[str, Any]) -> np.ndarray:
    """(4, 4) world_from_camera of the current frame."""
    given = info.get("truth") or {}
    if POSE not in given:
        raise UnknownNameError(kind="key of the environment's truth, which tells the camera,", name=POSE, known=given)
    return np.array(given[POSE], np.float64)


def _uniform(space: spaces.Space, rng: np.random.Generator) -> Callable[..., Any]:
    space.seed(int(rng.integers(2**31)))
    return lambda *_: space.sample()


def _is_frame_space(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[-1] == 3


def _make(env: "str | EnvSpec", kwargs: Mapping[str, Any]) -> gym.Env:
    if isinstance(env, str):
        _import_provider(env)
    name = env if isinstance(env, str) else env.id
    try:
        return gym.make(env, disable_env_checker=True, **kwargs)
    except (gym.error.UnregisteredEnv, gym.error.DeprecatedEnv) as error:
        raise _unknown_env(name) from error
    except ModuleNotFoundError as error:
        raise ConfigError(
            expected=f"the module that registers {name}",
            got=str(error).split(". ")[0],
            remedy="Install it, or mend its name.",
        ) from error
    except (gym.error.Error, TypeError) as error:
        if isinstance(error, TypeError) and "argument" not in str(error):
            raise
        raise ConfigError(expected=f"to make {name}", got=str(error), remedy="See the message.") from error


def _import_provider(name: str) -> None:
    module, extra = _PROVIDERS.get(name.split("/", maxsplit=1)[0], (None, None)) if "/" in name else (None, None)
    if module is None:
        return
    if importlib.util.find_spec(module) is None:
        raise ConfigError(expected=f"{module} for {name}", got="not installed", remedy=f"pip install '{extra}'")
    importlib.import_module(module)


def _unknown_env(name: str) -> UnknownNameError:
    module = name.partition(":")[0] if ":" in name else None
    known = list(gym.registry)
    if module is not None:
        own = [id_ for id_, spec in gym.registry.items() if _module_of(spec) == module]
        known = [f"{module}:{id_}" for id_ in own] or known
    near = get_close_matches(name, known, n=5, cutoff=0.3)
    return UnknownNameError(
        kind="Gymnasium environment; near that name are", name=name, known=near or sorted(known)[:5]
    )


def _module_of(spec: EnvSpec) -> str:
    """The package, or the top-level module, that an environment comes from."""
    entry = spec.entry_point
    path = getattr(entry, "__module__", "") if callable(entry) else str(entry)
    return path.partition(":")[0].partition(".")[0]


def _no_frames(env: gym.Env) -> ConfigError:
    return ConfigError(
        expected="an environment that observes uint8 (H, W, 3) or renders to 'rgb_array'",
        got=f"{env} with observations {env.observation_space} and render_mode {env.render_mode!r}",
        remedy="Make it with render_mode='rgb_array'.",
    )
