"""A small analytic world for tests: textured rectangles by ray-plane intersection, with exact depth and pose."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from eval.clip import Clip

DATA = Path(__file__).parents[2] / "data"


@dataclass
class Quad:
    """A rectangle `origin + s * u + t * v`, s and t in [0, 1], with a texture and an object slot (0: background)."""

    origin: np.ndarray
    u: np.ndarray
    v: np.ndarray
    texture: np.ndarray
    slot: int = 0


@dataclass
class Scene:
    quads: list[Quad] = field(default_factory=list)


def texture(rng, *, cells=24, size=384):
    """Smooth random colours with about `cells` cells a side; survives being seen at 64 pixels."""
    coarse = rng.integers(20, 236, (cells, cells, 3), dtype=np.uint8)
    fine = rng.integers(0, 256, (2 * cells, 2 * cells, 3), dtype=np.uint8)
    up = [cv2.resize(t, (size, size), interpolation=cv2.INTER_CUBIC).astype(float) for t in (coarse, fine)]
    return np.clip(0.7 * up[0] + 0.3 * up[1], 0, 255).astype(np.uint8)


def room(seed=0, *, cells=16):
    """A 6 x 6 x 3 m box with three free-standing panels; z up."""
    rng = np.random.default_rng(seed)
    e = np.eye(3)
    o = np.array([-3.0, -3.0, 0.0])
    quads = [
        Quad(o, 6 * e[0], 6 * e[1], texture(rng, cells=2 * cells)),
        Quad(o + 3 * e[2], 6 * e[0], 6 * e[1], texture(rng, cells=2 * cells)),
        Quad(o, 6 * e[0], 3 * e[2], texture(rng, cells=cells)),
        Quad(o + 6 * e[1], 6 * e[0], 3 * e[2], texture(rng, cells=cells)),
        Quad(o, 6 * e[1], 3 * e[2], texture(rng, cells=cells)),
        Quad(o + 6 * e[0], 6 * e[1], 3 * e[2], texture(rng, cells=cells)),
    ]
    panels = [([1.6, -1.2, 0.4], 0.9, 1.4), ([2.2, 0.4, 0.2], 1.1, 1.1), ([1.1, 0.5, 0.9], 0.6, 0.8)]
    for slot, (origin, width, height) in enumerate(panels, start=1):
        quads.append(
            Quad(np.array(origin), width * np.array([0.2, 0.98, 0.0]), height * e[2], texture(rng, cells=8), slot)
        )
    return Scene(quads)


def intrinsics(size, fov_deg=70.0):
    f = size / 2 / np.tan(np.radians(fov_deg) / 2)
    return np.array([[f, 0, size / 2], [0, f, size / 2], [0, 0, 1.0]])


def pose(position, yaw, pitch=0.0):
    """world_from_camera of an OpenCV camera at `position` looking along yaw (from +x, counter-clockwise), z up."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    made = np.eye(4)
    made[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    made[:3, 3] = position
    return made


def path(n=10, *, step=0.06, turn=0.02, start=(-2.0, -0.5, 1.4)):
    """A camera that strafes and turns: n poses."""
    return np.stack([pose(np.array(start) + i * step * np.array([0.5, 1.0, 0.1]), -0.1 + i * turn) for i in range(n)])


def render(scene, world_from_camera, K, size, *, supersample=3):
    """Frame uint8 (size, size, 3), depth_m (size, size) float32, segmentation int16 (size, size)."""
    colour, _, _ = _trace(scene, world_from_camera, K, size, supersample)
    frame = cv2.resize(colour, (size, size), interpolation=cv2.INTER_AREA)
    _, depth, slots = _trace(scene, world_from_camera, K, size, 1)
    return np.round(frame).astype(np.uint8), depth.astype(np.float32), slots.astype(np.int16)


def film(scene, poses, *, size=64, scene_at=None, fps=10.0, **kwargs):
    """A `Clip` along `poses` with full truth; `scene_at(i)` gives the scene of frame i if it changes."""
    K = intrinsics(size)
    shots = [render(scene if scene_at is None else scene_at(i), p, K, size, **kwargs) for i, p in enumerate(poses)]
    frames, depth, slots = (np.stack(x) for x in zip(*shots, strict=True))
    truth = {"depth_m": depth, "segmentation": slots, "world_from_camera": np.asarray(poses), "K": K}
    truth["world_from_object"] = np.broadcast_to(np.eye(4), (len(frames), 3, 4, 4)).copy()
    return Clip(frames=frames, fps=fps, truth=truth)


def _trace(scene, world_from_camera, K, size, supersample):
    n = size * supersample
    y, x = np.mgrid[:n, :n]
    pixels = np.stack([(x + 0.5) / supersample, (y + 0.5) / supersample, np.ones_like(x, float)])
    rays = np.einsum("ij,jhw->ihw", world_from_camera[:3, :3] @ np.linalg.inv(K), pixels)
    eye = world_from_camera[:3, 3]
    depth = np.full((n, n), np.inf)
    colour = np.zeros((n, n, 3), np.float32)
    slots = np.zeros((n, n), int)
    for quad in scene.quads:
        normal = np.cross(quad.u, quad.v)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = normal @ (quad.origin - eye) / np.einsum("i,ihw->hw", normal, rays)
            at = eye[:, None, None] + z * rays - quad.origin[:, None, None]
            s = np.einsum("i,ihw->hw", quad.u, at) / (quad.u @ quad.u)
            t = np.einsum("i,ihw->hw", quad.v, at) / (quad.v @ quad.v)
        hit = (z > 1e-6) & (z < depth) & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
        h, w = quad.texture.shape[:2]
        u = np.where(hit, s * w - 0.5, 0).astype(np.float32)
        v = np.where(hit, t * h - 0.5, 0).astype(np.float32)
        seen = cv2.remap(quad.texture.astype(np.float32), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        colour[hit], depth[hit], slots[hit] = seen[hit], z[hit], quad.slot
    return colour, depth, slots


def wobble(frames, rng, amplitude=3.0):
    """Bends every frame by its own smooth field: no rigid scene explains the sequence."""
    out = []
    for frame in frames:
        field = cv2.resize(
            rng.normal(0, amplitude, (5, 5, 2)).astype(np.float32), frame.shape[1::-1], interpolation=cv2.INTER_CUBIC
        )
        y, x = np.mgrid[: frame.shape[0], : frame.shape[1]].astype(np.float32)
        out.append(
            cv2.remap(frame, x + field[..., 0], y + field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        )
    return np.stack(out)
