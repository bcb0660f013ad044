"""`worldsim record`: episodes of any Gymnasium environment into a dataset."""

import inspect
import json
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import tyro

from envs.policies import RandomPolicy  # importing `envs` registers the worlds
from worldsim.cli.options import Many, flat
from worldsim.data import record
from worldsim.data.rollout import make_env
from worldsim.errors import ConfigError, UnknownNameError

_OWN = frozenset(inspect.signature(record).parameters) - {"env_kwargs"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to record.

    Attributes:
        env_id: Environment, such as envs:Bounce-v0, envs:Room-v0, CartPole-v1 or ALE/Pong-v5.
        out: Directory of the dataset; must not exist.
        episodes: How many.
        seed: Everything random follows from it.
        workers: Processes.
        policy: "random", or module:name of a policy, such as envs.policies:bounce_expert.
        hold: Mean number of steps for which a random action is held.
        max_steps: Longest episode; the environment's own limit if not given.
        resize: Height and width to which frames are resized; our worlds draw at any size by --env size=[96,128].
        fps: Frames per second; the environment's own if not given.
        truth: Store what the environment knows about its frames.
        camera: Store the camera's motion from frame to frame, for worlds that take it as a condition.
        env: Arguments of the environment, as NAME=VALUE; the value is JSON, or else text: scenario=collision.
        progress: Show a progress bar.
    """

    env_id: tyro.conf.Positional[str]
    out: Path
    episodes: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 100
    seed: int = 0
    workers: int = 1
    policy: str = "random"
    hold: float = 1.0
    max_steps: int | None = None
    resize: tuple[int, int] | None = None
    fps: float | None = None
    truth: bool = True
    camera: bool = False
    env: Many[str] = ()
    progress: bool = True


def run(options: Options) -> None:
    """Records, and says what was written."""
    # Recording opens no window; without a display pygame would otherwise look for one.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    _ask_for_prefix(options.env_id)
    env_kwargs = _env_arguments(flat(options.env))
    dataset = record(
        options.env_id,
        _policy(options, env_kwargs),
        episodes=options.episodes,
        seed=options.seed,
        path=options.out,
        max_steps=options.max_steps,
        workers=options.workers,
        truth=options.truth,
        camera=options.camera,
        resize=options.resize,
        fps=options.fps,
        progress=options.progress,
        **env_kwargs,
    )
    height, width = dataset.frame_size
    print(
        f"{dataset.path}: {len(dataset)} episodes, {dataset.num_frames:,} frames of {height}x{width} at "
        f"{dataset.fps:g} frames/s, actions {dataset.action_space}, "
        f"camera {'known' if dataset.has_camera else 'unknown'}, truth {', '.join(dataset.truth_keys) or 'none'}"
    )


def _ask_for_prefix(env_id: str) -> None:
    """Raises where one of our worlds is named without its module: workers could not import it."""
    worlds = [f"envs:{id_}" for id_, spec in gym.registry.items() if str(spec.entry_point).startswith("envs.")]
    if f"envs:{env_id}" in worlds:
        raise UnknownNameError(kind="world", name=env_id, known=worlds)


def _policy(options: Options, env_kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - any callable
    text = options.policy
    if text == "random":
        if options.hold == 1.0:
            return None
        env = make_env(options.env_id, env_kwargs)
        env.close()
        return RandomPolicy(env.action_space, options.hold)
    if options.hold != 1.0:
        raise ConfigError(expected="--hold with the random policy", got=f"--policy {text}", remedy="Leave it out.")
    module, _, name = text.partition(":")
    if not name:
        raise UnknownNameError(kind="policy (or module:name)", name=text, known=["random"])
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            expected=f"a policy at {text}", got=str(error), remedy="Write it as module:name, importable from here."
        ) from error
    return found() if isinstance(found, type) else found


def _env_arguments(pairs: tuple[str, ...]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(
                expected="arguments as NAME=VALUE", got=repr(pair), remedy="Write --env scenario=collision."
            )
        if name in _OWN:
            raise ConfigError(
                expected="arguments of the environment", got=name, remedy="That is an option of its own; see --help."
            )
        arguments[name] = _value(value)
    return arguments


def _value(text: str) -> Any:  # noqa: ANN401 - plain data
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
