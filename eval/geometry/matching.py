"""Sparse matches between two frames: SIFT (Lowe 2004), mutual nearest neighbours with Lowe's ratio test."""

from dataclasses import dataclass

import cv2
import numpy as np

from eval.errors import MeasureError


@dataclass(frozen=True)
class Features:
    """Keypoints of a frame: `points` (N, 2) in pixels with centres at +0.5, `descriptors` (N, 128)."""

    points: np.ndarray
    descriptors: np.ndarray

    def __len__(self) -> int:
        return len(self.points)


def detect(frame: np.ndarray, *, max_features: int = 2000) -> Features:
    """SIFT keypoints of a frame (H, W, 3) or (H, W), uint8; none on a frame without texture.

    OpenCV puts integers at pixel centres; half a pixel is added to keep the package's convention.

    Raises:
        MeasureError: If the frame is something else.
    """
    if frame.dtype != np.uint8 or not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[-1] == 3)):
        raise MeasureError(
            expected="a frame uint8 (H, W, 3) or (H, W)",
            got=f"{frame.dtype} {frame.shape}",
            remedy="eval.clip.as_frames converts float video.",
        )
    grey = frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = cv2.SIFT.create(nfeatures=max_features).detectAndCompute(grey, None)
    if descriptors is None or not keypoints:
        return Features(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
    return Features(np.array([k.pt for k in keypoints], dtype=np.float64) + 0.5, descriptors)


def match(a: Features, b: Features, *, ratio: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Indices (M,), (M,) of matches: mutual nearest neighbours, nearer than `ratio` times the second nearest."""
    if len(a) < 2 or len(b) < 2:
        return np.zeros(0, int), np.zeros(0, int)
    # |a - b|^2 = |a|^2 + |b|^2 - 2ab: one matrix product instead of a brute-force matcher's loop.
    A, B = a.descriptors.astype(np.float32), b.descriptors.astype(np.float32)
    square = (A * A).sum(1)[:, None] + (B * B).sum(1)[None, :] - 2.0 * A @ B.T
    two = np.partition(square, 1, axis=1)[:, :2]
    nearest = square.argmin(axis=1)
    mutual = square.argmin(axis=0)[nearest] == np.arange(len(a))
    kept = np.flatnonzero(mutual & (np.maximum(two[:, 0], 0.0) < ratio**2 * np.maximum(two[:, 1], 0.0)))
    return kept, nearest[kept]


def matched_points(frame_a: np.ndarray, frame_b: np.ndarray, *, ratio: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (M, 2) in a and (M, 2) in b of the SIFT matches of two frames."""
    a, b = detect(frame_a), detect(frame_b)
    in_a, in_b = match(a, b, ratio=ratio)
    return a.points[in_a], b.points[in_b]
