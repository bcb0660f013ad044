"""Where rays meet a room: nearest surfaces and shadows, in closed form or by MuJoCo, exact and without OpenGL."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.room.engine import mj
from envs.room.textures import NUM_SURFACES, Textures

_SHADOW_EPS = 1e-6
_SOLID_GROUPS = np.array([0, 1, 0, 0, 0, 0], np.uint8)
"""MuJoCo geom groups that are drawn: solids are in group 1, walls and the walker in group 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """What there is to draw, in arrays.

    Attributes:
        model, data: MuJoCo model and data with up-to-date kinematics; geoms of group 1 are drawn.
        slot_of_geom: (ngeom,) int, object slot of each geom.
        solid_geoms: (n,) int, the geoms of the solids.
        room_m: (3,) length, width, height; the room spans [-L/2, L/2] x [-W/2, W/2] x [0, H].
        lights_m: (L, 3) point lights.
        light_power: Radiance scale of the sum of the lights.
        textures: Their surfaces are the six faces, then the object slots.
        room_shift_m: (3,) offset at which the room's textures are read; zero in a lawful world.
        slot_shift_m: (N, 3) the same for the solids, in their own axes.
    """

    model: Any
    data: Any
    slot_of_geom: np.ndarray
    solid_geoms: np.ndarray
    room_m: np.ndarray
    lights_m: np.ndarray
    light_power: float
    textures: Textures
    room_shift_m: np.ndarray
    slot_shift_m: np.ndarray


@dataclass(frozen=True, eq=False)
class Hits:
    """Where P rays meet the scene, components first: rays (3, P), depth (P,), surface (P,) int16, normal (3, P)."""

    rays: np.ndarray
    depth: np.ndarray
    surface: np.ndarray
    normal: np.ndarray


@dataclass(frozen=True, eq=False)
class Cones:
    """Where the bounding spheres of the solids lie, seen from a point.

    Attributes:
        apex: (3,) the point.
        axes: (n, 3) float32, from the point to the centres.
        bounds: (n, 1) float32. A ray of unit direction d meets a sphere iff d·axis >= bound.
    """

    apex: np.ndarray
    axes: np.ndarray
    bounds: np.ndarray


def cones(stage: Stage, apex: np.ndarray) -> Cones:
    """The cones of all solids seen from a point (3,)."""
    towards = stage.data.geom_xpos[stage.solid_geoms] - apex
    # Widened by more than the single precision of this test can err.
    radius = stage.model.geom_rbound[stage.solid_geoms] * 1.001 + 1e-4
    reach = np.square(towards).sum(axis=1) - radius**2
    # A ray of direction d meets a sphere around c iff d·c >= |d| sqrt(|c|² - r²); from inside, every ray does.
    bounds = np.where(reach > 0.0, np.sqrt(np.maximum(reach, 0.0)), -1e9)
    return Cones(np.ascontiguousarray(apex), towards.astype(np.float32), bounds[:, None].astype(np.float32))


def joined(first: Hits, second: Hits) -> Hits:
    """The hits of both, one after the other."""
    return Hits(
        np.concatenate([first.rays, second.rays], axis=1),
        np.concatenate([first.depth, second.depth]),
        np.concatenate([first.surface, second.surface]),
        np.concatenate([first.normal, second.normal], axis=1),
    )


def reordered(hits: Hits, order: np.ndarray) -> Hits:
    """Hits in another order and in single precision, which is enough for colour."""
    rays, normal = (rows.astype(np.float32).take(order, axis=1) for rows in (hits.rays, hits.normal))
    return Hits(rays, hits.depth.astype(np.float32).take(order), hits.surface.take(order), normal)


def cast(stage: Stage, seen: Cones, rays: np.ndarray, directions: np.ndarray) -> Hits:
    """Nearest surfaces along rays (3, P) from the apex of cones; the ray parameter is the depth.

    `directions` (3, P) float32 are the rays divided by their lengths.
    """
    origin = seen.apex
    length, width, height = stage.room_m
    low = np.array([-length / 2, -width / 2, 0.0]) - origin
    high = np.array([length / 2, width / 2, height]) - origin
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / rays
        # Inside a box the ray leaves each pair of faces where it is farther along; 0 * inf is a ray in the face itself.
        reach = low[:, None] * inverse
        inverse *= high[:, None]
        np.fmax(reach, inverse, out=reach)
    depth = np.minimum(np.minimum(reach[0], reach[1]), reach[2])
    surface = np.full(len(depth), 4, np.int16)
    surface[reach[1] == depth] = 2
    surface[reach[0] == depth] = 0
    place = (surface >> 1).astype(np.intp) * len(depth) + np.arange(len(depth))
    positive = rays.ravel().take(place) > 0.0
    surface += positive
    normal = np.zeros(rays.shape)
    normal.ravel()[place] = 1.0 - 2.0 * positive
    near, distance, geom, geom_normal = _cast_solids(stage, seen, rays, directions)
    keep = (geom >= 0) & (distance < depth[near])
    near = near[keep]
    depth[near], normal[:, near] = distance[keep], geom_normal[keep].T
    surface[near] = NUM_SURFACES + stage.slot_of_geom[geom[keep]]
    return Hits(rays, depth, surface, normal)


def _cast_solids(
    stage: Stage, seen: Cones, rays: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Casts the rays (3, P) that pass a bounding sphere: (index of the ray, distance, geom or -1, normal) of those."""
    near = np.flatnonzero((seen.axes @ directions >= seen.bounds).any(axis=0))
    num = len(near)
    geom, distance, normal = np.full(num, -1, np.int32), np.full(num, -1.0), np.zeros((num, 3))
    if num:
        mj.mj_multiRay(
            stage.model,
            stage.data,
            pnt=seen.apex,
            vec=rays.take(near, axis=1).T.reshape(-1),
            geomgroup=_SOLID_GROUPS,
            flg_static=1,
            bodyexclude=-1,
            geomid=geom,
            dist=distance,
            normal=normal.reshape(-1),
            nray=num,
            cutoff=1e6,
        )
    return near, distance, geom, normal


def irradiance(
    stage: Stage, lamps: Sequence[Cones], origin: np.ndarray, hits: Hits, suspects: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Light that arrives where rays hit: Lambert's cosine law, with a falloff of half an inverse square.

    Args:
        stage: The scene.
        lamps: The cones of each light.
        origin: (3,) where the rays start.
        hits: Where P rays hit.
        suspects: (P,) bool, points that may lie in shadow; all without it.

    Returns:
        light: (P,) float32.
        shadows: (P,) int16, bit l set where light l faces the surface but something stands between.
    """
    # The ambient part stands for light that walls and floor return: upward faces get most, the ceiling a little less.
    total = (0.42 + 0.04 * hits.normal[2]).astype(np.float32)
    shadows = np.zeros(len(total), np.int16)
    points = hits.depth * hits.rays
    for index, lamp in enumerate(lamps):
        beam = points + (origin - lamp.apex)[:, None]
        squared = np.einsum("ip,ip->p", beam, beam)
        # Constant exposure has to hold from corner to corner.
        lengths = np.sqrt(squared)
        strength = -np.einsum("ip,ip->p", beam, hits.normal) / (lengths * (1.0 + 0.06 * squared))
        facing = strength > 0.0
        tested = np.flatnonzero(facing if suspects is None else facing & suspects)
        beam = beam.take(tested, axis=1)
        directions = (beam / lengths.take(tested)).astype(np.float32)
        near, distance, geom, _ = _cast_solids(stage, lamp, beam, directions)
        blocked = tested[near[(geom >= 0) & (distance < 1.0 - _SHADOW_EPS)]]
        strength[blocked] = 0.0
        shadows[blocked] |= 1 << index
        total += (np.maximum(strength, 0.0) * (stage.light_power / len(lamps))).astype(np.float32)
    return total, shadows
