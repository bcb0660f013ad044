"""Pictures for reports: each function returns an RGB array, uint8 (H, W, 3)."""

import cv2
import numpy as np

from eval.geometry.known_depth import PairCheck
from eval.geometry.pose import unproject
from eval.geometry.sfm import Reconstruction

_INK = (40, 40, 40)
_CAMERA = (38, 102, 178)


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
    cv2.polylines(picture, [place(centres).round().astype(np.int32)], isClosed=False, color=_CAMERA, thickness=1)
    for camera, at in zip(cameras, place(centres), strict=True):
        for edge in (-0.5, 0.5):
            ray = (camera[:3, 2] + edge * camera[:3, 0]) @ plan.T
            cv2.line(picture, _pixel(at), _pixel(at + 0.06 * side * ray), _CAMERA, 1, cv2.LINE_AA)
    return picture


def reconstruction(model: Reconstruction, *, side: int = 480) -> np.ndarray:
    """`sparse_cloud` of a structure-from-motion model."""
    return sparse_cloud(model.points, model.colours, model.world_from_camera, side=side)


def depth_cloud(
    frames: np.ndarray, depth_m: np.ndarray, world_from_camera: np.ndarray, K: np.ndarray, *, side: int = 480
) -> np.ndarray:
    """`sparse_cloud` of what known depth and cameras say: where frames disagree, colours mix.

    What lies above the cameras (a ceiling) is left out; what lies higher is drawn over what lies lower.

    Args:
        frames: uint8 (T, H, W, 3).
        depth_m: (T, H, W), along the optical axis.
        world_from_camera: (T, 4, 4).
        K: (3, 3) in pixels.
        side: Height and width of the picture.
    """
    stride = max(1, min(depth_m.shape[1:]) // 48)
    thin = (slice(stride // 2, None, stride),) * 2
    points, colours = [], []
    for frame, depth, pose in zip(frames, depth_m, world_from_camera, strict=True):
        known = np.isfinite(depth) & (depth > 0)
        rays = unproject(np.where(known, depth, 1.0), K).T.reshape(*depth.shape, 3)
        kept = known[thin]
        points.append(rays[thin][kept] @ pose[:3, :3].T + pose[:3, 3])
        colours.append(frame[thin][kept])
    cloud = np.concatenate(points)
    fall = cloud @ world_from_camera[:, :3, 1].mean(axis=0)
    eye = float((world_from_camera[:, :3, 3] @ world_from_camera[:, :3, 1].mean(axis=0)).mean())
    order = np.argsort(-fall)
    order = order[fall[order] > eye]
    return sparse_cloud(cloud[order], np.concatenate(colours)[order], world_from_camera, side=side)


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
