"""The camera's motion in datasets: recorded, written, imported, drawn in windows."""

import json

import numpy as np
import pytest
from gymnasium import spaces

import envs  # noqa: F401 - registers the worlds
from worldsim.camera import camera_motion, camera_poses
from worldsim.cli import main
from worldsim.data import Dataset, DatasetWriter, Windows, import_videos, record
from worldsim.errors import CameraError, DatasetError, UnknownNameError
from worldsim.video import write_video

ROOM = {"size": (16, 16), "continuous": True, "slots": 3}


def motions(steps, seed=0):
    return np.random.default_rng(seed).normal(0.0, 0.3, (steps, 6)).astype(np.float32)


def frames(count, first=0):
    return np.broadcast_to(
        np.arange(first, first + count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 3)
    ).copy()


def write(path, lengths=(5, 9)):
    with DatasetWriter(path, action_space=spaces.Discrete(2), fps=10) as writer:
        for i, steps in enumerate(lengths):
            writer.add_episode(frames(steps + 1), np.zeros(steps, int), camera=motions(steps, i))
    return Dataset.open(path)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    path = tmp_path_factory.mktemp("room") / "d"
    return record("envs:Room-v0", episodes=2, seed=3, path=path, max_steps=6, camera=True, progress=False, **ROOM)


def test_recorded_motions_lead_from_one_true_pose_to_the_next(room):
    assert room.has_camera
    for episode in room:
        poses = episode.truth["world_from_camera"]
        assert (episode.camera.shape, episode.camera.dtype) == ((6, 6), np.float32)
        assert np.abs(episode.camera).max() > 0.01
        np.testing.assert_allclose(camera_poses(episode.camera, poses[0]), poses, atol=1e-6)
    last = room.starts + room.lengths - 1
    assert not room.read("camera")[last].any()  # nothing leads on from an episode's last frame


def test_a_recording_does_not_depend_on_blocks_and_leaves_the_rest_as_it_is(room, tmp_path, monkeypatch):
    plain = record("envs:Room-v0", episodes=2, seed=3, path=tmp_path / "a", max_steps=6, progress=False, **ROOM)
    assert not plain.has_camera
    assert plain.episode(0).camera is None
    np.testing.assert_array_equal(plain.read("frames"), room.read("frames"))
    monkeypatch.setattr("worldsim.data.rollout._BLOCK_BYTES", 1)
    again = record(
        "envs:Room-v0", episodes=2, seed=3, path=tmp_path / "b", max_steps=6, camera=True, progress=False, **ROOM
    )
    assert again.digest() == room.digest() != plain.digest()


def test_the_command_records_the_camera(tmp_path, capsys):
    command = ["record", "envs:Room-v0", "--out", str(tmp_path / "d"), "-n", "1", "--max-steps", "2", "--no-progress"]
    assert main([*command, "--no-truth", "--camera", "--env", "size=[16,16]"]) == 0
    assert "camera known" in capsys.readouterr().out
    dataset = Dataset.open(tmp_path / "d")
    assert (dataset.has_camera, dataset.truth_keys, dataset.about["camera"]) == (True, (), True)


def test_a_world_without_a_camera_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UnknownNameError, match="world_from_camera"):
        record("envs:Bounce-v0", episodes=1, seed=0, path=tmp_path / "d", max_steps=2, camera=True, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_windows_carry_the_motions_between_their_frames(tmp_path):
    dataset = write(tmp_path / "d")
    windows = Windows(dataset, 4, batch_size=5, seed=1, frames=False)
    for step in range(3):
        batch = windows.batch(step)
        assert batch["camera"].shape == (5, 3, 6)
        for row, episode, start in zip(batch["camera"], batch["episode"], batch["start"], strict=True):
            np.testing.assert_array_equal(row, dataset.episode(episode).camera[start : start + 3])


@pytest.mark.parametrize("bad", [motions(4), motions(5)[:, :5], np.full((5, 6), np.nan), "left"])
def test_wrong_motions_are_not_written(bad, tmp_path):
    with (
        pytest.raises(CameraError),
        DatasetWriter(tmp_path / "d", action_space=spaces.Discrete(2), fps=10) as writer,
    ):
        writer.add_episode(frames(6), np.zeros(5, int), camera=bad)
    assert list(tmp_path.iterdir()) == []


def test_all_episodes_have_motions_or_none(tmp_path):
    with DatasetWriter(tmp_path / "d", action_space=spaces.Discrete(2), fps=10) as writer:
        writer.add_episode(frames(3), np.zeros(2, int), camera=motions(2))
        with pytest.raises(DatasetError, match="columns"):
            writer.add_episode(frames(3), np.zeros(2, int))


def folder_of(tmp_path, *lines):
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(len(lines)):
        write_video(folder / f"{i}.npz", frames(4), 5)
    lines = [{"video": f"{i}.npz", **line} for i, line in enumerate(lines)]
    (folder / "episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_imported_videos_bring_motions_or_poses(tmp_path):
    motion = motions(3).astype(np.float64)
    folder = folder_of(tmp_path, {"camera": motion.tolist()}, {"camera": "m.npy"}, {"camera": "p.npy"})
    np.save(folder / "m.npy", motion)
    np.save(folder / "p.npy", camera_poses(motion))
    dataset = import_videos(folder, tmp_path / "d")
    for episode in dataset:
        np.testing.assert_allclose(episode.camera, motion, atol=1e-6)
        np.testing.assert_allclose(camera_motion(camera_poses(episode.camera)), motion, atol=1e-6)


@pytest.mark.parametrize("camera", [3, [[0.0] * 6], {"x": 1}, "none.npy", [[0.0] * 5] * 3])
def test_imported_motions_that_do_not_fit_are_named(camera, tmp_path):
    with pytest.raises(CameraError):
        import_videos(folder_of(tmp_path, {"camera": camera}), tmp_path / "d")


def test_imported_motions_are_on_every_line_and_bind_the_frame_rate(tmp_path):
    with pytest.raises(DatasetError, match="camera on every line"):
        import_videos(folder_of(tmp_path, {"camera": [[0.0] * 6] * 3}, {}), tmp_path / "d")
    (tmp_path / "b").mkdir()
    with pytest.raises(DatasetError, match="since it has camera"):
        import_videos(folder_of(tmp_path / "b", {"camera": [[0.0] * 6] * 3}), tmp_path / "d", fps=2)
