"""Recordings of rooms that can be drawn again with something wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from envs.room.env import RoomEnv, RoomState
from envs.room.rendering import Picture
from envs.room.scene import Scene
from envs.room.textures import NUM_SURFACES
from envs.violations import Record


@dataclass(frozen=True, kw_only=True)
class Edit:
    """How a frame is drawn differently from the state of the world.

    Attributes:
        camera: (4, 4) pose instead of the true one.
        room_shift_m: (3,) shift of the room's textures.
        texture_shift_m: Slot -> (3,) shift of a solid's texture in its own axes.
        offset_m: Slot -> (3,) displacement of a solid.
        scale: Slot -> factor on the size of a solid, which keeps standing on the floor.
        colour: Slot -> linear-light colour of a solid.
    """

    camera: np.ndarray
    room_shift_m: np.ndarray = field(default_factory=lambda: np.zeros(3))
    texture_shift_m: dict[int, np.ndarray] = field(default_factory=dict)
    offset_m: dict[int, np.ndarray] = field(default_factory=dict)
    scale: dict[int, float] = field(default_factory=dict)
    colour: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Take:
    """A lawful recording with what is needed to draw its frames again."""

    env: RoomEnv
    states: list[RoomState]
    record: Record

    @property
    def scene(self) -> Scene:
        """What the room was built from."""
        return self.states[0].scene

    @property
    def cameras(self) -> np.ndarray:
        """(T + 1, 4, 4) world_from_camera of the lawful recording."""
        return self.record.truth["world_from_camera"]

    def shares(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(N,) mean share of the frame that each slot covers in frames start:stop."""
        seen = self.record.truth["segmentation"][start:stop]
        return np.array([(seen == slot + 1).mean() for slot in range(self.env.slots)])

    def draw(self, frame: int, edit: Edit) -> Picture:
        """A frame as edited."""
        stage, world = self.env.restore(self.states[frame]), self.env.world
        tones, shift = stage.textures.tones.copy(), stage.slot_shift_m.copy()
        for slot, colour in edit.colour.items():
            tones[NUM_SURFACES + slot] = colour
        for slot, vector in edit.texture_shift_m.items():
            shift[slot] = vector
        sizes, bounds = world.model.geom_size.copy(), world.model.geom_rbound.copy()
        for slot, factor in edit.scale.items():
            geom = int(np.flatnonzero(world.slot_of_geom == slot)[0])
            world.model.geom_size[geom] *= factor
            world.model.geom_rbound[geom] *= factor
            world.shift_solid(slot, np.array([0.0, 0.0, (factor - 1.0) * world.poses()[slot, 2, 3]]))
        for slot, offset in edit.offset_m.items():
            world.shift_solid(slot, offset)
        textures = replace(stage.textures, tones=tones)
        stage = replace(stage, textures=textures, room_shift_m=edit.room_shift_m, slot_shift_m=shift)
        picture = self.env.renderer.render(stage, edit.camera)
        world.model.geom_size[:], world.model.geom_rbound[:] = sizes, bounds
        return picture


def record(
    rng: np.random.Generator, camera_path: str, size: tuple[int, int], num_frames: int, arguments: Mapping[str, Any]
) -> Take:
    """A lawful recording along a camera path, among solids at rest unless the arguments say otherwise."""
    factors = {"motion": "rest", **arguments.get("factors", {})}
    defaults = {"task": False, "camera_path": camera_path, "episode_frames": num_frames - 1}
    env = RoomEnv(size, **{**defaults, **arguments, "factors": factors})
    frame, info = env.reset(seed=int(rng.integers(2**31)))
    frames, truths, states, actions = [frame], [info["truth"]], [env.get_state()], []
    for _ in range(num_frames - 1):
        actions.append(info["scripted_action"])
        frame, *_, info = env.step(actions[-1])
        frames.append(frame)
        truths.append(info["truth"])
        states.append(env.get_state())
    lawful = Record(
        frames=np.stack(frames),
        actions=np.stack(actions),
        truth={key: np.stack([t[key] for t in truths]) for key in truths[0]},
        fps=float(env.metadata["render_fps"]),
        text=info["caption"],
    )
    return Take(env, states, lawful)
