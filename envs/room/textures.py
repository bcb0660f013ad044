"""Procedural textures fixed in the world, filtered analytically by the footprint of a pixel.

A texture is the product of two band-limited parts, so a pixel shows the mean of the surface that it covers and nothing
aliases at any frame size:

* **cells** (tiles, planks, bricks, panels): a table of shades over a lattice, box-filtered exactly along each axis;
* **grain**: a sum of plane waves cos(k·x + φ). A Gaussian pixel filter multiplies a wave by exp(-σ²|Jᵀk|²/2), where J
  is the derivative of the surface point by the pixel coordinates: exact for any anisotropic footprint (Heckbert,
  "Fundamentals of Texture Mapping and Image Warping", 1989).

Waves reach from metres down to a few millimetres: near surfaces stay sharp at 512 pixels, far ones stay calm at 64.
"""

from dataclasses import dataclass

import numpy as np

NUM_SURFACES = 6
"""Inner faces of the room, in the order -x, +x, -y, +y, floor, ceiling; object slot k is surface 6 + k."""

NUM_WAVES = 14
TABLE = 32
FILTER_SIGMA_PX = 0.5

# Per surface: lattice cell (along, up) in metres and whether rows are shifted against each other.
_PATTERNS = {
    "planks": ((1.30, 0.22), True),
    "tiles": ((0.55, 0.55), False),
    "bricks": ((0.62, 0.28), True),
    "panels": ((0.45, 0.90), False),
    "blocks": ((0.90, 0.45), True),
    "squares": ((0.75, 0.75), False),
}
_FLOORS = ("planks", "tiles", "squares")
_WALLS = ("bricks", "panels", "blocks", "tiles")

# Two linear-light colours a pattern goes between: calm room tones, apart from the saturated colours of the solids.
_FLOOR_TONES = (
    ((0.16, 0.085, 0.045), (0.42, 0.26, 0.14)),
    ((0.13, 0.13, 0.14), (0.42, 0.42, 0.43)),
    ((0.21, 0.13, 0.09), (0.50, 0.40, 0.28)),
    ((0.10, 0.13, 0.13), (0.36, 0.42, 0.38)),
)
_WALL_TONES = (
    ((0.36, 0.33, 0.27), (0.68, 0.64, 0.56)),
    ((0.30, 0.35, 0.40), (0.60, 0.66, 0.70)),
    ((0.40, 0.30, 0.25), (0.70, 0.58, 0.50)),
    ((0.30, 0.37, 0.29), (0.60, 0.66, 0.55)),
    ((0.38, 0.33, 0.40), (0.66, 0.60, 0.68)),
)
_CEILING_TONES = ((0.50, 0.50, 0.49), (0.74, 0.74, 0.72))


@dataclass(frozen=True, kw_only=True, eq=False)
class Textures:
    """The textures of all surfaces of one scene; S = 6 room faces + object slots.

    Attributes:
        waves: (S, 3, M) float32, wave vectors in rad/m: room coordinates for the room, object coordinates for objects.
        frequencies: (S, M) float32, lengths of the wave vectors, from coarse to fine.
        phases: (S, M) float32.
        amplitudes: (S, M) float32, relative; the absolute values of a surface sum to less than one.
        tables: (6, TABLE, TABLE) float32 in [0, 1], cell shades of the room faces.
        row_offsets: (6, TABLE) float32, shift of a row of cells, in cells.
        cell_m: (6, 2) float32, cell size.
        tones: (S, 2, 3) float32, linear-light colours at shades 0 and 1; equal for objects.
    """

    waves: np.ndarray
    frequencies: np.ndarray
    phases: np.ndarray
    amplitudes: np.ndarray
    tables: np.ndarray
    row_offsets: np.ndarray
    cell_m: np.ndarray
    tones: np.ndarray


def make_textures(seed: int, solid_colours: np.ndarray, solid_sizes_m: np.ndarray) -> Textures:
    """Draws the textures of a room and of its solids.

    Args:
        seed: Decides every texture; that of a surface does not depend on what else there is.
        solid_colours: (N, 3) linear-light colours in [0, 1], one an object slot.
        solid_sizes_m: (N,) radius of each solid; sets the scale of its grain.
    """
    num = NUM_SURFACES + len(solid_sizes_m)
    rng, *surface_rngs = (np.random.default_rng([seed, k]) for k in range(num + 1))
    patterns, room_tones = _room_style(rng)
    tables, offsets = np.zeros((NUM_SURFACES, TABLE, TABLE)), np.zeros((NUM_SURFACES, TABLE))
    for surface, name in enumerate(patterns):
        tables[surface] = surface_rngs[surface].uniform(size=(TABLE, TABLE))
        if name == "tiles":
            # A checkerboard with uneven tiles: readable as a floor, yet no two neighbourhoods are alike.
            tables[surface] *= 0.38
            tables[surface] += 0.62 * (np.add.outer(np.arange(TABLE), np.arange(TABLE)) % 2)
        if _PATTERNS[name][1]:
            offsets[surface] = surface_rngs[surface].uniform(size=TABLE)
    vectors = [_room_waves(surface_rngs[surface], surface) for surface in range(NUM_SURFACES)]
    vectors += [_solid_waves(r, size) for r, size in zip(surface_rngs[NUM_SURFACES:], solid_sizes_m, strict=True)]
    waves = np.stack(vectors).astype(np.float32)
    solid_tones = np.repeat(np.asarray(solid_colours, float).reshape(-1, 1, 3), 2, axis=1)
    # Strong enough at every scale for optical flow, weaker where it is fine: cloth and plaster rather than noise.
    falloff = np.geomspace(1.0, 0.35, NUM_WAVES)
    depth = np.where(np.arange(num) < NUM_SURFACES, 0.70, 0.95)
    return Textures(
        waves=waves,
        frequencies=np.linalg.norm(waves, axis=1),
        phases=np.stack([r.uniform(0.0, 2.0 * np.pi, NUM_WAVES) for r in surface_rngs]).astype(np.float32),
        amplitudes=(depth[:, None] * falloff / falloff.sum()).astype(np.float32),
        tables=tables.astype(np.float32),
        row_offsets=offsets.astype(np.float32),
        cell_m=np.array([_PATTERNS[name][0] for name in patterns], np.float32),
        tones=np.concatenate([room_tones, solid_tones]).astype(np.float32),
    )


def _room_style(rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Pattern names and tones (6, 2, 3) of the faces of a room; opposite walls share a pattern, no two a colour."""
    first, second = str(rng.choice(_WALLS)), str(rng.choice(_WALLS))
    walls = rng.permutation(len(_WALL_TONES))[:4]
    floor = _FLOOR_TONES[rng.integers(len(_FLOOR_TONES))]
    patterns = [first, first, second, second, str(rng.choice(_FLOORS)), "squares"]
    return patterns, np.array([*(_WALL_TONES[k] for k in walls), floor, _CEILING_TONES])


def _room_waves(rng: np.random.Generator, surface: int) -> np.ndarray:
    """(3, M) wave vectors in the plane of a room face, 0.35 to 45 cycles a metre."""
    cycles = np.geomspace(0.35, 45.0, NUM_WAVES) * rng.uniform(0.85, 1.15, NUM_WAVES)
    angle = rng.uniform(0.0, np.pi, NUM_WAVES)
    waves = np.zeros((3, NUM_WAVES))
    first, second = [axis for axis in range(3) if axis != surface // 2]
    waves[first], waves[second] = np.cos(angle), np.sin(angle)
    return waves * (2.0 * np.pi * cycles)


def _solid_waves(rng: np.random.Generator, size_m: float) -> np.ndarray:
    """(3, M) wave vectors of a solid texture: from one period across the solid to three millimetres."""
    cycles = np.geomspace(0.5 / size_m, 80.0, NUM_WAVES) * rng.uniform(0.85, 1.15, NUM_WAVES)
    direction = rng.normal(size=(3, NUM_WAVES))
    return direction / np.linalg.norm(direction, axis=0) * (2.0 * np.pi * cycles)


def grain(
    textures: Textures,
    surface: int,
    frame: np.ndarray,
    local: np.ndarray,
    across: np.ndarray,
    down: np.ndarray,
    finest: float | None = None,
) -> np.ndarray:
    """Evaluates the plane waves at points of one surface, filtered by the pixel footprint.

    Args:
        textures: The scene's textures.
        surface: Index of the surface.
        frame: (3, 3) float32 rotation of the surface's axes into the world.
        local: (3, P) float32 points relative to the origin of the surface, world axes.
        across: (3, P) float32 extent on the surface of the Gaussian pixel filter along the pixel columns: the
            derivative of the point times the filter's standard deviation.
        down: The same along the pixel rows.
        finest: Waves of more radians a metre are left out, as nothing would be left of them; None takes all.

    Returns:
        (P,) float32, zero mean over a surface, in (-1, 1).
    """
    waves = textures.waves[surface]
    if finest is not None:
        # From coarse to fine.
        waves = waves[:, : int(textures.frequencies[surface].searchsorted(finest))]
    num = waves.shape[1]
    k_world = (frame @ waves).T
    squared = k_world @ across
    np.square(squared, out=squared)
    other = k_world @ down
    np.square(other, out=other)
    squared += other
    squared *= np.float32(-0.5)
    np.exp(squared, out=squared)
    phase = k_world @ local
    phase += textures.phases[surface, :num, None]
    np.cos(phase, out=phase)
    phase *= squared
    return textures.amplitudes[surface, :num] @ phase


def cells(
    textures: Textures,
    faces: np.ndarray,
    col: np.ndarray,
    row: np.ndarray,
    col_width: np.ndarray,
    row_width: np.ndarray,
) -> np.ndarray:
    """Evaluates the lattice of cell shades on room faces, box-filtered by the pixel footprint.

    Args:
        textures: The scene's textures.
        faces: (P,) room face of each point, 0 to 5.
        col: (P,) float32 coordinate along the rows of the face, in cells.
        row: The other coordinate.
        col_width: (P,) float32 extent of the pixel along the rows, in cells.
        row_width: Across them.

    Returns:
        (P,) float32 shades in [0, 1].
    """
    # A box narrower than a cell crosses at most one boundary: the nearest one. Wider boxes fade to the mean before the
    # lattice reaches the sampling limit.
    fade = (2.0 - np.maximum(row_width, col_width)).clip(0.0, 1.0)
    upper = np.rint(row)
    share = ((row - upper) / row_width.clip(1e-6, 1.0) + 0.5).clip(0.0, 1.0)
    rows = upper.astype(np.intp)
    base = faces.astype(np.intp) * TABLE
    inverse = 1.0 / col_width.clip(1e-6, 1.0)
    lower_shade = _row_shade(textures, base + ((rows - 1) & (TABLE - 1)), col, inverse)
    upper_shade = _row_shade(textures, base + (rows & (TABLE - 1)), col, inverse)
    shade = lower_shade + share * (upper_shade - lower_shade)
    return 0.5 + fade * (shade - 0.5)


def _row_shade(textures: Textures, rows: np.ndarray, col: np.ndarray, inverse_width: np.ndarray) -> np.ndarray:
    """(P,) box-filtered shade along one row of cells; `rows` index the stacked tables of all faces."""
    shifted = col + textures.row_offsets.ravel().take(rows)
    right = np.rint(shifted)
    share = ((shifted - right) * inverse_width + 0.5).clip(0.0, 1.0)
    right = right.astype(np.intp)
    table, base = textures.tables.ravel(), rows * TABLE
    first, second = table.take(base + ((right - 1) & (TABLE - 1))), table.take(base + (right & (TABLE - 1)))
    return first + share * (second - first)
