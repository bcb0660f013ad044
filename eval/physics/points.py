"""Point tracks and camera motion, for footage in which objects cannot be cut out by colour.

Corners (Shi and Tomasi, CVPR 1994) are followed by pyramidal Lucas-Kanade in both directions of time; a point counts
from frame to frame only if it comes back to where it started. The camera's motion is the homography that most points
share (MAGSAC++, Barath et al., CVPR 2020), which is exact for a turning camera and for a flat scene.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from eval.score import Unmeasurable

MAX_POINTS = 400
# A point that returns further than this from its start was lost.
RETURN_PX = 0.5
MIN_POINTS = 12
INLIER_PX = 1.0
MIN_INLIER_SHARE = 0.4


@dataclass(frozen=True, kw_only=True)
class PointTracks:
    """P points over T frames, in pixels (x right, y down, pixel centres at +0.5).

    Attributes:
        position_px: (T, P, 2), NaN before a point is found and after it is lost.
        error_px: (T, P) distance by which the point missed its start when followed back; NaN in its first frame.
    """

    position_px: np.ndarray
    error_px: np.ndarray


def point_tracks(frames: np.ndarray, *, max_points: int = MAX_POINTS) -> PointTracks:
    """Follows up to `max_points` corners of uint8 (T, H, W, 3) at a time; new ones replace those that are lost."""
    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
    columns: list[np.ndarray] = []
    errors: list[np.ndarray] = []
    alive: list[int] = []
    for t in range(len(grey)):
        if t > 0 and alive:
            before = np.array([columns[k][t - 1] for k in alive], np.float32)
            moved, error = _follow(grey[t - 1], grey[t], before)
            for k, point, missed in zip(alive, moved, error, strict=True):
                columns[k][t], errors[k][t] = point, missed
            alive = [k for k, missed in zip(alive, error, strict=True) if np.isfinite(missed)]
        for corner in _new_corners(grey[t], [columns[k][t] for k in alive], max_points - len(alive)):
            columns.append(np.full((len(grey), 2), np.nan))
            errors.append(np.full(len(grey), np.nan))
            columns[-1][t] = corner
            alive.append(len(columns) - 1)
    shape = (len(grey), 0)
    if not columns:
        return PointTracks(position_px=np.empty((*shape, 2)), error_px=np.empty(shape))
    # OpenCV puts pixel centres at whole numbers.
    return PointTracks(position_px=np.stack(columns, axis=1) + 0.5, error_px=np.stack(errors, axis=1))


def camera_motion(tracks: PointTracks) -> np.ndarray:
    """Homographies (T, 3, 3) that carry pixels of frame 0 to frame t, chained from frame to frame.

    Raises:
        Unmeasurable: If two frames share too few points, or too few of them agree on one homography.
    """
    homographies = [np.eye(3)]
    for t in range(1, len(tracks.position_px)):
        a, b = tracks.position_px[t - 1], tracks.position_px[t]
        both = np.isfinite(a[:, 0]) & np.isfinite(b[:, 0])
        if both.sum() < MIN_POINTS:
            raise Unmeasurable(
                "insufficient", f"frames {t - 1} and {t} share {both.sum()} points, {MIN_POINTS} are needed"
            )
        found, inliers = cv2.findHomography(a[both], b[both], cv2.USAC_MAGSAC, INLIER_PX)
        if found is None or inliers.mean() < MIN_INLIER_SHARE:
            raise Unmeasurable("insufficient", f"the points of frames {t - 1} and {t} share no camera motion")
        homographies.append(np.asarray(found) @ homographies[-1])
    return np.stack(homographies)


def stabilised(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frames (T, H, W, 3) as a camera that stands still at the middle frame sees them, and where it saw (T, H, W).

    Raises:
        Unmeasurable: As `camera_motion`.
    """
    homographies = camera_motion(point_tracks(frames))
    height, width = frames.shape[1:3]
    to_middle = homographies[len(frames) // 2] @ np.linalg.inv(homographies)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    # From OpenCV's whole-numbered pixel centres to ours and back.
    moves = np.linalg.inv(half) @ to_middle @ half
    full = np.full((height, width), 255, np.uint8)
    still = [cv2.warpPerspective(f, m, (width, height)) for f, m in zip(frames, moves, strict=True)]
    seen = [cv2.warpPerspective(full, m, (width, height)) == 255 for m in moves]
    return np.stack(still), np.stack(seen)


def _follow(a: np.ndarray, b: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in b (P, 2) and how far each missed its start on the way back; NaN where lost."""
    there, found, _ = cv2.calcOpticalFlowPyrLK(a, b, points, np.empty_like(points))
    back, returned, _ = cv2.calcOpticalFlowPyrLK(b, a, there, np.empty_like(points))
    missed = np.linalg.norm(back - points, axis=1).astype(float)
    height, width = a.shape
    inside = (there >= 0).all(axis=1) & (there[:, 0] <= width - 1) & (there[:, 1] <= height - 1)
    lost = (found.ravel() == 0) | (returned.ravel() == 0) | (missed > RETURN_PX) | ~inside
    moved = there.astype(float)
    moved[lost], missed[lost] = np.nan, np.nan
    return moved, missed


def _new_corners(grey: np.ndarray, known: list[np.ndarray], wanted: int) -> np.ndarray:
    if wanted < MAX_POINTS // 8:
        return np.empty((0, 2))
    mask = np.full(grey.shape, 255, np.uint8)
    for x, y in known:
        cv2.circle(mask, (round(float(x)), round(float(y))), 5, 0, -1)
    corners = cv2.goodFeaturesToTrack(grey, wanted, 0.01, 5, mask=mask)
    return np.empty((0, 2)) if corners is None else corners.reshape(-1, 2)
