"""Pictures for reports: videos side by side, strips of frames, tracks drawn on a frame; encoded as data URIs.

Pillow is imported on first use.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from eval.errors import MeasureError
from eval.physics.tracks import Tracks

GIVEN_RGB = (37, 99, 235)
MARKED_RGB = (220, 38, 38)
# Colours that colour-blind readers tell apart (Okabe & Ito 2008).
SERIES_RGB = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
)
MAX_PREVIEW_FRAMES = 96
MAX_PANEL_SIDE_PX = 360
_LOSSLESS_SIDE_PX = 128
_GAP_PX = 4
_BAR_PX = 3


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A looping picture of one or more videos side by side.

    Attributes:
        moving: Data URI of an animated WebP.
        still: Data URI of its first frame, for readers who ask for reduced motion.
        every: Which frames it shows: every one (1), every second (2), ...
        width: In pixels.
    """

    moving: str
    still: str
    every: int
    width: int


def preview(videos: Sequence[np.ndarray], fps: float) -> Preview:
    """Videos side by side as one looping picture, so that they stay in step.

    Lossless up to 128 pixels a side; larger videos are compressed, shrunk to at most 360 pixels a side, and long ones
    thinned out to at most 96 frames (`Preview.every` says how much).

    Args:
        videos: uint8 (T, H, W, 3) each, of one shape.
        fps: Frames per second.

    Raises:
        MeasureError: If the videos differ in shape, or there is none.
    """
    count, height, width = check_alike(videos)
    every = -(-count // MAX_PREVIEW_FRAMES)
    frames = [beside([_shrunk(v[t], MAX_PANEL_SIDE_PX) for v in videos]) for t in range(0, count, every)]
    lossless = max(height, width) <= _LOSSLESS_SIDE_PX
    return Preview(
        moving=_webp(frames, 1000.0 * every / fps, lossless=lossless),
        still=data_uri(_png(frames[0]), "image/png"),
        every=every,
        width=frames[0].shape[1],
    )


def strip(
    video: np.ndarray, indices: Sequence[int], *, given: int = 0, marked: Sequence[int] = (), side_px: int = 96
) -> str:
    """The frames at `indices` in a row, as a data URI.

    A blue bar below a frame says that it was given, not predicted; a red bar that something broke at it, or between it
    and the next one shown.

    Args:
        video: uint8 (T, H, W, 3).
        indices: Which frames, ascending.
        given: Number of leading frames that were given.
        marked: Frames at which something broke.
        side_px: Longer side of larger frames.
    """
    cells = []
    ends = [*indices[1:], len(video)]
    for start, end in zip(indices, ends, strict=True):
        frame = _shrunk(video[start], side_px)
        bar = np.zeros((_BAR_PX, frame.shape[1], 4), np.uint8)
        if any(start <= m < end for m in marked):
            bar[:] = (*MARKED_RGB, 255)
        elif start < given:
            bar[:] = (*GIVEN_RGB, 255)
        cells.append(np.concatenate([_opaque(frame), bar]))
    return data_uri(_png(beside(cells)), "image/png")


def every_kth(count: int, columns: int) -> list[int]:
    """At most `columns` frame indices at equal distances, beginning with 0."""
    return list(range(0, count, -(-count // columns)))


def tracks_picture(frames: np.ndarray, tracks: Tracks, side_px: int = 320) -> np.ndarray:
    """The middle frame, dimmed, with the path of every tracked object: a ring at the start, a disc at the end.

    Args:
        frames: uint8 (T, H, W, 3).
        tracks: Its tracks.
        side_px: Longer side of the picture; small frames are enlarged without smoothing.

    Returns:
        uint8 (H', W', 3).
    """
    height, width = frames.shape[1:3]
    scale = max(1, round(side_px / max(height, width)))
    base = frames[len(frames) // 2]
    picture = cv2.resize(base, (width * scale, height * scale), interpolation=cv2.INTER_NEAREST)
    picture = (picture.astype(np.float32) * 0.45 + 140.0).astype(np.uint8)
    to_picture = tracks.scale * scale
    for k in range(len(tracks)):
        colour = SERIES_RGB[k % len(SERIES_RGB)]
        path = tracks.centroid_px[:, k] * to_picture
        seen = np.flatnonzero(np.isfinite(path).all(axis=1))
        for a, b in pairwise(seen):
            _segment(picture, path[a], path[b], colour, thickness=2 if b == a + 1 else 1)
        if len(seen):
            _disc(picture, path[seen[0]], colour, thickness=2)
            _disc(picture, path[seen[-1]], colour, thickness=-1)
    return picture


def heat(values: np.ndarray, high: float, side_px: int = 256) -> np.ndarray:
    """A map of values: black at 0 through red to white at `high` and above; grey where there is none.

    Args:
        values: (H, W) float, NaN where there is no value.
        high: What becomes white.
        side_px: Longer side; small maps are enlarged without smoothing.

    Returns:
        uint8 (H', W', 3).
    """
    known = np.isfinite(values)
    level = (np.clip(np.where(known, values, 0.0) / high, 0.0, 1.0) * 255).astype(np.uint8)
    coloured = cv2.applyColorMap(level, cv2.COLORMAP_HOT)[..., ::-1].copy()
    coloured[~known] = 128
    return enlarged(coloured, side_px)


def enlarged(image: np.ndarray, side_px: int) -> np.ndarray:
    """A small image enlarged by a whole factor without smoothing, so that its longer side comes near `side_px`."""
    scale = max(1, round(side_px / max(image.shape[:2])))
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def picture_uri(image: np.ndarray) -> str:
    """An image, uint8 (H, W, 3) or (H, W, 4), as a PNG data URI."""
    return data_uri(_png(image), "image/png")


def data_uri(content: bytes, mime: str) -> str:
    """Bytes as a data URI."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def check_alike(videos: Sequence[np.ndarray]) -> tuple[int, int, int]:
    """The common (T, H, W) of uint8 (T, H, W, 3) videos.

    Raises:
        MeasureError: If there is none, or they differ in shape.
    """
    shapes = {v.shape for v in videos}
    first = next(iter(shapes), ())
    if len(shapes) != 1 or len(first) != 4 or 0 in first:
        raise MeasureError(
            expected="videos (T, H, W, 3) of one shape to show together",
            got=", ".join(sorted(map(str, shapes))) or "none",
            remedy="Cut them to one length, or show them apart.",
        )
    return first[0], first[1], first[2]


def _shrunk(frame: np.ndarray, side_px: int) -> np.ndarray:
    height, width = frame.shape[:2]
    factor = side_px / max(height, width)
    if factor >= 1.0:
        return frame
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _opaque(frame: np.ndarray) -> np.ndarray:
    return frame if frame.shape[-1] == 4 else np.dstack([frame, np.full(frame.shape[:2], 255, np.uint8)])


def beside(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images in a row with transparent gaps, tops aligned; uint8 (H, W', 4)."""
    height = max(i.shape[0] for i in images)
    parts = []
    for image in images:
        below = height - image.shape[0]
        parts.append(np.pad(_opaque(image), ((0, below), (0, 0), (0, 0))))
        parts.append(np.zeros((height, _GAP_PX, 4), np.uint8))
    return np.concatenate(parts[:-1], axis=1)


def _segment(picture: np.ndarray, a: np.ndarray, b: np.ndarray, colour: tuple[int, ...], thickness: int) -> None:
    cv2.line(picture, _point(a), _point(b), colour, thickness, cv2.LINE_AA)


def _disc(picture: np.ndarray, at: np.ndarray, colour: tuple[int, ...], thickness: int) -> None:
    cv2.circle(picture, _point(at), 5, colour, thickness, cv2.LINE_AA)


def _point(at: np.ndarray) -> tuple[int, int]:
    return round(float(at[0])), round(float(at[1]))


def _png(image: np.ndarray) -> bytes:
    from PIL import Image  # noqa: PLC0415 - only when a report is written

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _webp(frames: Sequence[np.ndarray], frame_ms: float, *, lossless: bool) -> str:
    from PIL import Image  # noqa: PLC0415 - only when a report is written

    images = [Image.fromarray(f) for f in frames]
    # Rounding every frame's end, not its duration, keeps the pace.
    ends = np.round(np.arange(1, len(images) + 1) * frame_ms).astype(int)
    durations = np.diff(ends, prepend=0).tolist()
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
        lossless=lossless,
        quality=60 if lossless else 70,
        method=3,
    )
    return data_uri(buffer.getvalue(), "image/webp")
