"""From a running world to what the renderer draws."""

import numpy as np

from envs.captions import COLOURS
from envs.room.casting import Stage
from envs.room.physics import World
from envs.room.textures import make_textures


def linear_colour(name: str) -> np.ndarray:
    """(3,) linear-light colour of a named sRGB colour (IEC 61966-2-1)."""
    encoded = np.asarray(COLOURS[name], float) / 255.0
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def stage_of(world: World) -> Stage:
    """The stage that follows a world: it shares MuJoCo's data, so it is drawn as the world stands at that moment."""
    scene, num = world.scene, world.num_slots
    colours, radii = np.zeros((num, 3)), np.ones(num)
    for slot, solid in enumerate(scene.solids, start=1):
        colours[slot], radii[slot] = linear_colour(solid.colour), solid.radius_m
    return Stage(
        model=world.model,
        data=world.data,
        slot_of_geom=world.slot_of_geom,
        solid_geoms=np.flatnonzero(world.slot_of_geom > 0),
        room_m=np.asarray(scene.room_m, float),
        lights_m=np.asarray(scene.lights_m, float),
        light_power=scene.light_power,
        textures=make_textures(scene.texture_seed, colours, radii),
        room_shift_m=np.zeros(3),
        slot_shift_m=np.zeros((num, 3)),
    )
