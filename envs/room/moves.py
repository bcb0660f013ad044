"""What the walker can do in a frame, and where that takes an unobstructed one."""

import numpy as np

from envs.room.camera import world_from_camera
from envs.room.scene import EYE_HEIGHT_M

ACTIONS = ("stay", "forward", "back", "left", "right", "turn left", "turn right", "look up", "look down")
"""Names of the discrete actions."""

STEP_M = 0.15
TURN_RAD = float(np.radians(7.5))
PITCH_LIMIT_RAD = float(np.radians(45.0))

MOVES = np.zeros((len(ACTIONS), 4))
"""(9, 4) each discrete action as a continuous one: forward, left, turn left, look up."""
for _index in range(1, len(ACTIONS)):
    MOVES[_index, (_index - 1) // 2] = 1.0 if _index % 2 else -1.0


def displacement_m(move: np.ndarray, yaw_rad: float) -> np.ndarray:
    """(2,) way that a move (4,) covers from a heading."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return STEP_M * np.array([move[0] * cos - move[1] * sin, move[0] * sin + move[1] * cos])


def turned(move: np.ndarray, yaw_rad: float, pitch_rad: float) -> tuple[float, float]:
    """Heading, in (-pi, pi], and elevation after a move (4,)."""
    yaw = yaw_rad + move[2] * TURN_RAD
    pitch = np.clip(pitch_rad + move[3] * TURN_RAD, -PITCH_LIMIT_RAD, PITCH_LIMIT_RAD)
    return float((yaw + np.pi) % (2.0 * np.pi) - np.pi), float(pitch)


def commanded_poses(start_m: tuple[float, float], yaw_rad: float, pitch_rad: float, moves: np.ndarray) -> np.ndarray:
    """Camera path of a walker that nothing obstructs.

    Args:
        start_m: (x, y) at the start.
        yaw_rad: Heading at the start.
        pitch_rad: Elevation at the start.
        moves: (T, 4) continuous actions; `MOVES[actions]` for discrete ones.

    Returns:
        (T + 1, 4, 4) world_from_camera.
    """
    position, poses = np.array(start_m, float), []
    for move in [np.zeros(4), *np.asarray(moves, float)]:
        position = position + displacement_m(move, yaw_rad)
        yaw_rad, pitch_rad = turned(move, yaw_rad, pitch_rad)
        poses.append(world_from_camera(np.array([*position, EYE_HEIGHT_M]), yaw_rad, pitch_rad))
    return np.stack(poses)
