"""Dense optical flow between two frames, and where it can be believed."""

import cv2
import numpy as np

MIN_SIDE_PX = 16
FLOW_SIDE_PX = 128
MAX_FLOW_SIDE_PX = 512
# Brightness that flow may miss, in levels and as a share of what standing still would miss.
EXPLAINED_LEVELS, EXPLAINED_SHARE = 8.0, 0.25


def flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dense optical flow (H, W, 2) in pixels from luminance a to b (H, W), by DIS.

    Kroeger et al., Fast optical flow using dense inverse search, ECCV 2016, as in OpenCV. Small frames are enlarged
    first: the method works on patches of 8 pixels.
    """
    height, width = a.shape
    scale = max(1.0, FLOW_SIDE_PX / min(height, width))
    scale = min(scale, MAX_FLOW_SIDE_PX / max(height, width))
    size = max(MIN_SIDE_PX, round(width * scale)), max(MIN_SIDE_PX, round(height * scale))
    first, second = (_levels(cv2.resize(p, size, interpolation=cv2.INTER_LINEAR)) for p in (a, b))
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    found = dis.calc(first, second, np.zeros((size[1], size[0], 2), np.float32))
    back = cv2.resize(np.asarray(found), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(back * np.array([width / size[0], height / size[1]], np.float32))


def warp(picture: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """The picture (H, W) read at x + displacement (H, W, 2), bilinear; NaN outside."""
    height, width = picture.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        picture,
        x + displacement[..., 0],
        y + displacement[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=float("nan"),
    )


def consistent(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """(H, W) bool on the second frame's grid: both flows cancel, up to 1 % of their squared lengths plus 0.5.

    Sundaram, Brox & Keutzer, Dense point trajectories by GPU-accelerated large displacement optical flow, ECCV 2010.
    """
    there = np.stack([warp(np.ascontiguousarray(forward[..., c]), backward) for c in (0, 1)], axis=-1)
    apart = np.sum((there + backward) ** 2, axis=-1)
    return apart < 0.01 * (np.sum(there**2, axis=-1) + np.sum(backward**2, axis=-1)) + 0.5


def explained(a: np.ndarray, b: np.ndarray, forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """(H, W) bool on the grid of b: where flow between a and b is consistent and leads to the same brightness."""
    off = np.abs(warp(a, backward) - b)
    return consistent(forward, backward) & (off < np.maximum(EXPLAINED_LEVELS, EXPLAINED_SHARE * np.abs(a - b)))


def _levels(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)
