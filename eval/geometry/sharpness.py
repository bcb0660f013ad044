"""Do pictures hold the detail that their pixels promise? The blur of their edges, in pixels, without a reference.

A step blurred by a Gaussian of s pixels keeps s / sqrt(s^2 + s0^2) of its steepest gradient when blurred again by one
of s0 pixels, whatever its contrast: the gradients before and after tell s (Zhuo and Sim 2011, *Defocus map estimation
from a single image*).

Blur takes away the high frequencies on which disagreement shows. What is left may agree better than sharp pictures do,
so a measure of agreement asks first whether there was anything to disagree on.
"""

import cv2
import numpy as np

from eval.score import Unmeasurable

# Sampling leaves a blur of half a pixel (Lowe 2004). With twice that a picture shows no more than one of half its side.
BLURRED_PX = 1.0
# By which an edge is blurred again: little, for what lies beside it must not run into it.
_REBLUR_PX = 0.7
# Rounding to 8 bits changes a gradient by 0.12 grey levels per pixel (standard deviation): one of 2 by a sixteenth.
_EDGE_LEVELS_PER_PX = 2.0
# A difference over two pixels is the derivative averaged over as many: a box of this variance blurs the edge as well.
_DERIVATIVE_PX2 = 2.0**2 / 12.0
# Side of the window in which an edge's gradient is the greatest.
_APART = np.ones((5, 5), np.uint8)
_BORDER_PX = 3
_LEAST_EDGES = 10
_LEAST_RATIO = 1e-3


def edge_blur_px(frame: np.ndarray) -> float:
    """Median blur of a picture's edges, as the standard deviation of a Gaussian in its own pixels.

    Pictures sampled over their pixels' area read about 0.5. Noise makes it less, and so does a neighbouring edge: dense
    texture reads low, by a quarter at most where its blur was known.

    Args:
        frame: uint8 (H, W, 3).

    Returns:
        NaN where there are fewer than ten edges, local maxima of the gradient of two grey levels per pixel or more.
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    before, after = _gradient(grey), _gradient(cv2.GaussianBlur(grey, (0, 0), _REBLUR_PX))
    edges = (before > _EDGE_LEVELS_PER_PX) & (before == cv2.dilate(before, _APART))
    inner = (slice(_BORDER_PX, -_BORDER_PX),) * 2
    at = edges[inner]
    if at.sum() < _LEAST_EDGES:
        return float("nan")
    lost = (before[inner][at] / np.maximum(after[inner][at], _LEAST_RATIO)) ** 2 - 1.0
    variance = _REBLUR_PX**2 / np.maximum(lost, _LEAST_RATIO) - _DERIVATIVE_PX2
    return float(np.sqrt(max(float(np.median(variance)), 0.0)))


def require_sharp(frames: np.ndarray) -> None:
    """Refuses pictures too blurred for their size: more than half are, or show no edge by which to tell.

    Args:
        frames: uint8 (T, H, W, 3), as they will be measured.

    Raises:
        Unmeasurable: `insufficient`, with the blur that was found.
    """
    blur = np.array([edge_blur_px(frame) for frame in frames])
    if 2 * (blur < BLURRED_PX).sum() >= len(frames):
        return
    if 2 * np.isnan(blur).sum() > len(frames):
        raise Unmeasurable("insufficient", "most frames show no edge by which to tell their blur: too little texture")
    typical, side = np.nanmedian(blur[~(blur < BLURRED_PX)]), min(frames.shape[1:3])
    raise Unmeasurable(
        "insufficient", f"frames are blurred by {typical:.2g} px of {side} a side: too little detail to disagree"
    )


def _gradient(grey: np.ndarray) -> np.ndarray:
    """Length of the gradient, grey levels per pixel."""
    return np.hypot(*(cv2.Sobel(grey, cv2.CV_32F, *d, ksize=3, scale=1 / 8) for d in ((1, 0), (0, 1))))
