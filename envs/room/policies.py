"""Policies for rooms: `policy(observation, info, rng) -> action`, as `worldsim record` takes them."""

from typing import Any

import numpy as np

from envs.room.moves import ACTIONS, MOVES, TURN_RAD

_CELL_M = 0.15
_BORDER_M = 0.3
_CLEARANCES_M = (0.8, 0.65, 0.5, 0.35)
"""Distances to keep from the centres of solids on the way, the widest that leaves a way."""

_AHEAD = 3
_NEIGHBOURS = tuple((dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy)


def follow_path(observation: np.ndarray, info: dict[str, Any], rng: np.random.Generator) -> Any:  # noqa: ANN401, ARG001
    """Follows the camera path that the environment was made or reset with.

    Raises:
        KeyError: If the environment has no path; make it with `camera_path=...`.
    """
    return info["scripted_action"]


class Wander:
    """Random walk with persistence: keeps an action for some steps, so that it gets around.

    Args:
        keep: Probability of repeating the last action.
        continuous: Whether the environment takes continuous actions.
    """

    def __init__(self, keep: float = 0.8, *, continuous: bool = False) -> None:
        self.keep, self.continuous = keep, continuous
        self._last = 0

    def reset(self) -> None:
        """Forgets the last action."""
        self._last = 0

    def __call__(self, observation: np.ndarray, info: dict[str, Any], rng: np.random.Generator) -> Any:  # noqa: ANN401
        """The next action."""
        del observation, info
        if rng.random() >= self.keep:
            # Walking is worth more pictures than looking up and down.
            weights = np.array([1.0, 6.0, 2.0, 2.0, 2.0, 4.0, 4.0, 0.5, 0.5])
            self._last = int(rng.choice(len(ACTIONS), p=weights / weights.sum()))
        return MOVES[self._last].astype(np.float32) if self.continuous else np.int64(self._last)


class Expert:
    """Walks to the solid that the caption names, around the others; reads poses from `info["truth"]`.

    Args:
        continuous: Whether the environment takes continuous actions.
    """

    def __init__(self, *, continuous: bool = False) -> None:
        self.continuous = continuous

    def __call__(self, observation: np.ndarray, info: dict[str, Any], rng: np.random.Generator) -> Any:  # noqa: ANN401
        """The next action: turn towards the next point of a free way to the target, then walk."""
        del observation, rng
        truth, target = info["truth"], info["target"]
        if not target:
            return self._action("stay")
        positions, heading = truth["position_m"][:, :2], truth["world_from_object"][0, :2, 0]
        others = [k for k in np.flatnonzero(truth["present"]).tolist() if k not in (0, target)]
        away = _next_point(positions[0], positions[target], positions[others]) - positions[0]
        wanted = np.arctan2(away[1], away[0])
        turn = wanted - np.arctan2(heading[1], heading[0])
        turn = (turn + np.pi) % (2.0 * np.pi) - np.pi
        if abs(turn) > 0.5 * TURN_RAD:
            return self._action("turn left" if turn > 0 else "turn right", min(abs(turn) / TURN_RAD, 1.0))
        return self._action("forward")

    def _action(self, name: str, amount: float = 1.0) -> Any:  # noqa: ANN401
        index = ACTIONS.index(name)
        return (amount * MOVES[index]).astype(np.float32) if self.continuous else np.int64(index)


def _next_point(start: np.ndarray, goal: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(2,) point to head for on a shortest way over a grid that keeps clear of the others, as far as there is one."""
    points = np.vstack([start, goal, others])
    low, high = points.min(axis=0) - _BORDER_M, points.max(axis=0) + _BORDER_M
    shape = np.ceil((high - low) / _CELL_M).astype(int) + 1
    cells = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) * _CELL_M + low
    nearest = np.min([np.linalg.norm(cells - other, axis=-1) for other in others], axis=0, initial=np.inf)
    at, end = (tuple(np.rint((p - low) / _CELL_M).astype(int)) for p in (start, goal))
    for clearance in _CLEARANCES_M:
        free = nearest >= clearance
        free[at] = free[end] = True
        steps = _steps_to(end, free)
        if np.isfinite(steps[at]):
            for _ in range(_AHEAD):
                around = [(at[0] + dx, at[1] + dy) for dx, dy in _NEIGHBOURS]
                inside = [c for c in around if 0 <= c[0] < shape[0] and 0 <= c[1] < shape[1]]
                at = min(inside, key=lambda c: steps[c])
                if at == end:
                    return goal
            return cells[at]
    return goal


def _steps_to(end: tuple[int, ...], free: np.ndarray) -> np.ndarray:
    """Length of the shortest way from each free cell to the end, diagonals counted as sqrt(2); infinite if none."""
    steps = np.full(np.add(free.shape, 2), np.inf)
    inner = steps[1:-1, 1:-1]
    inner[end] = 0.0
    rows, cols = free.shape
    around = [
        (steps[1 + dx : 1 + dx + rows, 1 + dy : 1 + dy + cols], float(np.hypot(dx, dy))) for dx, dy in _NEIGHBOURS
    ]
    before, relaxed = np.empty(free.shape), np.empty(free.shape)
    while True:
        before[:] = inner
        for shifted, length in around:
            np.add(shifted, length, out=relaxed)
            np.minimum(inner, relaxed, out=inner, where=free)
        if (before == inner).all():
            return inner
