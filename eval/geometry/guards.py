"""What must hold before a geometric number means anything: frames, size, texture, motion, parallax."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from eval.clip import Clip
from eval.errors import MeasureError
from eval.score import Unmeasurable

# Root mean square gradient (grey levels per pixel, at a shorter side of 256) from which a shift of half a pixel changes
# the picture by more than 8-bit rounding and codec noise do.
TEXTURE_LEVELS_PER_PX = 2.0
_TEXTURE_WINDOW = 9


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


def texture_energy(grey: np.ndarray) -> np.ndarray:
    """Root mean square gradient over 9 x 9 pixels of an image (H, W), in grey levels per pixel; float32 (H, W)."""
    image = grey.astype(np.float32)
    dx = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    dy = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    return np.sqrt(cv2.blur(dx * dx + dy * dy, (_TEXTURE_WINDOW, _TEXTURE_WINDOW)))


def spread(indices: int, most: int) -> np.ndarray:
    """At most `most` of `range(indices)`, evenly spread, first and last included."""
    if indices <= most:
        return np.arange(indices)
    return np.unique(np.linspace(0, indices - 1, most).round().astype(int))
