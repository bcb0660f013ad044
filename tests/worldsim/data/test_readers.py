import json

import numpy as np
import pytest
from gymnasium import spaces

from worldsim.data import Dataset, Windows, import_videos
from worldsim.errors import ActionError, DatasetError, VideoError
from worldsim.spaces import space_to_dict
from worldsim.video import write_video


def numbered(count, size=(12, 16), first=0):
    """Flat frames whose red channel is their number."""
    frames = np.zeros((count, *size, 3), np.uint8)
    frames[..., 0] = np.arange(first, first + count)[:, None, None]
    return frames


def folder_with(tmp_path, lines=None, space=None, **videos):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, (frames, fps) in videos.items():
        write_video(folder / f"{name}.npz", frames, fps)
    if lines is None:
        lines = [{"video": f"{name}.npz"} for name in videos]
    (folder / "episodes.jsonl").write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    if space is not None:
        (folder / "action_space.json").write_text(json.dumps(space_to_dict(space)))
    return folder


def test_plain_folder_becomes_episodes_without_actions(tmp_path):
    for name, level in (("b", 200), ("a", 40)):
        write_video(tmp_path / "videos" / f"{name}.mp4", np.full((5, 16, 16, 3), level, np.uint8), 8)
    (tmp_path / "videos" / "readme.txt").write_text("not a video")
    dataset = import_videos(tmp_path / "videos", tmp_path / "d")
    assert [round(e.frames.mean(), -1) for e in dataset] == [40, 200]
    assert (dataset.fps, dataset.action_space.shape, dataset.has_captions) == (8, (0,), False)
    assert Dataset.open(tmp_path / "d").episode(0).actions.shape == (4, 0)
    assert Windows(dataset, 3, batch_size=2, seed=0).batch(0)["actions"].shape == (2, 2, 0)


def test_captions_actions_and_rewards_come_along(tmp_path):
    lines = [
        {
            "video": "a.npz",
            "caption": "one ball",
            "actions": [0, 2, 1],
            "rewards": [0.5, 0, 1],
            "terminated": [0, 0, 1],
        },
        {"video": "b.npz", "actions": "b.npy"},
    ]
    folder = folder_with(tmp_path, lines, spaces.Discrete(3), a=(numbered(4), 5), b=(numbered(3), 5))
    np.save(folder / "b.npy", np.array([1, 1]))
    first, second = import_videos(folder, tmp_path / "d")
    assert (first.caption, second.caption) == ("one ball", None)
    assert (first.actions.tolist(), second.actions.tolist()) == ([0, 2, 1], [1, 1])
    assert (first.rewards.tolist(), second.rewards.tolist()) == ([0.5, 0.0, 1.0], [0.0, 0.0])
    assert first.terminated.tolist() == [False, False, True]
    assert np.array_equal(first.frames, numbered(4))


def test_dict_actions(tmp_path):
    space = spaces.Dict({"key": spaces.Discrete(2), "mouse": spaces.Box(-1, 1, (2,))})
    lines = [{"video": "a.npz", "actions": [{"key": 1, "mouse": [0.5, -1]}, {"key": 0, "mouse": [0, 0.25]}]}]
    dataset = import_videos(folder_with(tmp_path, lines, space, a=(numbered(3), 5)), tmp_path / "d")
    assert dataset.episode(0).actions["mouse"].tolist() == [[0.5, -1.0], [0.0, 0.25]]
    assert dataset.episode(0).actions["key"].tolist() == [1, 0]


def test_frames_nearest_in_time_are_taken(tmp_path):
    dataset = import_videos(
        folder_with(tmp_path, a=(numbered(10), 30), b=(numbered(11, first=50), 12)), tmp_path / "d", fps=12
    )
    assert dataset.fps == 12
    assert dataset.episode(0).frames[:, 0, 0, 0].tolist() == [0, 2, 5, 8]  # at 0, 2.5, 5 and 7.5 source frames
    assert dataset.episode(1).frames[:, 0, 0, 0].tolist() == list(range(50, 61))


def test_size_crops_the_centre_and_averages_areas(tmp_path):
    frames = np.zeros((2, 8, 16, 3), np.uint8)
    frames[:, :, :4], frames[:, :, 12:] = 255, 255  # outside the centre square
    frames[:, :4, 4:8] = 100
    dataset = import_videos(folder_with(tmp_path, a=(frames, 5)), tmp_path / "d", size=(2, 2))
    assert dataset.episode(0).frames[0, :, :, 0].tolist() == [[100, 0], [0, 0]]


def test_mixed_sizes_and_rates_are_told(tmp_path):
    folder = folder_with(tmp_path, a=(numbered(4), 5), b=(numbered(4, (10, 16)), 5))
    with pytest.raises(DatasetError, match="10x16 at 5 frames/s in b"):
        import_videos(folder, tmp_path / "d")
    write_video(folder / "b.npz", numbered(4), 6)
    with pytest.raises(DatasetError, match="12x16 at 6 frames/s in b"):
        import_videos(folder, tmp_path / "d")
    with pytest.raises(DatasetError, match="6 frames/s or more"):
        import_videos(folder, tmp_path / "d", fps=6)
    assert [p.name for p in tmp_path.iterdir()] == ["videos"]


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("{", DatasetError, "line 1"),
        ("[1]", DatasetError, "line 1"),
        ({"video": "a.npz", "captoin": "x"}, DatasetError, "captoin"),
        ({"video": "none.npz"}, VideoError, "no such path"),
        ({"video": "../secret.mp4"}, DatasetError, "outside the folder"),
        ({"video": "a.npz", "actions": [0, 1]}, DatasetError, "3 actions for 4 frames"),
        ({"video": "a.npz", "actions": [0, 1, 3]}, ActionError, "Discrete"),
        ({"video": "a.npz", "actions": "none.npy"}, DatasetError, r"none\.npy"),
        ({"video": "a.npz", "rewards": [1.0]}, DatasetError, "3 rewards"),
        ("", DatasetError, "empty"),
    ],
)
def test_wrong_lines_are_named_errors_and_leave_nothing(line, error, message, tmp_path):
    folder = folder_with(tmp_path, [line], spaces.Discrete(3), a=(numbered(4), 5))
    with pytest.raises(error, match=message):
        import_videos(folder, tmp_path / "d")
    assert [p.name for p in tmp_path.iterdir()] == ["videos"]


def test_actions_need_their_space_and_all_lines(tmp_path):
    lines = [{"video": "a.npz", "actions": [0, 1, 1]}]
    folder = folder_with(tmp_path, lines, a=(numbered(4), 5), b=(numbered(4), 5))
    with pytest.raises(DatasetError, match="action_space"):
        import_videos(folder, tmp_path / "d")
    (folder / "action_space.json").write_text(json.dumps(space_to_dict(spaces.Discrete(2))))
    assert import_videos(folder, tmp_path / "d").action_space == spaces.Discrete(2)
    with pytest.raises(DatasetError, match="since it has actions"):
        import_videos(folder, tmp_path / "e", fps=2)
    with (folder / "episodes.jsonl").open("a") as file:
        file.write('\n{"video": "b.npz"}')
    with pytest.raises(DatasetError, match="every line or on none"):
        import_videos(folder, tmp_path / "e")


def test_no_folder_and_no_video_are_told(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        import_videos(tmp_path / "none", tmp_path / "d")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="neither"):
        import_videos(tmp_path / "empty", tmp_path / "d")
