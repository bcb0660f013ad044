"""Scripted camera paths, as actions: orbit, dolly, look-away-and-return, loop, random walk.

All close or return exactly where nothing obstructs the walker, because steps and turns are equal: strafing and turning
in a fixed ratio walks a regular polygon, four sides and four right angles a square.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from envs.errors import SceneError, UnknownNameError
from envs.room.moves import ACTIONS, MOVES, commanded_poses, displacement_m, turned
from envs.room.scene import WALKER_RADIUS_M

_STAY, _FORWARD, _BACK, _LEFT, _RIGHT, _TURN_LEFT, _TURN_RIGHT, _UP, _DOWN = range(len(ACTIONS))
_QUARTER = 12
"""Turns in 90 degrees."""

_MARGIN_M = WALKER_RADIUS_M + 0.08


@dataclass(frozen=True, kw_only=True, eq=False)
class Script:
    """A camera path in a room.

    Attributes:
        name: One of `PATHS`.
        actions: (T,) int64 discrete actions.
        start_m: (x, y) from which the path stays inside the room.
        yaw_rad: Heading at the start.
        pitch_rad: Elevation at the start.
    """

    name: str
    actions: np.ndarray
    start_m: tuple[float, float]
    yaw_rad: float
    pitch_rad: float

    def poses(self) -> np.ndarray:
        """(T + 1, 4, 4) world_from_camera of a walker that nothing obstructs."""
        return commanded_poses(self.start_m, self.yaw_rad, self.pitch_rad, MOVES[self.actions])


def _cycle(block: list[int], num_steps: int) -> np.ndarray:
    return np.resize(np.array(block, np.int64), num_steps)


def _orbit(num_steps: int, rng: np.random.Generator) -> np.ndarray:
    # Three side steps to two turns: a circle of about 1.7 m that closes after 120 steps.
    side, turn = (_RIGHT, _TURN_LEFT) if rng.random() < 0.5 else (_LEFT, _TURN_RIGHT)
    return _cycle([side, turn, side, turn, side], num_steps)


def _dolly(num_steps: int, rng: np.random.Generator) -> np.ndarray:
    reach = int(rng.integers(10, 15))
    return _cycle([_FORWARD] * reach + [_STAY] + [_BACK] * reach + [_STAY], num_steps)


def _look_away(num_steps: int, rng: np.random.Generator) -> np.ndarray:
    away, back = (_TURN_LEFT, _TURN_RIGHT) if rng.random() < 0.5 else (_TURN_RIGHT, _TURN_LEFT)
    turns = int(rng.integers(_QUARTER, 2 * _QUARTER - 3))
    rest = int(rng.integers(2, 5))
    return _cycle([_STAY] * rest + [away] * turns + [_STAY] * rest + [back] * turns, num_steps)


def _loop(num_steps: int, rng: np.random.Generator) -> np.ndarray:
    side = int(rng.integers(9, 14))
    turn = _TURN_LEFT if rng.random() < 0.5 else _TURN_RIGHT
    return _cycle([_FORWARD] * side + [turn] * _QUARTER, num_steps)


_MAKERS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "orbit": _orbit,
    "dolly": _dolly,
    "look_away": _look_away,
    "loop": _loop,
}
_CENTRED = ("orbit", "loop")
PATHS = (*_MAKERS, "random_walk")
"""Names of the scripted paths."""


def script(
    name: str, room_m: tuple[float, float, float], rng: np.random.Generator, num_steps: int, pitch_rad: float = -0.15
) -> Script:
    """Draws a path of a kind that stays inside a room.

    Args:
        name: One of `PATHS`.
        room_m: Length, width and height of the room.
        rng: Draws sizes, directions and, for the random walk, every action.
        num_steps: Number of actions; paths repeat when done.
        pitch_rad: Elevation of the camera.

    Raises:
        UnknownNameError: If there is no such path.
        SceneError: If the room is too small for it.
    """
    if name not in PATHS:
        raise UnknownNameError(kind="camera path", name=str(name), known=PATHS)
    inner = np.array(room_m[:2]) / 2 - _MARGIN_M
    if name == "random_walk":
        return _random_walk(inner, rng, num_steps, pitch_rad)
    actions = _MAKERS[name](num_steps, rng)
    for yaw in rng.uniform(-np.pi, np.pi, size=64):
        start = np.zeros(2)
        if name not in _CENTRED:
            # From the end of the room towards its middle.
            start = -np.array([np.cos(yaw), np.sin(yaw)]) * (inner - 0.2)
        track = commanded_poses((start[0], start[1]), float(yaw), pitch_rad, MOVES[actions])[:, :2, 3]
        if name in _CENTRED:
            track = track - (track.min(axis=0) + track.max(axis=0)) / 2
        if (np.abs(track) <= inner).all():
            x, y = track[0]
            return Script(
                name=name, actions=actions, start_m=(float(x), float(y)), yaw_rad=float(yaw), pitch_rad=pitch_rad
            )
    raise SceneError(expected=f"a room in which the path {name!r} fits", got=room_m, remedy="Enlarge room_m.")


def _random_walk(inner: np.ndarray, rng: np.random.Generator, num_steps: int, pitch_rad: float) -> Script:
    """Keeps an action for a few steps, then draws another; turns well away where a step would leave the room."""
    start = position = rng.uniform(-inner, inner)
    heading = yaw = float(np.arctan2(-start[1], -start[0]))
    actions, action, tilt, escape = [], _FORWARD, pitch_rad, 0
    weights = np.array([1.0, 8.0, 2.0, 2.0, 2.0, 4.0, 4.0, 0.5, 0.5])
    for _ in range(num_steps):
        escape -= 1
        if escape < 0 and rng.random() < 0.25:
            action = int(rng.choice(len(ACTIONS), p=weights / weights.sum()))
        if (np.abs(position + displacement_m(MOVES[action], heading)) > inner).any():
            action, escape = int(rng.choice([_TURN_LEFT, _TURN_RIGHT])), int(rng.integers(_QUARTER, 2 * _QUARTER))
        actions.append(action)
        position = position + displacement_m(MOVES[action], heading)
        heading, tilt = turned(MOVES[action], heading, tilt)
    return Script(
        name="random_walk",
        actions=np.array(actions, np.int64),
        start_m=(float(start[0]), float(start[1])),
        yaw_rad=yaw,
        pitch_rad=pitch_rad,
    )
