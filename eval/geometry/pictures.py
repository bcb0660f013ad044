"""Pictures for reports: each function returns an RGB array, uint8 (H, W, 3)."""

import cv2
import numpy as np

from eval.geometry.known_depth import PairCheck
from eval.geometry.sfm import Reconstruction

_INK, _GRID = (40, 40, 40), (215, 215, 215)
_SERIES = ((38, 102, 178), (200, 90, 30))


def epipolar_lines(
    frame_a: np.ndarray,
    frame_b: np.ndarray,
    points_a: np.ndarray,
    points_b: np.ndarray,
    F: np.ndarray,
    *,
    threshold_px: float = 2.0,
    most: int = 40,
) -> np.ndarray:
    """Two frames side by side: matches in a, and in b their epipolar lines and partners.

    Green where the partner lies within `threshold_px` of its line, red where it does not.

    Args:
        frame_a: uint8 (H, W, 3).
        frame_b: uint8 (H, W, 3).
        points_a: (N, 2) pixels, centres at +0.5.
        points_b: (N, 2).
        F: (3, 3), x_b^T F x_a = 0.
        threshold_px: Distance that counts as consistent.
        most: Matches to draw, evenly chosen.
    """
    scale = max(1, round(384 / frame_a.shape[0]))
    a, b = (cv2.resize(f, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST) for f in (frame_a, frame_b))
    height, width = b.shape[:2]
    chosen = np.unique(np.linspace(0, len(points_a) - 1, min(most, len(points_a))).round().astype(int))
    for pa, pb in zip(points_a[chosen], points_b[chosen], strict=True):
        line = F @ [*pa, 1.0]
        norm = np.hypot(line[0], line[1])
        distance = abs(line @ [*pb, 1.0]) / norm if norm > 0 else np.inf
        colour = (30, 160, 60) if distance <= threshold_px else (210, 40, 40)
        cv2.circle(a, _pixel(pa * scale), scale + 1, colour, -1, cv2.LINE_AA)
        cv2.circle(b, _pixel(pb * scale), scale + 1, colour, -1, cv2.LINE_AA)
        ends = _line_ends(line, width / scale, height / scale)
        if ends is not None:
            cv2.line(b, _pixel(ends[0] * scale), _pixel(ends[1] * scale), colour, 1, cv2.LINE_AA)
    return np.concatenate([a, np.full((height, 4, 3), 255, np.uint8), b], axis=1)


def residual_heat(frame: np.ndarray, check: PairCheck, *, most_px: float = 2.0) -> np.ndarray:
    """The frame, darkened, with the residual flow on top: blue is none, red `most_px` and more; untested pixels bare.

    Args:
        frame: uint8 (H, W, 3), the target of the check.
        check: See `eval.geometry.known_depth.check_pair`.
        most_px: Flow at the end of the colour scale, in pixels at a shorter side of 256.
    """
    level = np.clip(np.nan_to_num(check.flow_px) / most_px, 0.0, 1.0)
    heat = cv2.cvtColor(
        cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB
    ).astype(np.float32)
    grey = np.repeat(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.float32)
    mixed = np.where(check.tested[..., None], 0.35 * grey + 0.65 * heat, 0.6 * grey)
    return mixed.round().astype(np.uint8)


def sparse_cloud(
    points: np.ndarray, colours: np.ndarray, world_from_camera: np.ndarray, *, side: int = 480
) -> np.ndarray:
    """Bird's-eye view of points and cameras, along the direction in which the cameras' images point down.

    Args:
        points: (N, 3) in any world frame.
        colours: (N, 3) uint8.
        world_from_camera: (T, 4, 4); NaN where a frame was not registered.
        side: Height and width of the picture.
    """
    picture = np.full((side, side, 3), 255, np.uint8)
    cameras = world_from_camera[np.isfinite(world_from_camera).all(axis=(1, 2))]
    if not len(cameras):
        return _with_text(picture, "no camera was recovered")
    # Mean image "down" is the plan's normal; mean "forward", made orthogonal to it, points up the page.
    down = cameras[:, :3, 1].mean(axis=0)
    down /= np.linalg.norm(down)
    forward = cameras[:, :3, 2].mean(axis=0)
    forward -= (forward @ down) * down
    forward = forward / np.linalg.norm(forward) if np.linalg.norm(forward) > 1e-6 else cameras[0, :3, 0]
    plan = np.stack([np.cross(down, forward), -forward])
    centres = cameras[:, :3, 3] @ plan.T
    flat = points @ plan.T
    everything = np.concatenate([centres, flat]) if len(flat) else centres
    low, high = np.quantile(everything, [0.02, 0.98], axis=0)
    low, high = np.minimum(low, centres.min(axis=0)), np.maximum(high, centres.max(axis=0))
    scale = 0.86 * side / max(float((high - low).max()), 1e-9)

    def place(at: np.ndarray) -> np.ndarray:
        return (at - (low + high) / 2) * scale + side / 2

    for at, colour in zip(place(flat), colours.tolist(), strict=True):
        if (np.abs(at) < 4 * side).all():
            cv2.circle(picture, _pixel(at), 1, colour, -1, cv2.LINE_AA)
    cv2.polylines(picture, [place(centres).round().astype(np.int32)], isClosed=False, color=_SERIES[0], thickness=1)
    for camera, at in zip(cameras, place(centres), strict=True):
        for edge in (-0.5, 0.5):
            ray = (camera[:3, 2] + edge * camera[:3, 0]) @ plan.T
            cv2.line(picture, _pixel(at), _pixel(at + 0.06 * side * ray), _SERIES[0], 1, cv2.LINE_AA)
    return picture


def reconstruction(model: Reconstruction, *, side: int = 480) -> np.ndarray:
    """`sparse_cloud` of a structure-from-motion model."""
    return sparse_cloud(model.points, model.colours, model.world_from_camera, side=side)


def forgetting_curve(
    away_frames: list[float], share: list[float], reference_share: list[float] | None = None, *, side: int = 320
) -> np.ndarray:
    """What is kept of a place (0 chance, 1 all) by frames looked away; blue the video, orange the true world.

    Args:
        away_frames: (L,) increasing.
        share: (L,), see `eval.geometry.memory.forgetting_curve`.
        reference_share: (L,) of the true video, or None.
        side: Height of the picture; the width is one and a half times as much.
    """
    width, left, bottom, top = side * 3 // 2, 52, side - 40, 16
    picture = np.full((side, width, 3), 255, np.uint8)
    right = width - 16
    lowest = min(0.0, *share, *(reference_share or [0.0]))
    first, last = min(away_frames), max(away_frames)

    def place(x: float, y: float) -> np.ndarray:
        along = (x - first) / (last - first) if last > first else 0.5
        return np.array([left + along * (right - left), bottom - (y - lowest) / (1.0 - lowest) * (bottom - top)])

    for level in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = place(first, level)[1]
        cv2.line(picture, (left, round(y)), (right, round(y)), _GRID, 1)
        _text(picture, f"{level:.2f}", (8, round(y) + 4))
    for x in sorted({first, last}):
        _text(picture, f"{x:g}", (round(place(x, 0)[0]) - 6, bottom + 16))
    _text(picture, "frames looked away", (left, side - 8))
    for series, colour in ((reference_share, _SERIES[1]), (share, _SERIES[0])):
        if series is not None:
            path = np.array([place(x, y) for x, y in zip(away_frames, series, strict=True)])
            cv2.polylines(picture, [path.round().astype(np.int32)], isClosed=False, color=colour, thickness=2)
            for at in path:
                cv2.circle(picture, _pixel(at), 3, colour, -1, cv2.LINE_AA)
    return picture


def _line_ends(line: np.ndarray, width: float, height: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Where a line a x + b y + c = 0 crosses the border of a picture; None if it does not."""
    a, b, c = line
    ends = []
    if abs(b) > 1e-12:
        ends += [np.array([x, -(a * x + c) / b]) for x in (0.0, width)]
    if abs(a) > 1e-12:
        ends += [np.array([-(b * y + c) / a, y]) for y in (0.0, height)]
    inside = [e for e in ends if -1e-6 <= e[0] <= width + 1e-6 and -1e-6 <= e[1] <= height + 1e-6]
    return (inside[0], max(inside, key=lambda e: float(np.linalg.norm(e - inside[0])))) if len(inside) >= 2 else None


def _pixel(at: np.ndarray) -> tuple[int, int]:
    """OpenCV's integer coordinates of a position with pixel centres at +0.5."""
    x, y = np.floor(at).astype(int)
    return int(x), int(y)


def _text(picture: np.ndarray, text: str, at: tuple[int, int]) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, _INK, 1, cv2.LINE_AA)


def _with_text(picture: np.ndarray, text: str) -> np.ndarray:
    _text(picture, text, (12, picture.shape[0] // 2))
    return picture
