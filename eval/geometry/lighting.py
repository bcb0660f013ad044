"""Where light, not geometry, changes the picture: shadows of moving objects, and shading on objects that turn.

Warping assumes that a surface keeps its brightness. It does not where the shadow of a moving object passes over it, nor
on an object that turns: texture turns along, shading stays with the light. The light is unknown, so what it may have
changed is not tested. That costs coverage and hides no violation elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.geometry.pose import unproject

# Light comes from above: the highest angle to the vertical under which it is expected.
_LIGHT_ANGLE_RAD = np.radians(65.0)
# Shadows lie this many radii around an object at least, from whatever side light comes: it may lean against a wall.
_CONTACT_RADII = 2.5
# Movement below this is a solver's rest.
STILL_M, STILL_RAD = 1e-3, 1e-2


@dataclass(frozen=True)
class Ball:
    """A sphere around an object: its label in the segmentation, centre (3,) in the world, radius in metres."""

    label: int
    centre_m: np.ndarray
    radius_m: float


def moves(world_from_object: np.ndarray) -> np.ndarray:
    """Which objects of poses (T, N, 4, 4) move or turn at all: (N,) bool."""
    step = np.abs(np.diff(world_from_object, axis=0)).max(axis=0, initial=0.0)
    return (step[:, :3, 3].max(axis=1) > STILL_M) | (step[:, :3, :3].max(axis=(1, 2)) > STILL_RAD)


def moving_balls(
    depth_m: np.ndarray,
    segmentation: np.ndarray,
    world_from_camera: np.ndarray,
    K: np.ndarray,
    world_from_object: np.ndarray | None,
) -> list[list[Ball]]:
    """Spheres around the objects that move, frame by frame; objects of unknown motion count as moving.

    The size of an object is the largest extent at which any frame shows it; one that no frame shows is left out.

    Args:
        depth_m: (T, H, W).
        segmentation: (T, H, W).
        world_from_camera: (T, 4, 4).
        K: (3, 3), pixels.
        world_from_object: (T, N, 4, 4), or None.
    """
    labels = np.unique(segmentation[segmentation > 0])
    if world_from_object is not None:
        moving = moves(world_from_object)
        labels = np.array([k for k in labels if k > len(moving) or moving[k - 1]], int)
    seen: dict[int, list[tuple[int, Ball]]] = {int(k): [] for k in labels}
    for t in range(len(segmentation)):
        here = [k for k in seen if (segmentation[t] == k).any()]
        if not here:
            continue
        valid = np.isfinite(depth_m[t]) & (depth_m[t] > 0)
        points = unproject(np.where(valid, depth_m[t], 1.0), K)
        points = world_from_camera[t, :3, :3] @ points + world_from_camera[t, :3, 3:]
        for k in here:
            own = points[:, (valid & (segmentation[t] == k)).ravel()]
            if own.size:
                centre = (own.min(axis=1) + own.max(axis=1)) / 2.0
                seen[k].append((t, Ball(k, centre, float(np.linalg.norm(own - centre[:, None], axis=0).max()))))
    balls: list[list[Ball]] = [[] for _ in segmentation]
    for k, found in seen.items():
        if not found:
            continue
        radius = max(ball.radius_m for _, ball in found)
        if world_from_object is not None and k <= world_from_object.shape[1]:
            for t in range(len(segmentation)):
                balls[t].append(Ball(k, world_from_object[t, k - 1, :3, 3], radius))
        else:
            for t, ball in found:
                balls[t].append(Ball(k, ball.centre_m, radius))
    return balls


def may_be_shaded(points: np.ndarray, labels: np.ndarray, balls: Sequence[Ball]) -> np.ndarray:
    """Which points the shadow of one of the balls may reach: (N,) bool.

    Args:
        points: (3, N) in the world, z up.
        labels: (N,) objects to which the points belong; an object's own ball does not count for it.
        balls: See `moving_balls`.
    """
    shaded = np.zeros(points.shape[1], bool)
    for ball in balls:
        up = ball.centre_m[:, None] - points
        distance = np.maximum(np.linalg.norm(up, axis=0), 1e-9)
        angle = np.arccos(np.clip(up[2] / distance, -1.0, 1.0))
        own = np.arcsin(np.minimum(ball.radius_m / distance, 1.0))
        reached = (distance < _CONTACT_RADII * ball.radius_m) | (angle - own < _LIGHT_ANGLE_RAD)
        shaded |= reached & (labels != ball.label)
    return shaded


def turned_m(points: np.ndarray, labels: np.ndarray, then: np.ndarray | None, now: np.ndarray | None) -> np.ndarray:
    """How far each point moves because its object turns, in metres: texture moves so far against the shading; (N,).

    Args:
        points: (3, N) in the world, at the time of `then`.
        labels: (N,) 0 background, k+1 the object in slot k.
        then: (N_objects, 4, 4) poses, or None where unknown: then nothing is known to turn.
        now: (N_objects, 4, 4).
    """
    moved = np.zeros(points.shape[1])
    if then is None or now is None:
        return moved
    for k in np.unique(labels[labels > 0]):
        if k <= len(then) and not np.array_equal(then[k - 1, :3, :3], now[k - 1, :3, :3]):
            here = labels == k
            arm = points[:, here] - then[k - 1, :3, 3:]
            turn = now[k - 1, :3, :3] @ then[k - 1, :3, :3].T
            moved[here] = np.linalg.norm(turn @ arm - arm, axis=0)
    return moved
