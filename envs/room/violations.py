"""Broken geometry on purpose: matched pairs of a lawful and a violated clip of the same room.

Both clips come from one seed: the same room, solids, textures, light and actions. The violated one is drawn by the same
renderer, with one thing wrong that grows continuously with severity, from nothing at 0. Its truth is that of the
lawful clip: what was *commanded*. An evaluator that compares the pixels with it has to find the disagreement.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np

from envs.captions import COLOURS
from envs.errors import SceneError, UnknownNameError
from envs.room.film import Edit, Take, record
from envs.room.moves import MOVES, commanded_poses
from envs.room.staging import linear_colour
from envs.violations import Maker, Record, check_severity

WOBBLE_RAD = float(np.radians(3.0))
WOBBLE_M = 0.05
SWIM_M_PER_FRAME = 0.03
POP_FRAMES = 3
DRIFT = 1.6
FORGET_M = 0.8
FLOAT_M = 0.7
"""Greatest disturbances, at severity 1."""

_ATTEMPTS = 40
_LEAST_SHARE = 0.01
"""Share of the frame that a solid must cover to be worth violating."""


_Edits = list[Edit | None]


@dataclass(frozen=True)
class Recipe:
    """How a violation is made.

    Attributes:
        paths: Camera paths that show it.
        edits: Take, severity and generator to an edit for each frame (None: drawn as it is), or None where the take
            cannot show the violation.
        meaning: What goes wrong, in words.
    """

    paths: tuple[str, ...]
    edits: Callable[[Take, float, np.random.Generator], _Edits | None]
    meaning: str


def pair(
    name: str,
    seed: int,
    severity: float,
    *,
    size: tuple[int, int] = (64, 64),
    num_frames: int = 32,
    camera_path: str | None = None,
    env: Mapping[str, Any] | None = None,
) -> tuple[Record, Record]:
    """A lawful recording and the same one with one law broken; `envs.violations.pair` with more to choose.

    Args:
        name: One of `VIOLATIONS`.
        seed: Decides the room, the path and the direction of the disturbance; severity does not change them.
        severity: 0 (none: the frames are equal) to 1.
        size: Height and width of the frames.
        num_frames: Frames of each recording, T + 1.
        camera_path: By default one that suits the violation, drawn with the seed.
        env: Further arguments of `RoomEnv`.

    Returns:
        lawful, violated: The violated one has the truth, actions and caption of the lawful one.

    Raises:
        UnknownNameError: If there is no such violation or path.
        SeverityError: If severity is outside [0, 1].
        SceneError: If there are fewer than 4 frames, or no room suits.
    """
    if name not in RECIPES:
        raise UnknownNameError(kind="violation", name=str(name), known=RECIPES)
    if num_frames < 4:
        raise SceneError(expected="at least 4 frames", got=num_frames, remedy="Ask for more frames.")
    severity = check_severity(severity)
    lawful, violated = _make(
        RECIPES[name], np.random.default_rng(seed), severity, size, num_frames, camera_path, env or {}
    )
    return lawful, replace(violated, name=name, severity=severity, onset=violated.onset if severity > 0 else None)


def _make(
    recipe: Recipe,
    rng: np.random.Generator,
    severity: float,
    size: tuple[int, int],
    num_frames: int = 32,
    camera_path: str | None = None,
    env: Mapping[str, Any] | None = None,
) -> tuple[Record, Record]:
    for _ in range(_ATTEMPTS):
        take = record(rng, camera_path or str(rng.choice(recipe.paths)), size, num_frames, env or {})
        edits = recipe.edits(take, severity, rng)
        if edits is None:
            continue
        frames = take.record.frames
        changed = [t for t, edit in enumerate(edits) if edit is not None]
        if severity > 0:
            frames = frames.copy()
            for t in changed:
                frames[t] = take.draw(t, cast("Edit", edits[t])).rgb
        return take.record, replace(take.record, frames=frames, onset=changed[0])
    raise SceneError(
        expected=f"a room that can show: {recipe.meaning}",
        got=f"none in {_ATTEMPTS} attempts",
        remedy="Allow more objects, more frames, or another path.",
    )


def _pick(take: Take, rng: np.random.Generator) -> int | None:
    """A slot that is seen well, or None."""
    good = np.flatnonzero(take.shares() >= _LEAST_SHARE)
    return int(rng.choice(good)) if len(good) else None


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _camera_wobble(take: Take, severity: float, rng: np.random.Generator) -> _Edits:
    edits: _Edits = [None]
    for camera in take.cameras[1:]:
        # Within two standard deviations the lens stays inside the walker's body, so inside the room.
        turn, shift = np.clip(rng.normal(size=(2, 3)), -2.0, 2.0) * severity
        pose = camera.copy()
        pose[:3, :3] = camera[:3, :3] @ _rotation(turn * WOBBLE_RAD)
        pose[:3, 3] += shift * WOBBLE_M
        edits.append(Edit(camera=pose))
    return edits


def _rotation(vector: np.ndarray) -> np.ndarray:
    """(3, 3) rotation by a rotation vector (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    if angle == 0.0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross


def _texture_swim_object(take: Take, severity: float, rng: np.random.Generator) -> _Edits | None:
    slot = _pick(take, rng)
    if slot is None:
        return None
    step = _unit(rng.normal(size=3)) * SWIM_M_PER_FRAME * severity
    later = enumerate(take.cameras[1:], start=1)
    return [None, *(Edit(camera=camera, texture_shift_m={slot: step * t}) for t, camera in later)]


def _texture_swim_room(take: Take, severity: float, rng: np.random.Generator) -> _Edits:
    # All three axes take part, so that the texture moves on every face.
    step = _unit(rng.choice([-1.0, 1.0], size=3) * rng.uniform(0.5, 1.0, size=3)) * SWIM_M_PER_FRAME * severity
    later = enumerate(take.cameras[1:], start=1)
    return [None, *(Edit(camera=camera, room_shift_m=step * t) for t, camera in later)]


def _object_popping(take: Take, severity: float, rng: np.random.Generator) -> _Edits | None:
    slot, phase = _pick(take, rng), int(rng.integers(1, POP_FRAMES + 1))
    if slot is None:
        return None
    # Rays need a solid of some size; a thousandth is far below a pixel.
    scale = max(1.0 - severity, 1e-3)
    return [
        Edit(camera=camera, scale={slot: scale}) if t >= phase and (t - phase) // POP_FRAMES % 2 == 0 else None
        for t, camera in enumerate(take.cameras)
    ]


def _is_free(take: Take, poses: np.ndarray) -> bool:
    """Whether a camera on these poses (T + 1, 4, 4) stays in the room and out of the solids."""
    lens, half = poses[:, :3, 3], np.array(take.scene.room_m[:2]) / 2
    away = np.linalg.norm(take.record.truth["position_m"][:, 1:] - lens[:, None], axis=2)
    radius = np.array([solid.radius_m for solid in take.scene.solids])
    return bool((np.abs(lens[:, :2]) < half).all() and (away[:, : len(radius)] > radius).all())


def _other_way(take: Take, severity: float, way: Callable[[float], np.ndarray]) -> _Edits | None:
    """Draws the camera on `way(severity)`; None if it is not free at any severity, so that all severities agree."""
    if not all(_is_free(take, way(s)) for s in np.linspace(0.0, 1.0, 11)):
        return None
    return [None, *(Edit(camera=pose) for pose in way(severity)[1:])]


def _scale_drift(take: Take, severity: float, rng: np.random.Generator) -> _Edits | None:
    del rng

    def way(share: float) -> np.ndarray:
        # To a camera in a world that has grown by s, its own way seems s times shorter.
        grown = (1.0 + (DRIFT - 1.0) * share) ** np.linspace(0.0, 1.0, len(take.cameras))
        poses, start = take.cameras.copy(), take.cameras[0, :3, 3]
        poses[:, :3, 3] = start + (poses[:, :3, 3] - start) / grown[:, None]
        return poses

    return _other_way(take, severity, way)


def _ignored_actions(take: Take, severity: float, rng: np.random.Generator) -> _Edits | None:
    del rng
    state, actions = take.states[0], take.record.actions
    moves = actions if take.env.continuous else MOVES[actions]
    x, y = take.cameras[0, :2, 3].tolist()
    return _other_way(
        take, severity, lambda share: commanded_poses((x, y), state.yaw_rad, state.pitch_rad, moves * (1.0 - share))
    )


def _world_forgotten(take: Take, severity: float, rng: np.random.Generator) -> _Edits | None:
    """Solids that were seen have moved and changed colour once none of them is in view."""
    seen = np.flatnonzero(take.shares(0, 1) >= _LEAST_SHARE).tolist()
    in_view = np.array([np.isin(s, np.add(seen, 1)).mean() for s in take.record.truth["segmentation"]])
    hidden = np.flatnonzero(in_view == 0.0)
    if not seen or not len(hidden) or not (in_view[hidden[0] :] > _LEAST_SHARE).any():
        return None
    half = np.array(take.scene.room_m[:2]) / 2
    moved, colour = {}, {}
    for slot in seen:
        solid, position = take.scene.solids[slot - 1], take.record.truth["position_m"][0, slot, :2]
        reach, angle = half - solid.radius_m, rng.uniform(-np.pi, np.pi)
        goal = np.clip(position + FORGET_M * np.array([np.cos(angle), np.sin(angle)]), -reach, reach)
        moved[slot] = np.array([*(goal - position), 0.0])
        other = str(rng.choice([name for name in COLOURS if name != solid.colour]))
        colour[slot] = (1.0 - severity) * linear_colour(solid.colour) + severity * linear_colour(other)
    start = int(hidden[0])
    # The change has to happen out of sight, also at full severity.
    if np.isin(take.draw(start, Edit(camera=take.cameras[start], offset_m=moved)).segmentation, np.add(seen, 1)).any():
        return None
    offset = {slot: vector * severity for slot, vector in moved.items()}
    late = [Edit(camera=camera, offset_m=offset, colour=colour) for camera in take.cameras[start:]]
    return [None] * start + late


def _impossible_support(take: Take, severity: float, rng: np.random.Generator) -> _Edits | None:
    slot = _pick(take, rng)
    if slot is None:
        return None
    top = take.record.truth["position_m"][0, slot, 2] + take.scene.solids[slot - 1].radius_m
    lift = np.array([0.0, 0.0, min(FLOAT_M, take.scene.room_m[2] - top) * severity])
    return [Edit(camera=camera, offset_m={slot: lift}) for camera in take.cameras]


RECIPES: dict[str, Recipe] = {
    "camera_wobble": Recipe(("dolly", "orbit", "loop"), _camera_wobble, "the view shakes though the camera does not"),
    "texture_swim_object": Recipe(("dolly", "orbit"), _texture_swim_object, "a solid's texture slides over it"),
    "texture_swim_room": Recipe(("dolly", "orbit"), _texture_swim_room, "the room's texture slides over its faces"),
    "object_popping": Recipe(("dolly", "orbit"), _object_popping, "a solid shrinks or vanishes again and again"),
    "scale_drift": Recipe(("dolly",), _scale_drift, "the world grows while the camera moves through it"),
    "ignored_actions": Recipe(("orbit", "dolly", "look_away"), _ignored_actions, "the camera obeys only in part"),
    "world_forgotten": Recipe(("look_away",), _world_forgotten, "solids are other than before looking away"),
    "impossible_support": Recipe(("dolly", "orbit"), _impossible_support, "a solid hangs in the air"),
}
"""Name -> how it is made. With severity s, at most: wobble of s·3° and s·5 cm a frame and axis (standard deviation);
textures sliding s·3 cm a frame; a solid s smaller for 3 of 6 frames; a world that ends up 1 + 0.6·s times as large;
moves of 1 - s of what was asked; solids s·0.8 m away and recoloured; a solid s·0.7 m above the floor."""

VIOLATIONS: dict[str, Maker] = {name: partial(_make, recipe) for name, recipe in RECIPES.items()}
