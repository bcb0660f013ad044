"""By how much a texture slid, at least, for two pictures of one surface to differ as they do."""

import cv2
import numpy as np

# Pictures are smoothed by a Gaussian of this many pixels: what two samplings of one surface disagree on lies above it.
_SOFT_PX = 1.0
# What a Gaussian of that width leaves of white noise, over what it takes away: sqrt(a / (1 - 2b + a)), where
# a = 1 / (4 pi s^2) and b = 1 / (2 pi s^2) are the sum of its squares and its centre.
_NOISE_LEFT = 0.32
_WINDOW = 9
# Fewer pixels than these, or fewer gradients among them, make no window.
LEAST_PIXELS, _LEAST_GRADIENTS = 12, 4
_SQUARE = np.ones((3, 3), np.uint8)


def least_shift(a: np.ndarray, b: np.ndarray, mask: np.ndarray, least_texture: float) -> np.ndarray:
    """By how many pixels texture must have slid, at least, for two pictures of a face to differ as they do.

    In a window, b is fitted to a by a gain and an offset, so light that changes evenly costs nothing. What is left,
    less what the pictures' own noise explains, over the steepest gradient of either, is the least shift: no texture
    changes by more than shift times gradient. Noise is what smoothing removes from the difference, taken as white.

    Args:
        a: (H, W, C) float32.
        b: (H, W, C) float32.
        mask: (H, W) bool, the pixels of the face in both.
        least_texture: Root of the mean square gradient, along the steepest direction, that a tested window shows.

    Returns:
        (H, W) float32, NaN where not tested.
    """
    inside = mask.astype(np.float32)
    count = _sums(inside)
    smooth_a, smooth_b = _smooth(a, inside), _smooth(b, inside)
    noise = _noise(a, b, smooth_a, smooth_b, mask)
    a_variance, b_variance, covariance = _moments(smooth_a, smooth_b, inside, count)
    alike = np.maximum(covariance, 0.0) ** 2 / np.maximum(a_variance * b_variance, 1e-9)
    left = (1.0 - np.minimum(alike, 1.0)) * np.maximum(a_variance, b_variance)
    core = cv2.erode(inside, _SQUARE)
    gradients = _sums(core)
    steepest = np.maximum(_steepest(smooth_a, core, gradients), _steepest(smooth_b, core, gradients))
    tested = mask & (count >= LEAST_PIXELS) & (gradients >= _LEAST_GRADIENTS) & (steepest > least_texture**2)
    slid = np.sqrt(np.maximum(left - noise, 0.0) / np.maximum(steepest, 1e-9))
    return np.where(tested, slid, np.float32(np.nan))


def _smooth(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A Gaussian that looks at pixels of the mask (H, W) float32 alone."""
    weight = cv2.GaussianBlur(inside, (0, 0), _SOFT_PX)
    blurred = cv2.GaussianBlur(image * inside[..., None], (0, 0), _SOFT_PX)
    return blurred.reshape(image.shape) / np.maximum(weight, 1e-6)[..., None]


def _sums(values: np.ndarray) -> np.ndarray:
    """Sums over windows; outside the picture there is nothing."""
    return cv2.boxFilter(values, -1, (_WINDOW, _WINDOW), normalize=False, borderType=cv2.BORDER_CONSTANT)


def _noise(a: np.ndarray, b: np.ndarray, smooth_a: np.ndarray, smooth_b: np.ndarray, mask: np.ndarray) -> float:
    """Variance, summed over channels, of what noise is left in the difference of the smoothed pictures."""
    # By the brighter picture's measure, as the least shift is: a paler one is made to look like it.
    spread_a, spread_b = (float(s[mask].std(axis=0).sum()) for s in (smooth_a, smooth_b))
    most = max(spread_a, spread_b)
    if min(spread_a, spread_b) <= 1e-3 * most:
        return 0.0
    rough = ((a - smooth_a) * (most / spread_a) - (b - smooth_b) * (most / spread_b))[mask]
    return _NOISE_LEFT**2 * float((rough**2).sum()) / max(len(rough), 1)


def _moments(
    a: np.ndarray, b: np.ndarray, inside: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variances of a and b and their covariance in windows of the mask, summed over channels; (H, W) each."""
    mask, many = inside[..., None], np.maximum(count, 1.0)[..., None]
    # Offsets cancel; without them, float32 keeps the small differences of large squares.
    a, b = a - a[inside > 0].mean(axis=0), b - b[inside > 0].mean(axis=0)

    def mean(values: np.ndarray) -> np.ndarray:
        return _sums(values * mask).reshape(values.shape) / many

    mean_a, mean_b = mean(a), mean(b)
    moments = mean(a * a) - mean_a * mean_a, mean(b * b) - mean_b * mean_b, mean(a * b) - mean_a * mean_b
    a_variance, b_variance, covariance = (m.sum(axis=-1) for m in moments)
    return np.maximum(a_variance, 0.0), np.maximum(b_variance, 0.0), covariance


def _steepest(image: np.ndarray, core: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Mean square gradient along the steepest direction in windows of the mask, summed over channels; (H, W)."""
    dx, dy = (
        cv2.Sobel(image, cv2.CV_32F, *order, ksize=3, scale=1 / 8).reshape(image.shape) for order in ((1, 0), (0, 1))
    )
    xx, xy, yy = (
        _sums(product.sum(axis=-1) * core) / np.maximum(count, 1.0) for product in (dx * dx, dx * dy, dy * dy)
    )
    return 0.5 * (xx + yy) + np.sqrt(0.25 * (xx - yy) ** 2 + xy * xy)
