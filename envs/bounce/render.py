"""Anti-aliased drawing of Bounce: the share of each pixel that a solid covers, from its centre's distance to edges.

Behind one straight edge the share is clip(1/2 - distance, 0, 1): exact along the axes, within 0.06 else, and symmetric,
so centroids carry over with sub-pixel accuracy. A polygon takes the product over its edges, which is exact at the
corners of an upright box. All solids are drawn in one pass of numpy over square patches that enclose them.
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass

import numpy as np

from envs.bounce.scene import PALETTE, Fixture, Outline, Rod, Solid
from envs.errors import SceneError

BACKGROUND = (232, 232, 226)
ROD_WIDTH_M = 0.12
_MAX_EDGES = 4
_ALL = slice(None)


@dataclass(frozen=True)
class Drawing:
    """What is seen in one frame; N slots.

    Attributes:
        frame: (H, W, 3) uint8.
        segmentation: (H, W) int16, 0 background or fixture, k + 1 the solid in slot k.
        full_masks: (N, H, W) bool, pixels at least half covered by the solid, hidden or not.
        centroid_px: (N, 2) projection of the centres of mass.
    """

    frame: np.ndarray
    segmentation: np.ndarray
    full_masks: np.ndarray
    centroid_px: np.ndarray


@dataclass(frozen=True)
class Look:
    """How solids look where that differs from what they are; N solids.

    Attributes:
        opacity: (N,) 0 to 1. A solid below 1/2 is in no mask.
        colour: (N, 3) sRGB.
        morph: (N,) share of the renderer's second set of shapes, 0 to 1.
    """

    opacity: np.ndarray
    colour: np.ndarray
    morph: np.ndarray


class Renderer:
    """Draws solids among fixtures.

    Args:
        solids: Shapes and colours, in slot order.
        size: Height and width of the frame in pixels.
        fixtures: Drawn behind the solids, occluders in front of them.
        rods: Drawn behind the solids.
        morph_into: Second set of shapes, for `Look.morph`.

    Raises:
        SceneError: The size is not two whole numbers of at least 8.
    """

    def __init__(
        self,
        solids: Sequence[Solid],
        size: tuple[int, int],
        *,
        fixtures: Sequence[Fixture] = (),
        rods: Sequence[Rod] = (),
        morph_into: Sequence[Solid] | None = None,
    ) -> None:
        check_size(size)
        self.height, self.width = int(size[0]), int(size[1])
        self.scale = px_per_m(size)
        self.rods = rods
        n = len(solids)
        self._colour = np.array([PALETTE[s.colour] for s in solids], np.float32).reshape(n, 3)
        every = [s.outline for s in (*solids, *(morph_into or ()))]
        reach = max((o.reach_m for o in every), default=0.0) * self.scale
        self._side = int(np.ceil(2.0 * reach)) + 3
        self._shapes = _Shapes(every[:n], self.scale)
        self._others = _Shapes(every[n:], self.scale) if morph_into else None
        self._y = np.arange(self._side, dtype=np.float32)
        self._labels = np.arange(1, n + 1, dtype=np.float32)[:, None, None]
        self._x_px, self._y_px = np.arange(self.width)[None] + 0.5, np.arange(self.height)[:, None] + 0.5
        # Planes of colour (3) and labels: numpy is several times faster along rows of pixels than along channels.
        self._canvas = np.zeros((4, self.height, self.width), np.float32)
        self._canvas[:3] = _plane(BACKGROUND)
        for fixture in fixtures:
            if fixture.kind != "occluder":
                self._paint(self._canvas[:3], fixture)
        self._occluders = [
            (self._fixture_coverage(f), _plane(PALETTE[f.colour])) for f in fixtures if f.kind == "occluder"
        ]

    def to_px(self, position_m: np.ndarray) -> np.ndarray:
        """World positions (..., 2) in metres to pixels (x right, y down, centres at +0.5)."""
        position = np.asarray(position_m, float) * self.scale
        position[..., 1] = self.height - position[..., 1]
        return position

    def draw(self, position_m: np.ndarray, angle_rad: np.ndarray, look: Look | None = None) -> Drawing:
        """Draws the solids at (N, 2), turned by (N,); later slots lie over earlier ones, occluders over all."""
        n, (h, w) = len(position_m), (self.height, self.width)
        centre = self.to_px(position_m)
        canvas, masks = self._canvas.copy(), np.zeros((n, h, w), bool)
        colours = canvas[:3]
        for rod in self.rods:
            self._draw_rod(colours, rod.pivot_m, position_m[rod.solid])
        if n:
            corner, coverage = self._coverage(centre, angle_rad, look)
            inside = coverage >= 0.5
            colour = self._colour
            if look is not None:
                coverage *= look.opacity[:, None, None].astype(np.float32)
                inside &= look.opacity[:, None, None] >= 0.5
                colour = look.colour.astype(np.float32)
            self._compose(canvas, masks, corner, coverage, inside, colour)
        segmentation = canvas[3].astype(np.int16)
        for cover, colour in self._occluders:
            colours += cover * (colour - colours)
            segmentation[cover >= 0.5] = 0
        colours += 0.5
        planes, frame = colours.astype(np.uint8), np.empty((h, w, 3), np.uint8)
        for channel in range(3):
            frame[..., channel] = planes[channel]
        return Drawing(frame, segmentation, masks, centre)

    def _compose(
        self,
        canvas: np.ndarray,
        masks: np.ndarray,
        corner: list[list[int]],
        coverage: np.ndarray,
        inside: np.ndarray,
        colour: np.ndarray,
    ) -> None:
        """Lays the patches of all solids over the canvas in slot order; what can be done at once for all is."""
        n, side, h, w = len(corner), self._side, self.height, self.width
        kept, added = np.empty((2, n, 4, side, side), np.float32)
        np.subtract(1.0, coverage[:, None], out=kept[:, :3])
        np.logical_not(inside, out=kept[:, 3])
        np.multiply(coverage[:, None], colour[:, :, None, None], out=added[:, :3])
        np.multiply(inside, self._labels, out=added[:, 3])
        for k, (x, y) in enumerate(corner):
            keep, add, solid = kept[k], added[k], inside[k]
            xs, ys, xe, ye = x, y, x + side, y + side
            if x < 0 or y < 0 or xe > w or ye > h:
                xs, ys, xe, ye = max(x, 0), max(y, 0), min(xe, w), min(ye, h)
                if xs >= xe or ys >= ye:
                    continue
                part = slice(ys - y, ye - y), slice(xs - x, xe - x)
                keep, add, solid = keep[:, *part], add[:, *part], solid[part]
            view = canvas[:, ys:ye, xs:xe]
            view *= keep
            view += add
            masks[k, ys:ye, xs:xe] = solid

    def _coverage(self, centre: np.ndarray, angle: np.ndarray, look: Look | None) -> tuple[list[list[int]], np.ndarray]:
        """Patch corners (x, y) and covered shares (N, S, S) of the pixels of each patch."""
        corner = np.floor(centre - 0.5 * self._side).astype(int)
        offset = (corner + 0.5 - centre).astype(np.float32)
        dx = (self._y + offset[:, :1])[:, None, :]
        dy = -(self._y + offset[:, 1:])[:, :, None]
        c, s = np.cos(angle).astype(np.float32)[:, None, None], np.sin(angle).astype(np.float32)[:, None, None]
        along, across = c * dx + s * dy, c * dy - s * dx
        coverage = self._shapes.coverage(along, across)
        if look is not None and self._others is not None:
            share = look.morph[:, None, None].astype(np.float32)
            coverage += share * (self._others.coverage(along, across) - coverage)
        return corner.tolist(), coverage

    def _draw_rod(self, canvas: np.ndarray, pivot_m: tuple[float, float], bob_m: np.ndarray) -> None:
        ends, radius = self.to_px(np.array([pivot_m, bob_m])), 0.5 * ROD_WIDTH_M * self.scale
        (left, top), (right, bottom) = (ends.min(axis=0) - radius).tolist(), (ends.max(axis=0) + radius).tolist()
        columns = slice(max(int(left) - 1, 0), max(int(right) + 2, 0))
        rows = slice(max(int(top) - 1, 0), max(int(bottom) + 2, 0))
        part = canvas[:, rows, columns]
        part += self._capsule_coverage(ends, radius, rows, columns) * (_plane(PALETTE["grey"]) - part)

    def _capsule_coverage(
        self, ends_px: np.ndarray, radius_px: float, rows: slice = _ALL, columns: slice = _ALL
    ) -> np.ndarray:
        """Coverage (H, W) float32 of the widened segment between two points (2, 2); a disc where they agree."""
        x, y = self._x_px[:, columns], self._y_px[rows]
        a, along = ends_px[0], ends_px[1] - ends_px[0]
        share = ((x - a[0]) * along[0] + (y - a[1]) * along[1]) / max(float(along @ along), 1e-12)
        share = np.clip(share, 0.0, 1.0)
        distance = np.hypot(x - a[0] - share * along[0], y - a[1] - share * along[1]) - radius_px
        return np.clip(0.5 - distance, 0.0, 1.0).astype(np.float32)

    def _fixture_coverage(self, fixture: Fixture) -> np.ndarray:
        corners = np.asarray(fixture.vertices_m, float)
        if len(corners) < 3:
            return self._capsule_coverage(self.to_px(corners[[0, -1]]), fixture.radius_m * self.scale)
        x_m, y_m = self._x_px, self.height - self._y_px
        planes = _half_planes(corners * self.scale)
        offset = 0.5 + fixture.radius_m * self.scale
        return np.prod([np.clip(offset + o - nx * x_m - ny * y_m, 0.0, 1.0) for nx, ny, o in planes], axis=0).astype(
            np.float32
        )

    def _paint(self, canvas: np.ndarray, fixture: Fixture) -> None:
        cover = self._fixture_coverage(fixture)
        canvas += cover * (_plane(PALETTE[fixture.colour]) - canvas)


class _Shapes:
    """Covered shares of pixels for N outlines in their own frames.

    Discs and capsules: from the distance to a segment of half-length h along the local x axis, less a radius. Polygons:
    the product of the shares behind each edge.
    """

    def __init__(self, outlines: Sequence[Outline], scale: float) -> None:
        self._half = np.array([np.abs(o.vertices_m[:, 0]).max() for o in outlines], np.float32) * scale
        radius = np.array([o.radius_m for o in outlines], np.float32) * scale
        # The ramp of one pixel around a curve covers pi/12 px² too much; taken back over the circumference.
        around = 2.0 * np.pi * radius + 4.0 * self._half
        self._radius = radius - np.where(radius > 0.5, np.pi / 12.0 / np.maximum(around, 1.0), 0.0).astype(np.float32)
        round_ = np.array([len(o.vertices_m) < 3 for o in outlines], bool)
        self._round, self._poly = np.flatnonzero(round_), np.flatnonzero(~round_)
        edges = [_half_planes(outlines[k].vertices_m * scale, _MAX_EDGES) for k in self._poly.tolist()]
        self._edges = np.array(edges, np.float32).reshape(len(edges), _MAX_EDGES, 3)

    def coverage(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Covered shares (N, S, S) of pixels with their centres at local coordinates (N, S, S) in pixels."""
        coverage = np.empty_like(x)
        if len(self._round):
            k = self._round
            beyond = np.maximum(np.abs(x[k]) - self._half[k, None, None], 0.0)
            outside = np.sqrt(beyond**2 + y[k] ** 2) - (self._radius[k, None, None] + np.float32(0.5))
            coverage[k] = np.clip(-outside, 0.0, 1.0)
        if len(self._poly):
            k = self._poly
            nx, ny, offset = (self._edges[:, :, i, None, None] for i in range(3))
            behind = np.clip((offset + np.float32(0.5)) - nx * x[k, None] - ny * y[k, None], 0.0, 1.0)
            coverage[k] = behind[:, 0] * behind[:, 1] * behind[:, 2] * behind[:, 3]
        return coverage


def _half_planes(vertices: np.ndarray, edges: int | None = None) -> np.ndarray:
    """Outward normals and offsets (edges, 3) of a counter-clockwise polygon, filled up with planes that cut nothing."""
    along = np.roll(vertices, -1, axis=0) - vertices
    normal = np.stack([along[:, 1], -along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    planes = np.column_stack([normal, np.sum(normal * vertices, axis=1)])
    spare = 0 if edges is None else edges - len(planes)
    return np.concatenate([planes, np.tile([0.0, 0.0, 1.0], (spare, 1))])


def _plane(colour: tuple[int, int, int]) -> np.ndarray:
    """A colour as planes (3, 1, 1)."""
    return np.array(colour, np.float32)[:, None, None]


def px_per_m(size: tuple[int, int]) -> float:
    """Pixels per metre: the shorter side of the frame shows 10 m."""
    return min(size) / 10.0


def check_size(size: tuple[int, int]) -> None:
    """Checks a frame size (height, width).

    Raises:
        SceneError: Not two whole numbers of at least 8.
    """
    ok = isinstance(size, Sized) and len(size) == 2 and all(isinstance(v, int | np.integer) and v >= 8 for v in size)
    if not ok:
        raise SceneError(
            expected="size=(height, width), whole numbers of at least 8", got=size, remedy="Try size=(64, 64)."
        )


def view_m(size: tuple[int, int]) -> tuple[float, float]:
    """Width and height in metres of what a frame of this size (height, width) shows."""
    return size[1] / px_per_m(size), size[0] / px_per_m(size)
