"""A small exact world to test evaluators with: frictionless discs and boxes, gravity, walls at the frame's border.

Discs fly on exact parabolas between contacts, which are found by fine substeps; contacts exchange momentum along the
line of centres with a given restitution. Drawn with 8 x 8 samples a pixel.
"""

from dataclasses import dataclass

import numpy as np

BACKGROUND = (232, 232, 226)
RED, BLUE, GREEN, GREY = (214, 39, 40), (40, 80, 210), (44, 160, 60), (150, 150, 150)
SAMPLES = 8
SUBSTEPS = 50


@dataclass
class Ball:
    x: float
    y: float
    vx: float = 0.0
    vy: float = 0.0
    r: float = 5.0
    colour: tuple = RED
    mass: float = 1.0
    shape: str = "disc"
    angle: float = 0.0
    spin: float = 0.0


def simulate(balls, steps, gravity=(0.0, 0.0), restitution=1.0, size=(64, 64), walls=True):
    """Positions (T, N, 2) and angles (T, N) in pixels and radians, y down; one unit of time a frame."""
    h, w = size
    g = np.array(gravity, float)
    x = np.array([[b.x, b.y] for b in balls], float)
    v = np.array([[b.vx, b.vy] for b in balls], float)
    r = np.array([b.r for b in balls])
    m = np.array([b.mass for b in balls])
    angles = np.array([b.angle for b in balls], float)
    spin = np.array([b.spin for b in balls], float)
    out, turn = [x.copy()], [angles.copy()]
    dt = 1.0 / SUBSTEPS
    for _ in range(steps - 1):
        for _ in range(SUBSTEPS):
            x = x + v * dt + 0.5 * g * dt**2
            v = v + g * dt
            if walls:
                for axis, limit in ((0, w), (1, h)):
                    low = (x[:, axis] < r) & (v[:, axis] < 0)
                    high = (x[:, axis] > limit - r) & (v[:, axis] > 0)
                    v[low | high, axis] *= -restitution
            for i in range(len(balls)):
                for j in range(i):
                    d = x[i] - x[j]
                    distance = np.hypot(*d)
                    n = d / max(distance, 1e-9)
                    closing = (v[i] - v[j]) @ n
                    if distance < r[i] + r[j] and closing < 0:
                        impulse = -(1 + restitution) * closing / (1 / m[i] + 1 / m[j])
                        v[i] = v[i] + impulse / m[i] * n
                        v[j] = v[j] - impulse / m[j] * n
        angles = angles + spin
        out.append(x.copy())
        turn.append(angles.copy())
    return np.array(out), np.array(turn)


def coverage(ball, centre, angle, size, radius=None):
    """Share (H, W) of each pixel that the ball covers."""
    r = ball.r if radius is None else radius
    reach = 1.5 * r + 1
    x0, x1 = (int(np.clip(np.floor(centre[0] + s * reach), 0, size[1])) for s in (-1, 1))
    y0, y1 = (int(np.clip(np.floor(centre[1] + s * reach), 0, size[0])) for s in (-1, 1))
    cover = np.zeros(size)
    if x1 <= x0 or y1 <= y0:
        return cover
    grid_y, grid_x = np.mgrid[y0 * SAMPLES : y1 * SAMPLES, x0 * SAMPLES : x1 * SAMPLES]
    dx, dy = (grid_x + 0.5) / SAMPLES - centre[0], (grid_y + 0.5) / SAMPLES - centre[1]
    if ball.shape == "disc":
        inside = dx**2 + dy**2 <= r**2
    else:
        c, s = np.cos(angle), np.sin(angle)
        inside = (np.abs(c * dx + s * dy) <= r) & (np.abs(c * dy - s * dx) <= r)
    cover[y0:y1, x0:x1] = inside.reshape(y1 - y0, SAMPLES, x1 - x0, SAMPLES).mean(axis=(1, 3))
    return cover


def draw(balls, positions, angles=None, size=(64, 64), scenery=None, visible=None, colours=None, radii=None):
    """Frames uint8 (T, H, W, 3) and segmentation int16 (T, H, W).

    `scenery` is (coverage (H, W), colour, in_front); `visible`, `colours` and `radii` override per frame and ball.
    """
    frames, labels = [], []
    angles = np.zeros(positions.shape[:2]) if angles is None else angles
    for t, centres in enumerate(positions):
        canvas = np.empty((*size, 3))
        canvas[:] = BACKGROUND
        seg = np.zeros(size, np.int16)
        if scenery is not None and not scenery[2]:
            canvas += scenery[0][..., None] * (np.array(scenery[1]) - canvas)
        for k, ball in enumerate(balls):
            if visible is not None and not visible[t][k]:
                continue
            colour = ball.colour if colours is None else colours[t][k]
            cover = coverage(ball, centres[k], angles[t, k], size, None if radii is None else radii[t][k])
            canvas += cover[..., None] * (np.array(colour) - canvas)
            seg[cover >= 0.5] = k + 1
        if scenery is not None and scenery[2]:
            canvas += scenery[0][..., None] * (np.array(scenery[1]) - canvas)
            seg[scenery[0] >= 0.5] = 0
        frames.append(np.clip(np.round(canvas), 0, 255).astype(np.uint8))
        labels.append(seg)
    return np.array(frames), np.array(labels)


def box(size, x0, y0, x1, y1):
    """Coverage (H, W) of an axis-aligned rectangle with whole-pixel corners."""
    cover = np.zeros(size)
    cover[y0:y1, x0:x1] = 1.0
    return cover
