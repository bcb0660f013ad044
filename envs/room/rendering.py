"""Ray casting on the CPU: colour, depth, segmentation and normals of a room, exact and without OpenGL.

The six faces of the room are intersected in closed form; the solids by MuJoCo's `mj_multiRay`, asked only for the rays
that pass through a solid's bounding sphere. Colour is Lambert shading under point lights with hard shadows and a
constant exposure; pixels on an edge (of a solid, a face or a shadow) are averaged over 2x2 sub-pixels, while the truth
is that of the pixel centre.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from envs.room.camera import intrinsics, pixel_rays
from envs.room.engine import mj
from envs.room.textures import FILTER_SIGMA_PX, NUM_SURFACES, Textures, cells, grain

# A sub-pixel sample has half the spacing; this Gaussian keeps the filter's total variance that of a whole pixel.
_SUB_SIGMA_PX = float(np.sqrt(FILTER_SIGMA_PX**2 - 0.25**2))
_SUB_OFFSETS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))

_FACE_AXES = ((1, 2), (0, 2), (0, 1))
"""The two world axes that span the faces at right angles to x, y and z."""

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One rendered frame.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32, along the optical axis.
        segmentation: (H, W) int16, 0 for the room, k+1 for the solid in slot k.
        normals: (H, W, 3) float32, unit, world frame, towards the camera.
    """

    rgb: np.ndarray
    depth_m: np.ndarray
    segmentation: np.ndarray
    normals: np.ndarray


@dataclass(frozen=True, eq=False)
class _Hits:
    """Where P rays meet the scene, components first: rays (3, P), depth (P,), surface (P,) int16, normal (3, P)."""

    rays: np.ndarray
    depth: np.ndarray
    surface: np.ndarray
    normal: np.ndarray


class Renderer:
    """Draws stages from camera poses at one frame size.

    Args:
        size: Height and width in pixels.
        fov_deg: Field of view along the shorter side.
        antialias: Average edge pixels over 2x2 samples.

    Raises:
        SceneError: If the size or the field of view is impossible.
    """

    def __init__(self, size: tuple[int, int], fov_deg: float = 70.0, *, antialias: bool = True) -> None:
        self.K = intrinsics(size, fov_deg)
        self.size, self.antialias = (int(size[0]), int(size[1])), antialias
        self._rays = np.ascontiguousarray(pixel_rays(self.K, self.size).reshape(-1, 3).T)
        self._sub_offsets = np.array([(dx / self.K[0, 0], dy / self.K[1, 1], 0.0) for dx, dy in _SUB_OFFSETS]).T

    def render(self, stage: Stage, world_from_camera: np.ndarray) -> Picture:
        """Draws one frame.

        Args:
            stage: The scene.
            world_from_camera: (4, 4) pose; the optical centre must be inside the room.
        """
        height, width = self.size
        rotation, origin = world_from_camera[:3, :3], world_from_camera[:3, 3]
        hits = _cast(stage, origin, rotation @ self._rays)
        light, lit = _irradiance(stage, origin, hits)
        num = height * width
        picture = Picture(
            rgb=np.empty((height, width, 3), np.uint8),
            depth_m=hits.depth.astype(np.float32).reshape(height, width),
            segmentation=np.maximum(hits.surface - (NUM_SURFACES - 1), 0).reshape(height, width),
            normals=hits.normal.T.astype(np.float32).reshape(height, width, 3),
        )
        edge = np.zeros(0, np.int64)
        if self.antialias:
            edge = np.flatnonzero(_edges((hits.surface * 8 + lit).reshape(height, width)))
        if len(edge):
            rays = self._rays[:, edge, None] + self._sub_offsets[:, None, :]
            fine = _cast(stage, origin, rotation @ rays.reshape(3, -1))
            fine_light, _ = _irradiance(stage, origin, fine)
            hits, light = _joined(hits, fine), np.concatenate([light, fine_light])
        order = np.argsort(hits.surface, kind="stable")
        if len(edge):
            needed = np.ones(len(light), bool)
            needed[edge] = False
            order = order[needed[order]]
        sigma = np.where(order < num, np.float32(FILTER_SIGMA_PX), np.float32(_SUB_SIGMA_PX))
        radiance = np.zeros((3, len(light)), np.float32)
        radiance[:, order] = _albedo(stage, origin, _sorted(hits, order), self._pixel_steps(rotation), sigma)
        radiance *= light
        if len(edge):
            # Averaged after clipping: a pixel half covered by something overexposed is half overexposed.
            fine_radiance = np.minimum(radiance[:, num:], np.float32(1.0)).reshape(3, len(edge), -1)
            radiance[:, edge] = fine_radiance.sum(axis=2) * np.float32(1.0 / len(_SUB_OFFSETS))
        picture.rgb[:] = _encode(radiance[:, :num]).T.reshape(height, width, 3)
        return picture

    def _pixel_steps(self, rotation: np.ndarray) -> np.ndarray:
        """(2, 3) change of the ray direction from one pixel column, and one pixel row, to the next."""
        return np.stack([rotation[:, 0] / self.K[0, 0], rotation[:, 1] / self.K[1, 1]])


def _joined(first: _Hits, second: _Hits) -> _Hits:
    return _Hits(
        np.concatenate([first.rays, second.rays], axis=1),
        np.concatenate([first.depth, second.depth]),
        np.concatenate([first.surface, second.surface]),
        np.concatenate([first.normal, second.normal], axis=1),
    )


def _sorted(hits: _Hits, order: np.ndarray) -> _Hits:
    """Hits in another order and in single precision, which is enough for colour."""
    rays, normal = (np.stack([row.astype(np.float32).take(order) for row in rows]) for rows in (hits.rays, hits.normal))
    return _Hits(rays, hits.depth.astype(np.float32).take(order), hits.surface.take(order), normal)


def _cast(stage: Stage, origin: np.ndarray, rays: np.ndarray) -> _Hits:
    """Nearest surfaces along rays (3, P) from a point inside the room; the ray parameter is the depth."""
    length, width, height = stage.room_m
    low = np.array([-length / 2, -width / 2, 0.0]) - origin
    high = np.array([length / 2, width / 2, height]) - origin
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / rays
        # Inside a box the ray leaves each pair of faces where it is farther along; 0 * inf is a ray in the face itself.
        reach = np.fmax(low[:, None] * inverse, high[:, None] * inverse)
    depth = np.minimum(np.minimum(reach[0], reach[1]), reach[2])
    surface = np.full(len(depth), 4, np.int16)
    surface[reach[1] == depth] = 2
    surface[reach[0] == depth] = 0
    axis = surface >> 1
    index = np.arange(len(depth))
    positive = rays[axis, index] > 0.0
    surface += positive
    normal = np.zeros(rays.shape)
    normal[axis, index] = 1.0 - 2.0 * positive
    near, distance, geom, geom_normal = _cast_solids(stage, origin, rays)
    keep = (geom >= 0) & (distance < depth[near])
    near = near[keep]
    depth[near], normal[:, near] = distance[keep], geom_normal[keep].T
    surface[near] = NUM_SURFACES + stage.slot_of_geom[geom[keep]]
    return _Hits(rays, depth, surface, normal)


def _cast_solids(
    stage: Stage, origin: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Casts the rays (3, P) that pass a bounding sphere: (index of the ray, distance, geom or -1, normal) of those."""
    near = _near_solids(stage, origin, rays)
    num = len(near)
    geom, distance, normal = np.full(num, -1, np.int32), np.full(num, -1.0), np.zeros((num, 3))
    if num:
        mj.mj_multiRay(
            stage.model,
            stage.data,
            pnt=np.ascontiguousarray(origin),
            vec=rays[:, near].T.reshape(-1),
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


def _near_solids(stage: Stage, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Indices of the rays (3, P) that pass through the bounding sphere of any solid."""
    if not len(stage.solid_geoms):
        return np.zeros(0, np.int64)
    solids = stage.solid_geoms
    towards = stage.data.geom_xpos[solids] - origin
    # Widened by more than the single precision of this test can err.
    radius = stage.model.geom_rbound[solids] * 1.001 + 1e-4
    reach = np.einsum("ni,ni->n", towards, towards) - radius**2
    # A ray of direction d meets a sphere around c iff d·c >= |d| sqrt(|c|² - r²); from inside, every ray does.
    bound = np.where(reach > 0.0, np.sqrt(np.maximum(reach, 0.0)), -1e9).astype(np.float32)
    single = rays.astype(np.float32)
    length = np.sqrt(np.einsum("ip,ip->p", single, single))
    along = (towards.astype(np.float32) @ single) / length
    return np.flatnonzero((along >= bound[:, None]).any(axis=0))


def _irradiance(stage: Stage, origin: np.ndarray, hits: _Hits) -> tuple[np.ndarray, np.ndarray]:
    """Light (P,) float32 arriving where rays hit, and the bit mask (P,) int16 of the lights that reach there."""
    # The ambient part stands for light that walls and floor return: upward faces get most, the ceiling a little less.
    total = (0.42 + 0.04 * hits.normal[2]).astype(np.float32)
    lit = np.zeros(len(total), np.int16)
    points = hits.depth * hits.rays
    for index, light in enumerate(stage.lights_m):
        beam = points + (origin - light)[:, None]
        squared = np.einsum("ip,ip->p", beam, beam)
        # Half of an inverse square law: constant exposure has to hold from corner to corner.
        strength = -np.einsum("ip,ip->p", beam, hits.normal) / (np.sqrt(squared) * (1.0 + 0.06 * squared))
        facing = np.flatnonzero(strength > 0.0)
        near, distance, geom, _ = _cast_solids(stage, light, beam[:, facing])
        shaded = facing[near[(geom >= 0) & (distance < 1.0 - _SHADOW_EPS)]]
        strength[shaded] = 0.0
        lit[strength > 0.0] |= 1 << index
        total += (np.maximum(strength, 0.0) * (stage.light_power / len(stage.lights_m))).astype(np.float32)
    return total, lit


def _albedo(stage: Stage, origin: np.ndarray, hits: _Hits, pixel_steps: np.ndarray, sigma_px: np.ndarray) -> np.ndarray:
    """(3, P) float32 filtered albedo of hits sorted by surface; sigma_px (P,) is the width of the pixel filter."""
    textures = stage.textures
    num_surfaces = len(textures.tones)
    origins, frames = np.zeros((num_surfaces, 3)), np.tile(np.eye(3, dtype=np.float32), (num_surfaces, 1, 1))
    origins[:NUM_SURFACES] = -stage.room_shift_m
    rotation = stage.data.geom_xmat[stage.solid_geoms].reshape(-1, 3, 3)
    slots = stage.slot_of_geom[stage.solid_geoms]
    frames[NUM_SURFACES + slots] = rotation
    shift = np.einsum("nij,nj->ni", rotation, stage.slot_shift_m[slots])
    origins[NUM_SURFACES + slots] = stage.data.geom_xpos[stage.solid_geoms] - shift
    bounds = np.searchsorted(hits.surface, np.arange(num_surfaces + 1))
    parts = [(k, slice(a, b)) for k, (a, b) in enumerate(pairwise(bounds.tolist())) if b > a]
    across, down = _footprints(hits, pixel_steps, sigma_px)
    offsets = (origin - origins).astype(np.float32)
    local = hits.depth * hits.rays
    for surface, part in parts:
        local[:, part] += offsets[surface, :, None]
    colour = np.empty(local.shape, np.float32)
    num = int(bounds[NUM_SURFACES])
    shade = _cell_shade(textures, parts, local[:, :num], across[:, :num], down[:, :num], hits.surface[:num])
    for surface, part in parts:
        dark, light = textures.tones[surface, :, :, None]
        factor = 1.0 + grain(textures, surface, frames[surface], local[:, part], across[:, part], down[:, part])
        colour[:, part] = dark * factor
        if surface < NUM_SURFACES:
            colour[:, part] += (light - dark) * (shade[part] * factor)
    return colour


def _cell_shade(
    textures: Textures,
    parts: list[tuple[int, slice]],
    local: np.ndarray,
    across: np.ndarray,
    down: np.ndarray,
    faces: np.ndarray,
) -> np.ndarray:
    """(P,) shade of the cells at points of room faces, sorted by face; see `_albedo`."""
    # A box of this width has about the variance of the Gaussian filter.
    spread = np.abs(across)
    spread += np.abs(down)
    spread *= np.float32(2.0)
    flat = np.empty((4, len(faces)), np.float32)
    for surface, part in parts:
        if surface < NUM_SURFACES:
            first, second = _FACE_AXES[surface // 2]
            flat[0, part], flat[1, part] = local[first, part], local[second, part]
            flat[2, part], flat[3, part] = spread[first, part], spread[second, part]
    return cells(textures, faces, *flat)


def _footprints(hits: _Hits, pixel_steps: np.ndarray, sigma_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Extents (3, P) float32, in metres, of the pixel filter on the surface along the pixel's columns and rows."""
    facing = np.minimum(np.einsum("ip,ip->p", hits.rays, hits.normal), np.float32(-1e-4))
    scale = hits.depth * sigma_px
    steps = pixel_steps.astype(np.float32)
    slopes = (steps @ hits.normal) * (scale / facing)
    across, down = steps[0, :, None] * scale, steps[1, :, None] * scale
    across -= slopes[0] * hits.rays
    down -= slopes[1] * hits.rays
    return across, down


def _edges(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels whose label differs from that of a neighbour to the left, right, above or below."""
    edge = np.zeros(labels.shape, bool)
    rows, cols = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= rows
    edge[:-1] |= rows
    edge[:, 1:] |= cols
    edge[:, :-1] |= cols
    return edge


def _encode_table() -> np.ndarray:
    linear = (np.arange(1 << 14) + 0.5) / (1 << 14)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255.0).astype(np.uint8)


_ENCODE = _encode_table()


def _encode(radiance: np.ndarray) -> np.ndarray:
    """Linear radiance to 8-bit sRGB (IEC 61966-2-1) by table; radiance above 1 is overexposed."""
    scaled = np.clip(radiance * np.float32(len(_ENCODE)), 0, len(_ENCODE) - 1)
    return _ENCODE[scaled.astype(np.int32)]
