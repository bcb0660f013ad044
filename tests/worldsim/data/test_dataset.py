import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from worldsim.data import Dataset, DatasetWriter
from worldsim.data.layout import chunk_rows, flatten_actions, restore_actions
from worldsim.errors import DatasetError, FramesError, UnknownNameError

SPACES = {
    "discrete": spaces.Discrete(5, start=-2),
    "multi_discrete": spaces.MultiDiscrete([3, 4]),
    "multi_binary": spaces.MultiBinary(3),
    "box": spaces.Box(np.array([-1.0, -np.inf], np.float32), np.array([2.0, np.inf], np.float32)),
    "box64": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
    "dict": spaces.Dict(
        {"move": spaces.Discrete(4), "look": spaces.Box(-1, 1, (2,)), "in": spaces.Dict({"a": spaces.MultiBinary(2)})}
    ),
    "tuple": spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 1, (1,))]),
}


def stacked(space, count, seed=0):
    space.seed(seed)
    if isinstance(space, spaces.Dict):
        return {k: stacked(s, count, seed) for k, s in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return [stacked(s, count, seed) for s in space.spaces]
    return np.stack([np.asarray(space.sample()) for _ in range(count)])


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def episode(steps, seed=0, size=(8, 10)):
    rng = np.random.default_rng(seed)
    return {
        "frames": rng.integers(0, 256, (steps + 1, *size, 3), dtype=np.uint8),
        "rewards": rng.normal(size=steps).astype(np.float32),
        "terminated": np.arange(steps) == steps - 1,
        "truncated": np.zeros(steps, bool),
        "truth": {
            "depth_m": rng.random((steps + 1, *size), dtype=np.float32),
            "mask": rng.random((steps + 1, 2)) > 0.5,
        },
    }


def write(path, episodes, space=None, fps=10.0, **about):
    space = space or SPACES["discrete"]
    with DatasetWriter(path, action_space=space, fps=fps, about=about) as writer:
        for i, parts in enumerate(episodes):
            actions = stacked(space, len(parts["rewards"]), i)
            writer.add_episode(actions=actions, caption=f"scene {i}", seed=100 + i, **parts)
    return Dataset.open(path)


@pytest.mark.parametrize("name", SPACES)
def test_every_action_space_comes_back(name, tmp_path):
    space = SPACES[name]
    dataset = write(tmp_path / "d", [episode(5, 0), episode(9, 1)], space)
    assert dataset.action_space == space
    for index, steps in enumerate((5, 9)):
        assert same(dataset.episode(index).actions, stacked(space, steps, index))


@pytest.mark.parametrize("name", SPACES)
def test_flat_action_columns_are_inverse(name):
    actions = stacked(SPACES[name], 4)
    assert same(restore_actions(SPACES[name], flatten_actions(SPACES[name], actions)), actions)


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4), fps=st.floats(0.5, 240), data=st.data())
def test_round_trip(lengths, fps, data, tmp_path_factory):
    size = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    floats = hnp.arrays(np.float64, st.just((3,)), elements=st.floats(allow_nan=True, width=64))
    extra = data.draw(floats)
    captions = data.draw(
        st.lists(st.text(max_size=20).filter(lambda t: "\0" not in t), min_size=len(lengths), max_size=len(lengths))
    )
    path = tmp_path_factory.mktemp("data") / "d"
    episodes = [episode(n, i, size) for i, n in enumerate(lengths)]
    space = spaces.Discrete(3)
    with DatasetWriter(path, action_space=space, fps=fps) as writer:
        for i, parts in enumerate(episodes):
            parts["truth"]["x"] = np.broadcast_to(extra, (lengths[i] + 1, 3))
            writer.add_episode(actions=stacked(space, lengths[i], i), caption=captions[i], seed=i, **parts)
    dataset = Dataset.open(path)
    assert (len(dataset), dataset.num_frames) == (len(lengths), sum(lengths) + len(lengths))
    assert (dataset.fps, dataset.frame_size) == (fps, size)
    assert dataset.captions == captions
    for i, (parts, read) in enumerate(zip(episodes, dataset, strict=True)):
        assert len(read) == lengths[i]
        for key in ("frames", "rewards", "terminated", "truncated"):
            assert same(getattr(read, key), parts[key])
        assert same(dict(read.truth), parts["truth"])
        assert read.seed == i


def test_layout_on_disk_is_the_documented_one(tmp_path):
    dataset = write(tmp_path / "d", [episode(5, 0), episode(9, 1)], note="x")
    assert dataset.starts.tolist() == [0, 6]
    assert dataset.lengths.tolist() == [6, 10]
    actions = dataset.read("actions")
    assert actions.shape == (16,)
    assert actions[[5, 15]].tolist() == [0, 0]  # after the last frame there is no action
    assert not dataset.read("terminated")[[5, 15]].any()
    assert dataset.read("terminated").nonzero()[0].tolist() == [4, 14]
    attributes = json.loads((tmp_path / "d" / "zarr.json").read_text())["attributes"]
    assert (attributes["format"], attributes["version"]) == ("worldsim-dataset", 1)
    assert attributes["about"] == {"note": "x"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d"]
    assert not (tmp_path / "d" / ".lock").exists()


def test_rows_across_shards_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim.data.column.chunk_rows", lambda _: (4, 8))
    episodes = [episode(n, n) for n in (3, 30, 7, 8, 1)]
    dataset = write(tmp_path / "d", episodes)
    assert np.array_equal(dataset.read("frames"), np.concatenate([e["frames"] for e in episodes]))
    assert np.array_equal(
        dataset.read("truth/depth_m", 5, 23), np.concatenate([e["truth"]["depth_m"] for e in episodes])[5:23]
    )


@given(st.integers(1, 10**8))
def test_chunks_divide_shards_and_are_bounded(row_bytes):
    chunk, shard = chunk_rows(row_bytes)
    assert shard % chunk == 0
    assert chunk == 1 or chunk * row_bytes <= 256 * 1024
    assert shard == chunk or shard * row_bytes <= 16 * 1024 * 1024


def test_digest_depends_on_content_and_on_nothing_else(tmp_path, monkeypatch):
    episodes = [episode(5, 0), episode(9, 1)]
    digest = write(tmp_path / "a", episodes).digest()
    monkeypatch.setattr("worldsim.data.column.chunk_rows", lambda _: (2, 4))
    assert write(tmp_path / "b", episodes, other="about").digest() == digest
    changed = [episode(5, 0), episode(9, 1)]
    changed[1]["truth"]["depth_m"][3, 2, 2] += 1e-3
    assert write(tmp_path / "c", changed).digest() != digest
    assert write(tmp_path / "d", episodes, fps=11.0).digest() != digest
    assert write(tmp_path / "e", [episode(5, 0), episode(9, 2)]).digest() != digest


def test_episode_without_caption_and_seed_has_none(tmp_path):
    with DatasetWriter(tmp_path / "d", action_space=spaces.Discrete(2), fps=1) as writer:
        writer.add_episode(np.zeros((3, 4, 4, 3), np.uint8), np.array([0, 1]))
    dataset = Dataset.open(tmp_path / "d")
    read = dataset.episode(0)
    assert (read.caption, read.seed, dict(read.truth), dataset.has_captions) == (None, None, {}, False)
    assert read.rewards.tolist() == [0.0, 0.0]


# --- misuse


def test_bad_episodes_are_refused_and_leave_nothing(tmp_path):
    good = episode(3)
    actions = np.zeros(3, int)
    bad = [
        (FramesError, {**good, "frames": good["frames"].astype(np.float32)}, actions),
        (DatasetError, good, np.zeros(4, int)),
        (DatasetError, {**good, "rewards": np.zeros(2)}, actions),
        (DatasetError, {**good, "truth": {"a": np.zeros(3)}}, actions),
        (DatasetError, {**good, "truth": {"a": np.array(["x"] * 4)}}, actions),
        (DatasetError, {"frames": good["frames"][:1]}, actions[:0]),
    ]
    for error, parts, acts in bad:
        with (
            pytest.raises(error, match="expected"),
            DatasetWriter(tmp_path / "d", action_space=spaces.Discrete(2), fps=1) as w,
        ):
            w.add_episode(actions=acts, **parts)
        assert list(tmp_path.iterdir()) == []


def test_columns_that_change_are_refused(tmp_path):
    changes = [
        {"frames": np.zeros((4, 9, 10, 3), np.uint8)},
        {"truth": {}},
        {"truth": {**episode(3)["truth"], "new": np.zeros(4)}},
        {"truth": {**episode(3)["truth"], "mask": np.zeros((4, 3), bool)}},
        {"truth": {**episode(3)["truth"], "mask": np.zeros((4, 2), int)}},
    ]
    for change in changes:
        with pytest.raises(DatasetError, match="expected"):
            write(tmp_path / "d", [episode(5), {**episode(3), **change}])
        assert list(tmp_path.iterdir()) == []


def test_empty_dataset_is_refused(tmp_path):
    with (
        pytest.raises(DatasetError, match="at least one episode"),
        DatasetWriter(tmp_path / "d", action_space=spaces.Discrete(2), fps=1),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_existing_path_is_refused_and_untouched(tmp_path):
    digest = write(tmp_path / "d", [episode(3)]).digest()
    with pytest.raises(DatasetError, match="nothing is yet"):
        write(tmp_path / "d", [episode(4)])
    assert Dataset.open(tmp_path / "d").digest() == digest
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_unknown_columns_and_episodes(tmp_path):
    dataset = write(tmp_path / "d", [episode(3)])
    with pytest.raises(UnknownNameError, match="truth/depth_m"):
        dataset.read("truth/depth")
    with pytest.raises(IndexError, match="got 1"):
        dataset.episode(1)


def test_what_is_no_dataset_is_told(tmp_path):
    with pytest.raises(DatasetError, match="no such path"):
        Dataset.open(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no Zarr group"):
        Dataset.open(tmp_path / "empty")
    (tmp_path / "file").write_text("hello")
    with pytest.raises(DatasetError, match="expected"):
        Dataset.open(tmp_path / "file")
    write(tmp_path / "d", [episode(3)])
    meta = json.loads((tmp_path / "d" / "zarr.json").read_text())
    meta["attributes"]["version"] = 99
    (tmp_path / "d" / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(DatasetError, match="version 99"):
        Dataset.open(tmp_path / "d")
    meta["attributes"]["format"] = "other"
    (tmp_path / "d" / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(DatasetError, match="another kind"):
        Dataset.open(tmp_path / "d")


def test_damaged_files_are_told(tmp_path):
    write(tmp_path / "d", [episode(20)])
    shard = next(p for p in (tmp_path / "d" / "frames").rglob("*") if p.is_file() and p.name != "zarr.json")
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 0xFF
    shard.write_bytes(data)
    with pytest.raises(DatasetError, match="damaged"):
        Dataset.open(tmp_path / "d").episode(0)
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match="damaged"):
        Dataset.open(tmp_path / "d").episode(0)


def test_missing_file_is_told_even_where_all_was_black(tmp_path):
    black = {**episode(20), "frames": np.zeros((21, 8, 10, 3), np.uint8)}
    write(tmp_path / "d", [black])
    next(p for p in (tmp_path / "d" / "frames").rglob("*") if p.is_file() and p.name != "zarr.json").unlink()
    with pytest.raises(DatasetError, match="frames has 0 files, not 1"):
        Dataset.open(tmp_path / "d")


def test_missing_column_is_told(tmp_path):
    write(tmp_path / "d", [episode(3)])
    (tmp_path / "d" / "rewards" / "zarr.json").unlink()
    with pytest.raises(DatasetError, match="damaged"):
        Dataset.open(tmp_path / "d")


# --- interruption and concurrency

WRITER = """
import signal, sys, time
import numpy as np
from gymnasium import spaces
from worldsim.data import DatasetWriter
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit a deaf one
from worldsim.errors import DatasetError
with DatasetWriter(sys.argv[1], action_space=spaces.Discrete(2), fps=1) as writer:
    print("writing", flush=True)
    while True:
        writer.add_episode(np.zeros((600, 32, 32, 3), np.uint8), np.zeros(599, int))
        print("episode", flush=True)
        time.sleep(0.01)
"""


def start_writer(path, episodes):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    for _ in range(episodes + 1):
        assert process.stdout.readline()
    return process


def test_writer_that_is_killed_leaves_nothing_that_opens(tmp_path):
    path = tmp_path / "d"
    process = start_writer(path, 12)  # beyond the first full shard of frames
    try:
        with pytest.raises(DatasetError, match="another process is writing"):
            Dataset.open(path)
        with pytest.raises(DatasetError, match="another process is writing"):
            write(path, [episode(3)])
        with pytest.raises(DatasetError, match="another process is writing"):
            Dataset.open(tmp_path / "d.partial")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [p.name for p in tmp_path.iterdir()] == ["d.partial"]
    with pytest.raises(DatasetError, match="interrupted"):
        Dataset.open(path)
    with pytest.raises(DatasetError, match="interrupted"):
        Dataset.open(tmp_path / "d.partial")
    assert len(write(path, [episode(3)])) == 1  # the remains do not stand in the way
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_writer_that_is_interrupted_cleans_up(tmp_path):
    process = start_writer(tmp_path / "d", 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0
    assert list(tmp_path.iterdir()) == []


def test_dataset_appears_only_when_finished(tmp_path):
    path = tmp_path / "d"
    with DatasetWriter(path, action_space=spaces.Discrete(2), fps=1) as writer:
        writer.add_episode(np.zeros((3, 4, 4, 3), np.uint8), np.zeros(2, int))
        assert not path.exists()
        with pytest.raises(DatasetError, match="is writing"):
            Dataset.open(path)
    assert len(Dataset.open(path)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_place_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DatasetError, match="Permission denied"):
        write(tmp_path / "d", [episode(3)])


def test_place_below_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatasetError, match="expected to write"):
        write(tmp_path / "file" / "d", [episode(3)])


def test_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("worldsim.data.column.Column._write", full)
    with pytest.raises(DatasetError, match="No space left"):
        write(tmp_path / "d", [episode(3)])
    assert list(tmp_path.iterdir()) == []
