"""What the environments share: how an episode begins, and checks."""

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from worldsim.errors import ConfigError, StateError, UnknownNameError
from worldsim.inputs import checked_device
from worldsim.simulator import Sampling, Simulator, load
from worldsim.state import State

_OPTIONS = ("text", "frames", "actions", "camera", "state")
MAX_SEED = 2**31
"""Seeds of episodes lie below."""


class Running:
    """What an environment holds once it has been reset."""

    _state: State | None = None

    @property
    def state(self) -> State:
        """Where the episodes stand; keep it, and pass it to `reset(options={"state": ...})` to come back.

        Raises:
            StateError: Before the first reset.
        """
        if self._state is None:
            raise StateError(expected="a reset before the first step", got="none", remedy="Call env.reset().")
        return self._state


def simulator_of(checkpoint: str | Path | Simulator, sampling: Sampling | None, device: str | None) -> Simulator:
    """The simulator of a checkpoint, sampled in another way if asked for; on the CPU unless told or already elsewhere.

    Raises:
        ConfigError: If a simulator is to be moved: its networks may be in use where they are.
    """
    if isinstance(checkpoint, Simulator):
        if device is not None and checked_device(device) != checkpoint.device:
            raise ConfigError(
                expected=f"the simulator's own device, {checkpoint.device}",
                got=device,
                remedy="Leave `device` out, or load the world there.",
            )
        if sampling is None:
            return checkpoint
        return Simulator(
            checkpoint.checkpoint,
            sampling=sampling,
            device=checkpoint.device,
            precision=checkpoint.precision,
            compiled=checkpoint.compiled,
        )
    return load(checkpoint, sampling=sampling, device=device or "cpu")


def checked_render_mode(mode: str | None) -> str | None:
    """The render mode.

    Raises:
        UnknownNameError: If there is no such mode.
    """
    if mode not in {None, "rgb_array"}:
        raise UnknownNameError(kind="render mode", name=str(mode), known=["rgb_array"])
    return mode


def frames_space(size: tuple[int, int]) -> spaces.Box:
    """Frames (H, W, 3) of a size."""
    return spaces.Box(0, 255, (*size, 3), np.uint8)


def checked_options(options: dict[str, Any] | None, *more: str) -> dict[str, Any]:
    """Options of a reset; `more` names further ones, which are known and left out.

    Raises:
        ConfigError: If they are no mapping.
        UnknownNameError: If one is unknown.
    """
    if options is not None and not isinstance(options, dict):
        raise ConfigError(expected="options as a mapping", got=type(options).__name__, remedy="Pass a dict.")
    for name in options or {}:
        if name not in {*_OPTIONS, *more}:
            raise UnknownNameError(kind="reset option", name=str(name), known=(*_OPTIONS, *more))
    return {name: value for name, value in (options or {}).items() if name in _OPTIONS}


def start(
    simulator: Simulator,
    options: dict[str, Any],
    texts: list[str | None],
    seeds: list[int],
    frame_size: tuple[int, int],
) -> tuple[State, np.ndarray]:
    """The state and the latest frames (B, H, W, 3) with which episodes begin, one for each seed.

    Raises:
        StateError: If a given state is none, of another number of environments, or not alone.
        WorldsimError: What `Simulator.reset` raises.
    """
    state = options.get("state")
    if state is None:
        return simulator.reset(
            frames=options.get("frames"),
            actions=options.get("actions"),
            camera=options.get("camera"),
            text=texts,
            seed=seeds,
            num_envs=len(seeds),
            frame_size=frame_size,
        )
    if not isinstance(state, State) or state.num_envs != len(seeds):
        raise StateError(
            expected=f"a state of {len(seeds)} environments",
            got=state.num_envs if isinstance(state, State) else type(state).__name__,
            remedy="Pass a simulator's state; state.take([...]) gives some of its environments.",
        )
    others = sorted(options.keys() - {"state"})
    if others:
        raise StateError(
            expected="a state alone, which knows its past and its text",
            got=f"{others} beside it",
            remedy="Leave them out.",
        )
    return state, simulator.observe(state)
