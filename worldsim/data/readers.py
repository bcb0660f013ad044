"""Datasets from other sources: a folder of videos, with or without actions and captions."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from gymnasium import spaces

from worldsim.camera import read_camera
from worldsim.data.dataset import Dataset
from worldsim.data.writer import DatasetWriter
from worldsim.errors import DatasetError, WorldsimError
from worldsim.spaces import action_vectors, space_from_dict
from worldsim.video import CONTAINER_SUFFIXES, Video, read_video

EPISODES = "episodes.jsonl"
ACTION_SPACE = "action_space.json"
_FIELDS = frozenset({"video", "caption", "actions", "camera", "rewards", "terminated"})

# The space of videos without actions: vectors of no numbers.
NO_ACTIONS = spaces.Box(-1.0, 1.0, (0,), np.float32)


def import_videos(
    folder: str | Path, path: str | Path, *, size: tuple[int, int] | None = None, fps: float | None = None
) -> Dataset:
    """Makes a dataset of a folder of videos, one episode a video.

    Without a file `episodes.jsonl`, every video of the folder (mp4, webm, gif, ...) becomes an episode without caption
    and actions, in order of names. With it, each line is a JSON object with `video` (a path within the folder) and,
    optionally, `caption` (text), `actions` (a list of T actions, or the name of a `.npy` of T rows), `camera` (a list
    of T motions as in `worldsim.camera`, or the name of a `.npy` of them or of T+1 poses), `rewards` and `terminated`
    (lists of T), for a video of T+1 frames. Actions need a file `action_space.json`, such as
    `{"type": "Discrete", "n": 4, "start": 0}`; either all lines have actions or none, and so with `camera`.

    Args:
        folder: Where the videos lie.
        path: The dataset's directory; must not exist.
        size: (H, W) of the stored frames: videos are cropped around the centre to that aspect and resized by area.
            None keeps the size, which must then be the same in all videos.
        fps: Frames per second: of faster videos, the frames nearest in time are taken, which cannot be done where there
            are actions or motions. None keeps the rate, which must then be the same in all videos.

    Returns:
        The dataset, opened. For videos without actions its action space is a Box of shape (0,).

    Raises:
        DatasetError: If the folder holds no video, a line is wrong, or sizes, rates or lengths do not fit.
        VideoError: If a video is missing, damaged or empty.
        ActionError: If an action lies outside the action space.
        CameraError: If motions of the camera are not (T, 6), or not finite.
    """
    folder = Path(folder)
    entries = list(_entries(folder))
    for name in ("actions", "camera"):
        if len({name in entry for entry in entries}) > 1:
            raise DatasetError(
                expected=f"{name} on every line or on none", got=f"both in {folder}", remedy="Split the folder."
            )
    space = _space(folder) if "actions" in entries[0] else NO_ACTIONS
    videos = ((entry, _fit(read_video(folder / entry["video"]), entry, size, fps)) for entry in entries)
    entry, first = next(videos)
    about = {"source": "videos", "folder": folder.name, "size": size, "fps": fps}
    with DatasetWriter(path, action_space=space, fps=first.fps, about=about) as writer:
        _add(writer, folder, space, entry, first)
        for entry, video in videos:
            if abs(video.fps - first.fps) > 0.01 * first.fps or video.frames.shape[1:] != first.frames.shape[1:]:
                raise DatasetError(
                    expected=f"videos of {_describe(first)}, like the first",
                    got=f"{_describe(video)} in {entry['video']}",
                    remedy="Pass size and fps to bring them to one size and rate.",
                )
            _add(writer, folder, space, entry, video)
    return Dataset.open(path)


def _entries(folder: Path) -> Iterator[dict[str, Any]]:
    """One mapping a video, as in `episodes.jsonl`."""
    if not folder.is_dir():
        raise DatasetError(expected="a folder of videos", got=f"no such folder: {folder}", remedy="Check the path.")
    listing = folder / EPISODES
    if not listing.exists():
        names = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in CONTAINER_SUFFIXES)
        if not names:
            raise DatasetError(expected=f"videos or {EPISODES}", got=f"neither in {folder}", remedy="Check the path.")
        yield from ({"video": name} for name in names)
        return
    lines = [line for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise DatasetError(expected="lines, one a video", got=f"an empty {listing}", remedy="Write them.")
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise _bad_line(number, f"no JSON ({error})") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("video"), str):
            raise _bad_line(number, "no JSON object with a text 'video'")
        if not set(entry) <= _FIELDS:
            raise _bad_line(number, f"unknown fields {sorted(set(entry) - _FIELDS)}")
        if not (folder / entry["video"]).resolve().is_relative_to(folder.resolve()):
            raise _bad_line(number, f"a video outside the folder, {entry['video']}")
        yield entry


def _bad_line(number: int, got: str) -> DatasetError:
    return DatasetError(
        expected=f"line {number} of {EPISODES} as an object of {', '.join(sorted(_FIELDS))}",
        got=got,
        remedy="docs/data.md shows the format.",
    )


def _space(folder: Path) -> spaces.Space:
    file = folder / ACTION_SPACE
    try:
        return space_from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, WorldsimError):
            raise
        raise DatasetError(
            expected=f"the space of the actions in {ACTION_SPACE}",
            got=repr(error),
            remedy='Write it, such as {"type": "Discrete", "n": 4, "start": 0}.',
        ) from error


def _fit(video: Video, entry: Mapping[str, Any], size: tuple[int, int] | None, fps: float | None) -> Video:
    frames, rate = video
    if fps is not None and abs(rate - fps) > 0.01 * fps:
        bound = [name for name in ("actions", "camera") if name in entry]
        if bound or rate < fps:
            raise DatasetError(
                expected=f"a video of {fps:g} frames/s" + (f", since it has {bound[0]}" if bound else " or more"),
                got=f"{rate:g} in {entry['video']}",
                remedy="Choose a lower fps, or convert the video and what belongs to its frames first.",
            )
        picks = np.round(np.arange(0.0, len(frames) - 0.5, rate / fps)).astype(int)
        frames, rate = frames[picks], fps
    if size is not None and frames.shape[1:3] != size:
        frames = np.stack(
            [cv2.resize(crop, (size[1], size[0]), interpolation=cv2.INTER_AREA) for crop in _crop(frames, size)]
        )
    return Video(frames, rate)


def _crop(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The largest part around the centre that has the aspect of `size`."""
    height, width = frames.shape[1:3]
    scale = min(height / size[0], width / size[1])
    h, w = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - h) // 2, (width - w) // 2
    return frames[:, top : top + h, left : left + w]


def _add(writer: DatasetWriter, folder: Path, space: spaces.Space, entry: Mapping[str, Any], video: Video) -> None:
    steps = len(video.frames) - 1
    actions: Any = np.zeros((steps, 0), np.float32)
    if "actions" in entry:
        actions = _load_actions(folder, entry["actions"], space)
        action_vectors(space, actions, 1)  # raises where an action lies outside the space
    camera = entry.get("camera")
    writer.add_episode(
        video.frames,
        actions,
        rewards=np.asarray(entry["rewards"], np.float32) if "rewards" in entry else None,
        terminated=np.asarray(entry["terminated"], bool) if "terminated" in entry else None,
        caption=entry.get("caption"),
        camera=read_camera(folder / camera) if isinstance(camera, str) else camera,
    )


def _load_actions(folder: Path, given: Any, space: spaces.Space) -> Any:  # noqa: ANN401 - actions of any space
    if isinstance(given, str):
        try:
            return np.load(folder / given, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DatasetError(
                expected="actions in a .npy", got=f"{given}: {error}", remedy="Save them again."
            ) from error
    if isinstance(space, spaces.Dict):
        return {key: _load_actions(folder, [a[key] for a in given], sub) for key, sub in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return [_load_actions(folder, [a[i] for a in given], sub) for i, sub in enumerate(space.spaces)]
    return np.asarray(given)


def _describe(video: Video) -> str:
    height, width = video.frames.shape[1:3]
    return f"{height}x{width} at {video.fps:g} frames/s"
