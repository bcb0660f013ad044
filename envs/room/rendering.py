"""Ray casting on the CPU: colour, depth, segmentation and normals of a room, exact and without OpenGL.

The six faces of the room are intersected in closed form; the solids by MuJoCo's `mj_multiRay`, asked only for the rays
that pass through a solid's bounding sphere. Colour is Lambert shading under point lights with hard shadows and a
constant exposure; pixels on an edge (of a solid, a face or a shadow) are averaged with their corners, which neighbours
share, while the truth is that of the pixel centre.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from envs.errors import SceneError
from envs.room.camera import intrinsics, pixel_rays
from envs.room.casting import Hits, Stage, cast, cones, irradiance, joined, reordered
from envs.room.textures import FILTER_SIGMA_PX, NUM_SURFACES, Textures, cells, grain

# An edge pixel is half its centre and an eighth of each corner; this Gaussian keeps its filter as wide as another's.
_EDGE_SIGMA_PX = float(np.sqrt(FILTER_SIGMA_PX**2 - 0.5 * 0.5**2))

_NEGLIGIBLE = 4.0
"""Waves of this many radians over the filter's standard deviation keep exp(-8) of their amplitude: not a grey value."""

_DIAGONAL = np.arange(3)
_FACE_AXES = ((1, 2), (0, 2), (0, 1))
"""The two world axes that span the faces at right angles to x, y and z."""


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


class Renderer:
    """Draws stages from camera poses at one frame size.

    Args:
        size: Height and width in pixels.
        fov_deg: Field of view along the shorter side.
        antialias: Average edge pixels with their corners.

    Raises:
        SceneError: If the size or the field of view is impossible.
    """

    def __init__(self, size: tuple[int, int], fov_deg: float = 70.0, *, antialias: bool = True) -> None:
        self.K = intrinsics(size, fov_deg)
        self.size, self.antialias = (int(size[0]), int(size[1])), antialias
        self._rays = np.ascontiguousarray(pixel_rays(self.K, self.size).reshape(-1, 3).T)
        self._directions = _unit(self._rays)
        grid = self.size[0] + 1, self.size[1] + 1
        self._corner_rays = np.ascontiguousarray(pixel_rays(self.K, grid, (-0.5, -0.5)).reshape(-1, 3).T)
        self._corner_directions = _unit(self._corner_rays)
        # On a plane no footprint is narrower than a pixel's at that depth, seen at the angle of the outermost ray.
        longest = np.linalg.norm(self._corner_rays, axis=0).max()
        self._narrowest = float(1.0 / (self.K.diagonal()[:2].max() * longest))

    def render(self, stage: Stage, world_from_camera: np.ndarray) -> Picture:
        """Draws one frame.

        Args:
            stage: The scene.
            world_from_camera: (4, 4) pose.

        Raises:
            SceneError: If the optical centre is not inside the room.
        """
        height, width = self.size
        rotation, origin = world_from_camera[:3, :3], world_from_camera[:3, 3]
        (x, y, z), (length, width_m, height_m) = origin.tolist(), stage.room_m.tolist()
        if not (abs(x) < length / 2 and abs(y) < width_m / 2 and 0.0 < z < height_m):
            raise SceneError(
                expected=f"a camera inside the room {tuple(stage.room_m)}", got=tuple(origin), remedy="Move it in."
            )
        seen, lamps = cones(stage, origin), [cones(stage, light) for light in stage.lights_m]
        turn = rotation.astype(np.float32)
        hits = cast(stage, seen, rotation @ self._rays, turn @ self._directions)
        light, shadows = irradiance(stage, lamps, origin, hits)
        num = height * width
        picture = Picture(
            rgb=np.empty((height, width, 3), np.uint8),
            depth_m=hits.depth.astype(np.float32).reshape(height, width),
            segmentation=np.maximum(hits.surface - (NUM_SURFACES - 1), 0).reshape(height, width),
            normals=hits.normal.T.astype(np.float32).reshape(height, width, 3),
        )
        sigma = np.full(num, FILTER_SIGMA_PX, np.float32)
        edge = np.zeros(self.size, bool)
        if self.antialias:
            edge = _edges((hits.surface * 8 + shadows).reshape(height, width))
        corners = np.flatnonzero(_at_corners(edge))
        if len(corners):
            sigma[edge.ravel()] = _EDGE_SIGMA_PX
            rays, directions = (r.take(corners, axis=1) for r in (self._corner_rays, self._corner_directions))
            fine = cast(stage, seen, rotation @ rays, turn @ directions)
            # Where no pixel around is in shadow, none is looked for at the corner either.
            suspects = _at_corners((shadows > 0).reshape(height, width)).ravel()[corners]
            fine_light, _ = irradiance(stage, lamps, origin, fine, suspects)
            hits, light = joined(hits, fine), np.concatenate([light, fine_light])
            sigma = np.concatenate([sigma, np.full(len(corners), _EDGE_SIGMA_PX, np.float32)])
        order = np.argsort(hits.surface, kind="stable")
        radiance = np.empty((3, len(light)), np.float32)
        steps = self._pixel_steps(rotation)
        albedo = _albedo(stage, origin, reordered(hits, order), steps, sigma.take(order), self._narrowest)
        _scatter(radiance, order, albedo)
        radiance *= light
        pixels = radiance[:, :num]
        if len(corners):
            pixels = self._antialiased(radiance, np.flatnonzero(edge), corners)
        for channel, plane in enumerate(_encode(pixels)):
            picture.rgb[..., channel] = plane.reshape(height, width)
        return picture

    def _antialiased(self, radiance: np.ndarray, edge: np.ndarray, corners: np.ndarray) -> np.ndarray:
        """(3, H * W) radiance of the pixels: on an edge, the mean of the centre and the mean of the four corners."""
        height, width = self.size
        pixels = radiance[:, : height * width]
        grid = np.zeros((3, (height + 1) * (width + 1)), np.float32)
        # Averaged after clipping: a pixel half covered by something overexposed is half overexposed.
        _scatter(grid, corners, np.minimum(radiance[:, height * width :], np.float32(1.0)))
        grid = grid.reshape(3, height + 1, width + 1)
        around = grid[:, :-1, :-1] + grid[:, :-1, 1:]
        around += grid[:, 1:, :-1]
        around += grid[:, 1:, 1:]
        mixed = 0.125 * around.reshape(3, -1).take(edge, axis=1)
        mixed += 0.5 * np.minimum(pixels.take(edge, axis=1), np.float32(1.0))
        _scatter(pixels, edge, mixed)
        return pixels

    def _pixel_steps(self, rotation: np.ndarray) -> np.ndarray:
        """(2, 3) change of the ray direction from one pixel column, and one pixel row, to the next."""
        return (rotation[:, :2] / self.K.diagonal()[:2]).T


def _albedo(
    stage: Stage, origin: np.ndarray, hits: Hits, pixel_steps: np.ndarray, sigma_px: np.ndarray, narrowest: float
) -> np.ndarray:
    """(3, P) float32 filtered albedo of hits sorted by surface.

    `sigma_px` (P,) is the width of the pixel filter; no footprint on a plane is narrower than `narrowest` times that
    and the depth.
    """
    textures = stage.textures
    num_surfaces = len(textures.tones)
    origins, frames = np.zeros((num_surfaces, 3)), np.zeros((num_surfaces, 3, 3), np.float32)
    frames[:, _DIAGONAL, _DIAGONAL] = 1.0
    origins[:NUM_SURFACES] = -stage.room_shift_m
    rotation = stage.data.geom_xmat[stage.solid_geoms].reshape(-1, 3, 3)
    slots = stage.slot_of_geom[stage.solid_geoms]
    frames[NUM_SURFACES + slots] = rotation
    shift = rotation @ stage.slot_shift_m[slots, :, None]
    origins[NUM_SURFACES + slots] = stage.data.geom_xpos[stage.solid_geoms] - shift[..., 0]
    bounds = np.searchsorted(hits.surface, np.arange(num_surfaces + 1))
    parts = [(k, slice(a, b)) for k, (a, b) in enumerate(pairwise(bounds.tolist())) if b > a]
    scale = hits.depth * sigma_px
    across, down = _footprints(hits, pixel_steps, scale)
    offsets = (origin - origins).astype(np.float32)
    local = hits.depth * hits.rays
    for surface, part in parts:
        local[:, part] += offsets[surface, :, None]
    colour = np.empty(local.shape, np.float32)
    num = int(bounds[NUM_SURFACES])
    shade = _cell_shade(textures, parts, local[:, :num], across[:, :num], down[:, :num], hits.surface[:num])
    for surface, part in parts:
        dark, light = textures.tones[surface, :, :, None]
        finest = None
        if surface < NUM_SURFACES:
            finest = _NEGLIGIBLE / (narrowest * float(scale[part].min()))
        factor = 1.0 + grain(textures, surface, frames[surface], local[:, part], across[:, part], down[:, part], finest)
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
    row, col, row_width, col_width = np.empty((4, local.shape[1]), np.float32)
    for surface, part in parts:
        if surface < NUM_SURFACES:
            first, second = _FACE_AXES[surface // 2]
            per_col, per_row = 1.0 / textures.cell_m[surface]
            np.multiply(local[first, part], per_col, out=col[part])
            np.multiply(local[second, part], per_row, out=row[part])
            np.multiply(spread[first, part], per_col, out=col_width[part])
            np.multiply(spread[second, part], per_row, out=row_width[part])
    return cells(textures, faces, col, row, col_width, row_width)


def _footprints(hits: Hits, pixel_steps: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Extents (3, P) float32, in metres, of the pixel filter on the surface along the pixel's columns and rows.

    `scale` (P,) is the depth times the width of the filter in pixels.
    """
    facing = np.minimum(np.einsum("ip,ip->p", hits.rays, hits.normal), np.float32(-1e-4))
    steps = pixel_steps.astype(np.float32)
    slopes = (steps @ hits.normal) * (scale / facing)
    across, down = steps[0, :, None] * scale, steps[1, :, None] * scale
    across -= slopes[0] * hits.rays
    down -= slopes[1] * hits.rays
    return across, down


def _unit(rays: np.ndarray) -> np.ndarray:
    """(3, P) float32 directions of rays (3, P)."""
    return (rays / np.linalg.norm(rays, axis=0)).astype(np.float32)


def _scatter(rows: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
    """`rows[:, index] = values`, which numpy does three times faster row by row."""
    for row, value in zip(rows, values, strict=True):
        row[index] = value


def _edges(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels whose label differs from that of a neighbour to the left, right, above or below."""
    edge = np.zeros(labels.shape, bool)
    rows, cols = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= rows
    edge[:-1] |= rows
    edge[:, 1:] |= cols
    edge[:, :-1] |= cols
    return edge


def _at_corners(pixels: np.ndarray) -> np.ndarray:
    """(H + 1, W + 1) bool: pixel corners that touch a marked pixel (H, W)."""
    height, width = pixels.shape
    corners = np.zeros((height + 1, width + 1), bool)
    for rows in (slice(0, height), slice(1, height + 1)):
        corners[rows, :-1] |= pixels
        corners[rows, 1:] |= pixels
    return corners


def _encode_table() -> np.ndarray:
    linear = (np.arange(1 << 14) + 0.5) / (1 << 14)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255.0).astype(np.uint8)


_ENCODE = _encode_table()


def _encode(radiance: np.ndarray) -> np.ndarray:
    """Linear radiance to 8-bit sRGB (IEC 61966-2-1) by table; radiance above 1 is overexposed."""
    scaled = np.minimum(radiance * np.float32(len(_ENCODE)), np.float32(len(_ENCODE) - 1))
    return _ENCODE.take(scaled.astype(np.intp))
