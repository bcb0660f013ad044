"""Ray casting on the CPU: colour, depth, segmentation and normals of a room, exact and without OpenGL.

The six faces of the room are intersected in closed form; the solids by MuJoCo's `mj_multiRay`, asked only for the rays
that pass through a solid's bounding sphere. Colour is Lambert shading under point lights with hard shadows and a
constant exposure; pixels on an edge (of a solid, a face or a shadow) are averaged over 2x2 sub-pixels, while the truth
is that of the pixel centre.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.room.camera import intrinsics, pixel_rays
from envs.room.engine import mj
from envs.room.textures import FILTER_SIGMA_PX, NUM_SURFACES, Textures, cells, grain

# A sub-pixel sample has half the spacing; this Gaussian keeps the filter's total variance that of a whole pixel.
_SUB_SIGMA_PX = float(np.sqrt(FILTER_SIGMA_PX**2 - 0.25**2))
_SUB_OFFSETS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))

_ALONG_AXIS = np.array([1, 1, 0, 0, 0, 0])
_UP_AXIS = np.array([2, 2, 2, 2, 1, 1])
_SHADOW_EPS = 1e-6
_SOLID_GROUPS = np.array([0, 1, 0, 0, 0, 0], np.uint8)
"""MuJoCo geom groups that are drawn: solids are in group 1, walls and the walker in group 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """What there is to draw, in arrays.

    Attributes:
        model, data: MuJoCo model and data with up-to-date kinematics; geoms of group 1 are drawn.
        slot_of_geom: (ngeom,) int, object slot of each geom.
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
    """Where P rays meet the scene: rays (P, 3), depth (P,), surface (P,), normal (P, 3)."""

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
        self.size, self.antialias = (int(size[0]), int(size[1])), antialias
        self.K = intrinsics(size, fov_deg)
        self._rays = pixel_rays(self.K, self.size).reshape(-1, 3)
        self._sub_offsets = np.array([(dx / self.K[0, 0], dy / self.K[1, 1], 0.0) for dx, dy in _SUB_OFFSETS])

    def render(self, stage: Stage, world_from_camera: np.ndarray) -> Picture:
        """Draws one frame.

        Args:
            stage: The scene.
            world_from_camera: (4, 4) pose; the optical centre must be inside the room.
        """
        height, width = self.size
        rotation, origin = world_from_camera[:3, :3], world_from_camera[:3, 3]
        hits = _cast(stage, origin, self._rays @ rotation.T)
        radiance, lit = self._shade(stage, hits, origin, rotation, FILTER_SIGMA_PX)
        if self.antialias:
            edge = np.flatnonzero(_edges((2 * hits.surface + lit).reshape(height, width)))
            if len(edge):
                rays = self._rays[edge, None, :] + self._sub_offsets
                sub = _cast(stage, origin, rays.reshape(-1, 3) @ rotation.T)
                fine, _ = self._shade(stage, sub, origin, rotation, _SUB_SIGMA_PX)
                # Averaged after clipping: a pixel half covered by something overexposed is half overexposed.
                radiance[edge] = np.minimum(fine, 1.0).reshape(len(edge), len(_SUB_OFFSETS), 3).mean(axis=1)
        return Picture(
            rgb=_encode(radiance).reshape(height, width, 3),
            depth_m=hits.depth.astype(np.float32).reshape(height, width),
            segmentation=np.maximum(hits.surface - (NUM_SURFACES - 1), 0).astype(np.int16).reshape(height, width),
            normals=hits.normal.astype(np.float32).reshape(height, width, 3),
        )

    def _shade(
        self, stage: Stage, hits: _Hits, origin: np.ndarray, rotation: np.ndarray, sigma_px: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Linear radiance (P, 3) float32 and a bit mask (P,) of the lights that each point sees."""
        points = origin + hits.depth[:, None] * hits.rays
        light, lit = _irradiance(stage, points, hits.normal)
        order = np.argsort(hits.surface, kind="stable")
        footprints = _footprints(hits, rotation, self.K)
        albedo = np.empty((len(points), 3), np.float32)
        albedo[order] = _albedo(
            stage, hits.surface[order], points[order], (footprints[0][order], footprints[1][order]), sigma_px
        )
        return albedo * light[:, None], lit


def _cast(stage: Stage, origin: np.ndarray, rays: np.ndarray) -> _Hits:
    """Nearest surfaces along rays from a point inside the room; the ray parameter is the depth."""
    length, width, height = stage.room_m
    low, high = np.array([-length / 2, -width / 2, 0.0]), np.array([length / 2, width / 2, height])
    towards_high = rays > 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(towards_high, high - origin, low - origin) / rays
    reach[rays == 0.0] = np.inf
    axis = reach.argmin(axis=1)
    index = np.arange(len(rays))
    depth = reach[index, axis]
    positive = towards_high[index, axis]
    surface = 2 * axis + positive
    normal = np.zeros((len(rays), 3))
    normal[index, axis] = np.where(positive, -1.0, 1.0)
    near, distance, geom, geom_normal = _cast_solids(stage, origin, rays)
    keep = (geom >= 0) & (distance < depth[near])
    near = near[keep]
    depth[near], normal[near] = distance[keep], geom_normal[keep]
    surface[near] = NUM_SURFACES + stage.slot_of_geom[geom[keep]]
    return _Hits(rays, depth, surface, normal)


def _cast_solids(
    stage: Stage, origin: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Casts the rays that pass a bounding sphere: (index of the ray, distance, geom or -1, normal) of those."""
    near = _near_solids(stage, origin, rays)
    num = len(near)
    geom, distance, normal = np.full(num, -1, np.int32), np.full(num, -1.0), np.zeros((num, 3))
    if num:
        mj.mj_multiRay(
            stage.model,
            stage.data,
            pnt=np.ascontiguousarray(origin),
            vec=rays[near].reshape(-1),
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
    """Indices of the rays that pass through the bounding sphere of any solid."""
    solids = np.flatnonzero(stage.model.geom_group == 1)
    if not len(solids):
        return np.zeros(0, np.int64)
    towards = stage.data.geom_xpos[solids] - origin
    radius = stage.model.geom_rbound[solids] * (1.0 + 1e-6) + 1e-6
    squared = np.einsum("ni,ni->n", towards, towards)
    # A ray of direction d meets a sphere around c iff d·c >= |d| sqrt(|c|² - r²); from inside, every ray does.
    reach = np.where(squared > radius**2, np.sqrt(np.maximum(squared - radius**2, 0.0)), -np.inf)
    length = np.sqrt(np.einsum("pi,pi->p", rays, rays))
    return np.flatnonzero((rays @ towards.T >= length[:, None] * reach).any(axis=1))


def _irradiance(stage: Stage, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Light (P,) float32 arriving at points, and the bit mask (P,) of the lights that reach them."""
    # The ambient part stands for light that walls and floor return: upward faces get most, the ceiling a little less.
    total = (0.42 + 0.04 * normals[:, 2]).astype(np.float32)
    lit = np.zeros(len(points), np.int64)
    for index, light in enumerate(stage.lights_m):
        beam = points - light
        squared = np.einsum("pi,pi->p", beam, beam)
        cosine = -np.einsum("pi,pi->p", beam, normals) / np.sqrt(squared)
        visible = cosine > 0.0
        near, distance, geom, _ = _cast_solids(stage, light, beam)
        visible[near[(geom >= 0) & (distance < 1.0 - _SHADOW_EPS)]] = False
        # Half of an inverse square law: constant exposure has to hold from corner to corner.
        strength = stage.light_power / len(stage.lights_m) * cosine / (1.0 + 0.06 * squared)
        total += np.where(visible, strength, 0.0).astype(np.float32)
        lit |= visible.astype(np.int64) << index
    return total, lit


def _footprints(hits: _Hits, rotation: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives (P, 3) float32 of the surface point by the pixel column and row, in metres a pixel."""
    facing = np.einsum("pi,pi->p", hits.rays, hits.normal)
    facing = np.where(np.abs(facing) < 1e-4, -1e-4, facing)
    slope = hits.depth / facing
    result = []
    for axis in (0, 1):
        step = rotation[:, axis] / K[axis, axis]
        along_ray = slope * (hits.normal @ step)
        result.append((hits.depth[:, None] * step - along_ray[:, None] * hits.rays).astype(np.float32))
    return result[0], result[1]


def _albedo(
    stage: Stage,
    surface: np.ndarray,
    points: np.ndarray,
    footprints: tuple[np.ndarray, np.ndarray],
    sigma_px: float,
) -> np.ndarray:
    """(P, 3) float32 filtered albedo of points sorted by surface."""
    textures = stage.textures
    num_surfaces = len(textures.tones)
    origins, frames = np.zeros((num_surfaces, 3)), np.tile(np.eye(3, dtype=np.float32), (num_surfaces, 1, 1))
    origins[:NUM_SURFACES] = -stage.room_shift_m
    solids = np.flatnonzero(stage.model.geom_group == 1)
    slots = NUM_SURFACES + stage.slot_of_geom[solids]
    rotation = stage.data.geom_xmat[solids].reshape(-1, 3, 3)
    frames[slots] = rotation
    shift = stage.slot_shift_m[stage.slot_of_geom[solids]]
    origins[slots] = stage.data.geom_xpos[solids] - np.einsum("nij,nj->ni", rotation, shift)
    local = (points - origins[surface]).astype(np.float32)
    factor = 1.0 + grain(textures, surface, local, frames, footprints[0], footprints[1], sigma_px)
    shade = np.zeros(len(surface), np.float32)
    num = int(np.searchsorted(surface, NUM_SURFACES))
    if num:
        faces, index = surface[:num], np.arange(num)
        spread = 2.0 * sigma_px * (np.abs(footprints[0][:num]) + np.abs(footprints[1][:num]))
        along, up = _ALONG_AXIS[faces], _UP_AXIS[faces]
        shade[:num] = cells(
            textures, faces, local[index, along], local[index, up], spread[index, along], spread[index, up]
        )
    tones = textures.tones[surface]
    return (tones[:, 0] + shade[:, None] * (tones[:, 1] - tones[:, 0])) * factor[:, None]


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
