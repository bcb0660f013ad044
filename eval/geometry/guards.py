"""What must hold before a geometric number means anything: frames, size, texture, motion, parallax."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from eval.clip import Clip
from eval.errors import MeasureError
from eval.geometry.depth import FLOW_SIDE, dense_flow, flow_margin_px, unexplained_levels
from eval.score import Unmeasurable

# Root mean square gradient (grey levels per pixel, at a shorter side of 256) from which a shift of half a pixel changes
# the picture by more than 8-bit rounding and codec noise do.
TEXTURE_LEVELS_PER_PX = 2.0
_TEXTURE_WINDOW = 9
# Pixels are tested where noise leaves their flow certain to this, at a shorter side of 256.
CERTAIN_PX = 0.5
# A frame with less of the first frame's high-frequency energy than this is too blurred for its matches to count.
MIN_DETAIL = 0.2
# Share of the picture below which a comparison does not stand for the frame.
MIN_TESTED = 0.1


@contextmanager
def refusals() -> Iterator[None]:
    """Turns arrays that a measure or OpenCV refuses into the status `failed`, with the reason."""
    try:
        yield
    except MeasureError as error:
        raise Unmeasurable("failed", str(error)) from error
    except cv2.error as error:
        raise Unmeasurable("failed", f"OpenCV refused the input: {error.err or error}") from error


def require_frames(clip: Clip, minimum: int) -> None:
    """Raises `Unmeasurable` (insufficient) if the clip has fewer than `minimum` frames."""
    if len(clip) < minimum:
        raise Unmeasurable("insufficient", f"needs at least {minimum} frames, has {len(clip)}")


def require_side(clip: Clip, minimum: int) -> None:
    """Raises `Unmeasurable` (insufficient) if the shorter side of the frames is below `minimum` pixels."""
    side = min(clip.frames.shape[1:3])
    if side < minimum:
        raise Unmeasurable(
            "insufficient", f"needs frames of at least {minimum} px, has {side}: matching is near chance"
        )


def structure_tensor(frame: np.ndarray) -> np.ndarray:
    """Products of the gradients around each pixel of a frame uint8 (H, W, 3): float32 (H, W, 3), xx, xy and yy.

    In squared grey levels per pixel at a shorter side of 256, whatever the frame's size, over 9 x 9 pixels.
    """
    image = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    scale = min(image.shape) / FLOW_SIDE / 8
    dx = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3, scale=scale)
    dy = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3, scale=scale)
    return cv2.blur(np.stack([dx * dx, dx * dy, dy * dy], axis=-1), (_TEXTURE_WINDOW, _TEXTURE_WINDOW))


def texture_energy(frame: np.ndarray) -> np.ndarray:
    """Root mean square gradient around each pixel of a frame (H, W, 3): float32 (H, W); see `structure_tensor`."""
    tensor = structure_tensor(frame)
    return np.sqrt(tensor[..., 0] + tensor[..., 2])


def visible_flow(flow: np.ndarray, tensor: np.ndarray) -> np.ndarray:
    """The length of flow that texture can show, (H, W): all of it along the steepest gradient, none along a stripe.

    Flow along a stripe is the solver's guess (the aperture problem). A shift f changes the picture by sqrt(f' G f) with
    the structure tensor G; divided by the root of G's larger eigenvalue, that is a length.

    Args:
        flow: (H, W, 2).
        tensor: (H, W, 3), see `structure_tensor`.
    """
    xx, xy, yy = tensor[..., 0], tensor[..., 1], tensor[..., 2]
    u, v = flow[..., 0], flow[..., 1]
    change = xx * u * u + 2.0 * xy * u * v + yy * v * v
    largest = 0.5 * (xx + yy) + np.sqrt(0.25 * (xx - yy) ** 2 + xy * xy)
    return np.sqrt(np.maximum(change, 0.0) / np.maximum(largest, 1e-12))


def textured(*frames: np.ndarray) -> np.ndarray:
    """Where any of the pictures has texture, (H, W) bool: a pixel that lost it on the way stays in the denominator."""
    return np.maximum.reduce([texture_energy(f) for f in frames]) > TEXTURE_LEVELS_PER_PX


def noise_levels(frames: np.ndarray, *, pairs: int = 8) -> float:
    """The video's own noise: standard deviation, in grey levels, of neighbouring frames' difference.

    It is what remains after undoing the flow between them, in the best of a few pairs: the sensor's noise is in all of
    them, changes of the world only in some.

    Args:
        frames: uint8 (T, H, W, 3).
        pairs: How many pairs of neighbours to look at.
    """
    everywhere = np.ones(frames.shape[1:3], bool)
    found = []
    for i in spread(len(frames) - 1, pairs):
        a, b = frames[i], frames[i + 1]
        found.append(unexplained_levels(a, b, dense_flow(a, b), everywhere))
    return min(found, default=0.0)


def least_texture(frames: np.ndarray, *, pairs: int = 8) -> float:
    """Texture that a pixel needs for flow to be certain to half a pixel under the video's own noise.

    Args:
        frames: uint8 (T, H, W, 3).
        pairs: How many pairs of neighbours to look at, see `noise_levels`.

    Returns:
        In the unit of `texture_energy`, at least `TEXTURE_LEVELS_PER_PX`.
    """
    margin_at_one = float(flow_margin_px(noise_levels(frames, pairs=pairs), np.ones(1))[0])
    return max(TEXTURE_LEVELS_PER_PX, margin_at_one / CERTAIN_PX)


def detail_kept(greys: np.ndarray) -> np.ndarray:
    """High-frequency energy of each frame as a share of the first frame's, (T,); at most 1 means detail was lost.

    The energy is the mean square of the Laplacian. A video that blurs keeps few matches, and those are good: without
    this it would win.

    Args:
        greys: uint8 (T, H, W).
    """
    energy = np.array([float((cv2.Laplacian(g, cv2.CV_32F) ** 2).mean()) for g in greys])
    return np.divide(energy, energy[0], out=np.ones(len(energy)), where=energy[0] > 0)


def spread(indices: int, most: int) -> np.ndarray:
    """At most `most` of `range(indices)`, evenly spread, first and last included."""
    if indices <= most:
        return np.arange(indices)
    return np.unique(np.linspace(0, indices - 1, most).round().astype(int))
