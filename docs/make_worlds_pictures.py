"""Draws the pictures of docs/worlds.md into docs/images: `python docs/make_worlds_pictures.py [name ...]`."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw

from envs.bounce.env import BounceEnv
from envs.bounce.scenarios import EPISODE_FRAMES, SCENARIOS
from envs.bounce.scene import FRAME_S
from envs.bounce.violations import VIOLATIONS

mpl.use("Agg")

OUT = Path(__file__).parent / "images"
LABEL_PX = 92
SIDE = 64
GAP = 2


def row(label: str, frames: Sequence[np.ndarray]) -> np.ndarray:
    """A labelled strip (H, W, 3) of frames."""
    height = frames[0].shape[0]
    plate = Image.new("RGB", (LABEL_PX, height), "white")
    ImageDraw.Draw(plate).multiline_text((2, height // 2 - 6), label.replace("_", " "), fill="black")
    gap = np.full((height, GAP, 3), 255, np.uint8)
    return np.concatenate([np.array(plate), *(part for frame in frames for part in (frame, gap))], axis=1)


def sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of equal width, one below the other."""
    gap = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for r in rows for part in (r, gap)])


def grey(values: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) of values in [0, 1]."""
    return np.repeat((255 * np.clip(values, 0, 1)).astype(np.uint8)[..., None], 3, axis=2)


def bounce_scenarios() -> np.ndarray:
    """Every scenario over its episode."""
    rows = []
    for scenario in SCENARIOS:
        env = BounceEnv(scenario, (SIDE, SIDE))
        frames = [env.reset(seed=3)[0]]
        frames += [env.step(k // 6 % 5 if env.has_agent else 0)[0] for k in range(EPISODE_FRAMES[scenario])]
        shown = np.linspace(0, min(len(frames) - 1, 60), 10).astype(int)
        rows.append(row(scenario, [frames[t] for t in shown]))
    return sheet(rows)


def bounce_violations() -> np.ndarray:
    """Every violation around its onset: lawful above, violated below."""
    rows = []
    for name, make in VIOLATIONS.items():
        lawful, violated = make(np.random.default_rng(5), 1.0, (SIDE, SIDE))
        assert violated.onset is not None
        first = int(np.clip(violated.onset - 3, 0, len(lawful.frames) - 19))
        shown = range(first, first + 20, 2)
        rows.append(row(f"{name}\n(lawful)", [lawful.frames[t] for t in shown if t < len(lawful.frames)]))
        rows.append(row(name, [violated.frames[t] for t in shown if t < len(lawful.frames)]))
    width = min(r.shape[1] for r in rows)
    return sheet([r[:, :width] for r in rows])


def bounce_truth() -> np.ndarray:
    """Every truth channel that is a picture, and vectors drawn over the frame."""
    env = BounceEnv("occluder", (128, 128))
    env.reset(seed=4)
    for _ in range(14):
        frame, _, _, _, info = env.step(0)
    truth = info["truth"]
    labels = grey(truth["segmentation"] / max(env.slots, 1))
    masks = [grey(mask.astype(float)) for mask in truth["full_masks"]]
    arrows = Image.fromarray(frame)
    pen = ImageDraw.Draw(arrows)
    for at, velocity in zip(truth["centroid_px"], truth["velocity_m_per_s"], strict=True):
        tip = at + 12.8 * np.array([velocity[0], -velocity[1]])
        pen.line([*at, *tip], fill=(0, 0, 0), width=2)
        pen.ellipse([*(at - 2), *(at + 2)], fill=(0, 0, 0))
    return row("frame, seg-\nmentation,\nfull masks,\nvelocity", [frame, labels, *masks, np.array(arrows)])


def bounce_channels() -> np.ndarray:
    """Every truth channel that is a number, over an episode of two objects between walls."""
    env = BounceEnv("billiards", (SIDE, SIDE))
    _, info = env.reset(seed=12, options={"count": 1, "shape": "box"})
    truths = [info["truth"]] + [env.step(k // 8 % 5)[4]["truth"] for k in range(60)]
    t = {key: np.stack([truth[key] for truth in truths])[:, :2] for key in truths[0] if key != "contacts"}
    seconds = FRAME_S * np.arange(len(truths))
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.6), layout="constrained")
    for slot, name in enumerate(("agent", "box")):
        line = {"color": f"C{slot}", "label": f"{name}, {t['mass_kg'][0, slot]:.2f} kg"}
        axes[0, 0].plot(*t["position_m"][:, slot].T, **line)
        axes[0, 1].plot(seconds, np.linalg.norm(t["velocity_m_per_s"][:, slot], axis=1), **line)
        axes[0, 2].plot(seconds, t["angle_rad"][:, slot], **line)
        axes[0, 2].plot(seconds, t["angular_velocity_rad_per_s"][:, slot], "--", color=line["color"])
        axes[1, 0].plot(seconds, t["energy_j"][:, slot, 0], **line)
        axes[1, 0].plot(seconds, t["energy_j"][:, slot, 1], "--", color=line["color"])
        axes[1, 1].plot(seconds, t["momentum_kg_m_per_s"][:, slot, 0], **line)
        axes[1, 1].plot(seconds, t["momentum_kg_m_per_s"][:, slot, 1], "--", color=line["color"])
    for frame, truth in enumerate(truths):
        for contact in truth["contacts"][truth["contacts"][:, 0] >= 0]:
            _, b, x, y, nx, ny, ix, iy, time_s = contact
            axes[0, 0].quiver(x, y, nx, ny, scale=18, width=0.006, clip_on=False)
            colour = "black" if b >= 0 else "silver"
            axes[1, 2].vlines(seconds[max(frame - 1, 0)] + time_s, 0, np.hypot(ix, iy), color=colour)
    titles = ("position_m, contact points and normals", "velocity_m_per_s (length)",
              "angle_rad, angular_velocity_rad_per_s (dashed)", "energy_j: kinetic, potential (dashed)",
              "momentum_kg_m_per_s: x, y (dashed)", "contacts: impulse (black: between solids)")  # fmt: skip
    for axis, title in zip(axes.flat, titles, strict=True):
        axis.set_title(title, fontsize=9)
    axes[0, 0].set(xlim=(0, 10), ylim=(0, 10), aspect="equal", xlabel="m")
    axes[0, 0].legend(fontsize=8)
    for axis in axes.flat[1:]:
        axis.set_xlabel("s")
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return picture


PICTURES: dict[str, Callable[[], np.ndarray]] = {
    "bounce_scenarios": bounce_scenarios,
    "bounce_violations": bounce_violations,
    "bounce_truth": bounce_truth,
    "bounce_channels": bounce_channels,
}


def main() -> None:
    """Writes the named pictures, or all."""
    OUT.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        Image.fromarray(PICTURES[name]()).quantize(64).save(OUT / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
