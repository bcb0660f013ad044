"""Draws the pictures of docs/worlds.md into docs/images: `python docs/make_worlds_pictures.py [name ...]`."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from envs.bounce.env import BounceEnv
from envs.bounce.scenarios import EPISODE_FRAMES, SCENARIOS
from envs.bounce.violations import VIOLATIONS

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


PICTURES: dict[str, Callable[[], np.ndarray]] = {
    "bounce_scenarios": bounce_scenarios,
    "bounce_violations": bounce_violations,
    "bounce_truth": bounce_truth,
}


def main() -> None:
    """Writes the named pictures, or all."""
    OUT.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        Image.fromarray(PICTURES[name]()).quantize(64).save(OUT / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
