"""Draws the pictures of docs/room.md: `python docs/make_room_pictures.py` writes docs/images/room_*.jpg."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from envs.room.env import RoomEnv
from envs.room.film import record
from envs.room.paths import PATHS
from envs.room.policies import Expert
from envs.room.touches import FLOOR
from envs.room.violations import RECIPES, pair

mpl.use("Agg")
OUT = Path(__file__).parent / "images"
GAP, LABEL = 6, 24
PAPER = (255, 255, 255)


def tile(rows: list[list[np.ndarray]], labels: list[str] | None = None) -> Image.Image:
    """Pictures in rows, with a label above each row."""
    head = LABEL if labels else 0
    height = sum(row[0].shape[0] + GAP + head for row in rows) - GAP
    width = max(sum(p.shape[1] + GAP for p in row) for row in rows) - GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw, top = ImageDraw.Draw(sheet), 0
    for index, row in enumerate(rows):
        if labels:
            draw.text((2, top + 3), labels[index], fill=(30, 30, 30), font=ImageFont.load_default(15))
        left, top = 0, top + head
        for picture in row:
            sheet.paste(Image.fromarray(picture), (left, top))
            left += picture.shape[1] + GAP
        top += row[0].shape[0] + GAP
    return sheet


def save(name: str, sheet: Image.Image) -> None:
    """Writes a sheet atomically."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"room_{name}.jpg"
    sheet.save(path.with_suffix(".tmp"), format="JPEG", quality=86, optimize=True)
    path.with_suffix(".tmp").replace(path)
    print(f"{path}: {sheet.width}x{sheet.height}, {path.stat().st_size / 1024:.0f} KiB")


def gallery() -> Image.Image:
    """Eight rooms."""
    env = RoomEnv((192, 256))
    frames = []
    for seed in (1, 3, 5, 8, 12, 14, 21, 23):
        env.reset(seed=seed, options={"num_objects": (5, 6)})
        for _ in range(4):
            frame, *_ = env.step(0)
        frames.append(frame)
    return tile([frames[:4], frames[4:]])


def channels() -> Image.Image:
    """What is known of one frame."""
    env = RoomEnv((192, 256))
    env.reset(seed=12, options={"num_objects": 6})
    for _ in range(5):
        frame, *_, info = env.step(0)
    truth = info["truth"]
    depth = colormaps["viridis_r"](truth["depth_m"] / truth["depth_m"].max())[..., :3]
    solids = np.where((truth["segmentation"] > 0)[..., None], colormaps["tab10"](truth["segmentation"])[..., :3], 0.9)
    normals = 0.5 * (truth["normals"] + 1.0)
    pictures = [np.round(255 * p).astype(np.uint8) for p in (depth, solids, normals)]
    return tile([[frame, *pictures]], ["rgb, depth_m, segmentation, normals"])


def poses() -> Image.Image:
    """What is known as numbers, from above: where the camera went and looked, poses, velocities and contacts."""
    env = RoomEnv((64, 64), task=False)
    _, info = env.reset(seed=3, options={"num_objects": 4, "motion": "roll"})
    truths = [info["truth"]] + [env.step(1 + 4 * (k % 4 == 3))[4]["truth"] for k in range(16)]
    figure, axis = plt.subplots(figsize=(9, 6.5), layout="constrained")
    cameras = np.stack([t["world_from_camera"] for t in truths])
    axis.plot(*cameras[:, :2, 3].T, "k.-", label="world_from_camera, K")
    for camera in cameras[::4]:
        for side in (0.0, 64.0):
            ray = camera[:3, :3] @ np.linalg.inv(truths[0]["K"]) @ np.array([side, 32.0, 1.0])
            axis.plot(*zip(camera[:2, 3], camera[:2, 3] + 0.6 * ray[:2], strict=True), "k-", linewidth=0.6)
    for slot in np.flatnonzero(truths[0]["present"])[1:]:
        path = np.stack([t["world_from_object"][slot] for t in truths])
        name = env.world.scene.solids[slot - 1].name
        (line,) = axis.plot(*path[:, :2, 3].T, ".-", label=f"{name}, {truths[0]['mass_kg'][slot]:.1f} kg")
        for pose, truth in list(zip(path, truths, strict=True))[::4]:
            axis.quiver(*pose[:2, 3], *pose[:2, 0], color=line.get_color(), scale=25, width=0.003)
            velocity = truth["object_velocity"][slot, :2]
            axis.quiver(*pose[:2, 3], *velocity, color="grey", angles="xy", scale_units="xy", scale=4, width=0.003)
    touched = np.concatenate([t["contacts"][t["contacts"][:, 0] >= 0] for t in truths])
    between = touched[touched[:, 1] != FLOOR]
    axis.scatter(*between[:, 2:4].T, s=8 * between[:, 8] + 10, marker="x", c="red", label="contacts but the floor's")
    length, width, _ = env.world.scene.room_m
    axis.set(
        xlim=(-length / 2, length / 2), ylim=(-width / 2, width / 2), aspect="equal", xlabel="x in m", ylabel="y in m"
    )
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    plt.close(figure)
    return picture


def sizes() -> Image.Image:
    """One view at four frame sizes, all shown at 256."""
    pictures = []
    for size in (64, 128, 256, 512):
        frame, _ = RoomEnv((size, size)).reset(seed=12, options={"num_objects": 6})
        pictures.append(np.asarray(Image.fromarray(frame).resize((256, 256), Image.Resampling.NEAREST)))
    return tile([pictures], ["64, 128, 256 and 512 pixels"])


def paths() -> Image.Image:
    """Each camera path, every fifth frame."""
    rows = []
    for name in PATHS:
        take = record(np.random.default_rng(7), name, (128, 128), 41, {})
        rows.append(list(take.record.frames[::5]))
    return tile(rows, [f"camera_path={name!r}, every 0.5 s" for name in PATHS])


def violations() -> Image.Image:
    """Each violation beside the lawful clip."""
    rows, labels = [], []
    for name, recipe in RECIPES.items():
        lawful, violated = pair(name, 5, 1.0, size=(112, 112))
        shown = np.linspace(0, len(lawful.frames) - 1, 8).round().astype(int)
        if name == "object_popping":
            shown = np.arange(violated.onset - 1, violated.onset + 7)
        for text, clip in (("lawful", lawful), (f"{name}: {recipe.meaning}", violated)):
            rows.append([clip.frames[t] for t in shown])
            labels.append(text)
    return tile(rows, labels)


def expert() -> Image.Image:
    """The expert walks to the solid that the caption names."""
    env = RoomEnv((128, 128), terminate=True)
    frame, info = env.reset(seed=8)
    frames, done, policy = [frame], False, Expert()
    while not done:
        frame, _, done, _, info = env.step(policy(frame, info, np.random.default_rng(0)))
        frames.append(frame)
    shown = [frames[i] for i in np.linspace(0, len(frames) - 1, 8).round().astype(int)]
    return tile([shown], [info["caption"]])


if __name__ == "__main__":
    for make in (gallery, channels, poses, sizes, paths, violations, expert):
        save(make.__name__, make())
