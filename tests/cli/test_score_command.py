"""`worldsim score`: the numbers of the evaluators, whole output or none, failures counted."""

import json

import gymnasium as gym
import numpy as np
import pytest

import envs  # noqa: F401 - registers the worlds
from envs.room.policies import follow_path
from eval import Clip, score
from eval.fidelity import psnr
from worldsim.cli import main
from worldsim.cli.clips import Reader, find_videos
from worldsim.data import record
from worldsim.errors import ConfigError, VideoError
from worldsim.video import write_video


def moving_square(count=12, size=(48, 64), step=2):
    frames = np.full((count, *size, 3), 200, np.uint8)
    for t in range(count):
        frames[t, 16:32, 4 + step * t : 16 + step * t] = (180, 30, 30)
    return frames


@pytest.fixture
def video(tmp_path):
    write_video(tmp_path / "square.npz", moving_square(), 10)
    return tmp_path / "square.npz"


def scores(out):
    return json.loads((out / "scores.json").read_text())


def test_scores_are_those_of_the_evaluators(video, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["score", str(video), "--suite", "quality", "--out", str(out)]) == 0
    (result,) = scores(out)["results"]
    direct = score(Clip(frames=moving_square(), fps=10.0, name="square.npz"), "quality").to_json()
    assert result == json.loads(json.dumps(direct))
    shown = capsys.readouterr().out
    html = (out / "report.html").read_text()
    for name, found in direct["scores"].items():
        assert name in html
        assert found["value"] is None or name in shown
    assert str(out / "report.html") in shown


def test_reference_adds_fidelity(video, tmp_path):
    noisy = np.clip(moving_square().astype(int) + np.random.default_rng(0).integers(-9, 9, (12, 48, 64, 3)), 0, 255)
    write_video(tmp_path / "noisy.npz", noisy.astype(np.uint8), 10)
    out = tmp_path / "out"
    arguments = ["score", str(tmp_path / "noisy.npz"), "--reference", str(video), "--suite", "psnr", "--out", str(out)]
    assert main(arguments) == 0
    value = scores(out)["results"][0]["scores"]["psnr"]["value"]
    assert value == pytest.approx(psnr(noisy.astype(np.uint8), moving_square())[1:].mean())


def test_corrupt_files_in_a_folder_are_counted_and_the_batch_goes_on(tmp_path, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "c"):
        write_video(folder / f"{name}.mp4", moving_square(), 10)
    (folder / "b.mp4").write_bytes((folder / "a.mp4").read_bytes()[:300])
    out = tmp_path / "out"
    assert main(["score", str(folder), "--suite", "flicker,freeze", "--out", str(out)]) == 0
    found = scores(out)
    assert found["failures"] == 1
    assert [("error" in r) for r in found["results"]] == [False, True, False]
    # The failed clip counts as 0.
    good = [r["scores"]["flicker"]["normalised"] for r in found["results"] if "scores" in r]
    assert found["means"]["flicker"]["value"] == pytest.approx(sum(good) / 3)
    html = (out / "report.html").read_text()
    assert "1 of 3 videos failed" in html
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.mp4"], "no such path"),
        (["bad.mp4"], "corrupt"),
        (["empty"], "neither in"),
        (["square.npz", "--suite", "fysics"], "Did you mean 'physics'?"),
        (["square.npz", "--max-frames", "0"], "max_frames"),
        (["square.npz", "--fps", "-1"], "fps above 0"),
        (["square.npz", "square.npz", "--reference", "square.npz"], "one video with a reference"),
        (["square.npz", "--reference", "other.npz", "--suite", "psnr"], "same length"),
        (["square.npz", "--out", "square.npz"], "a folder to write to"),
        (["--compare", "a=square.npz"], "at least two kinds"),
        (["--compare", "a=square.npz", "square.npz"], "LABEL=PATH"),
        (["--compare", "a=square.npz", "a=other.npz"], "each label once"),
        (["--compare", "a=square.npz", "b=missing.mp4"], "no such path"),
        (["square.npz", "--compare", "a=square.npz", "b=other.npz"], "or --compare"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(video, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.mp4").write_bytes(b"garbage" * 99)
    (tmp_path / "empty").mkdir()
    write_video(tmp_path / "other.npz", moving_square(9), 10)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    assert main(["score", *arguments]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "expected" in message
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_limits_are_kept_and_stated(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (20, 60, 90, 3), np.uint8)
    write_video(tmp_path / "big.npz", frames, 10)
    clip = Reader(max_frames=8, max_side=30, fps=5)(tmp_path / "big.npz")
    assert clip.frames.shape == (8, 20, 30, 3)
    # Shrinking by 3 in area is the mean over 3 x 3 pixels.
    mean = frames[:8].reshape(8, 20, 3, 30, 3, 3).mean(axis=(2, 4))
    assert np.abs(clip.frames - mean).max() <= 0.5 + 1e-9
    assert clip.fps == 5
    for note in ("only the first 8 frames", "60×90 shrunk to 20×30", "taken as 5 frames/s"):
        assert note in clip.name
    whole = Reader()(tmp_path / "big.npz")
    assert whole.name == "big.npz"
    assert np.array_equal(whole.frames, frames)


def test_limits_hold_while_decoding(tmp_path):
    frames = moving_square(30, (64, 96))
    write_video(tmp_path / "long.mp4", frames, 10)
    clip = Reader(max_frames=5)(tmp_path / "long.mp4")
    assert clip.frames.shape == (5, 64, 96, 3)
    assert np.abs(clip.frames.astype(int) - frames[:5]).mean() < 2
    exact = Reader(max_frames=30)(tmp_path / "long.mp4")
    assert exact.name == "long.mp4"


def test_folders_are_videos_or_pictures(tmp_path):
    with pytest.raises(VideoError, match="at least one video"):
        find_videos([])
    pictures = tmp_path / "pictures"
    for t in range(3):
        write_video(pictures / f"{t}.png", moving_square(4)[t : t + 1], 1)
    assert find_videos([pictures]) == [pictures]
    write_video(pictures / "b.gif", moving_square(4), 10)
    write_video(pictures / "a.mp4", moving_square(4), 10)
    assert [p.name for p in find_videos([pictures])] == ["a.mp4", "b.gif"]


def test_a_second_run_replaces_its_own_files_only(video, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    for suite in ("flicker", "freeze"):
        assert main(["score", str(video), "--suite", suite, "--out", str(out)]) == 0
    assert set(scores(out)["results"][0]["scores"]) == {"freeze"}
    assert sorted(p.name for p in out.iterdir()) == ["files.json", "mine.txt", "report.html", "scores.json"]
    with pytest.raises(ConfigError, match="max_side"):
        Reader(max_side=3)


def test_kinds_of_video_are_held_against_each_other(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for k in range(2):
        write_video(tmp_path / "calm" / f"{k}.mp4", moving_square(step=1 + k), 10)
        blinking = np.clip(
            moving_square(step=1 + k).astype(int) + 12 * (np.arange(12) % 2)[:, None, None, None], 0, 255
        )
        write_video(tmp_path / f"blinking{k}.npz", blinking.astype(np.uint8), 10)
    write_video(tmp_path / "noise.npz", rng.integers(0, 256, (12, 48, 64, 3), np.uint8), 10)
    kinds = [
        f"calm={tmp_path / 'calm'}",
        f"blinking={tmp_path / 'blinking0.npz'},{tmp_path / 'blinking1.npz'}",
        f"noise={tmp_path / 'noise.npz'}",
    ]
    out = tmp_path / "out"
    assert main(["score", "--compare", *kinds, "--suite", "flicker", "--out", str(out)]) == 0
    (found,) = scores(out)["orderings"]
    each = {r["clip"]: r["scores"]["flicker"]["value"] for r in scores(out)["results"]}
    assert found["values"]["calm"] == [each["0.mp4"], each["1.mp4"]]
    assert found["values"]["blinking"] == [each["blinking0.npz"], each["blinking1.npz"]]
    assert found["preferences"]["blinking"] == {"better": 4.0, "pairs": 4}
    assert "4 of 4" in capsys.readouterr().out
    html = (out / "report.html").read_text()
    for wanted in ("calm against blinking, noise", "calm better than blinking", "4 of 4"):
        assert wanted in html


def test_episodes_of_a_dataset_bring_their_truth(tmp_path, capsys):
    env = gym.make("envs:Room-v0", size=(32, 48), camera_path="orbit")
    dataset = record(env, follow_path, episodes=2, seed=3, path=tmp_path / "room", max_steps=7, progress=False)
    clip = Reader(max_frames=5)(tmp_path / "room" / "episode-000001")
    episode = dataset.episode(1)
    assert np.array_equal(clip.frames, episode.frames[:5])
    assert np.array_equal(clip.actions, episode.actions[:4])
    assert (clip.text, clip.fps) == (episode.caption, episode.fps)
    assert set(clip.truth) == set(episode.truth)
    assert np.array_equal(clip.truth["depth_m"], episode.truth["depth_m"][:5])
    assert clip.name == "room, episode-000001 (only the first 5 frames)"
    out = tmp_path / "out"
    assert main(["score", str(tmp_path / "room"), "--suite", "camera_following", "--out", str(out)]) == 0
    assert [r["scores"]["camera_following"]["status"] for r in scores(out)["results"]] == ["ok", "ok"]
    # One of them by name; nothing is shrunk whose truth is in pixels; what there is not is named.
    one = str(tmp_path / "room" / "episode-000000")
    assert main(["score", one, "--suite", "flicker", "--out", str(out)]) == 0
    assert len(scores(out)["results"]) == 1
    assert main(["score", one, "--max-side", "40", "--suite", "flicker", "--out", str(out)]) == 2
    assert "truth in pixels is not shrunk" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "room" / "episode-000002"), "--out", str(out)]) == 2


def test_videos_are_cut_into_parts_each_scored_by_itself(tmp_path, capsys):
    frames = np.random.default_rng(0).integers(0, 256, (11, 32, 48, 3), np.uint8)
    write_video(tmp_path / "long.npz", frames, 10)
    write_video(tmp_path / "short.npz", frames[:3], 10)
    (tmp_path / "bad.mp4").write_bytes(b"garbage" * 99)
    videos = [str(tmp_path / name) for name in ("long.npz", "short.npz", "bad.mp4")]
    out = tmp_path / "out"
    assert main(["score", *videos, "--suite", "mid_frame", "--window", "4", "--out", str(out)]) == 0
    first, second, *failed = scores(out)["results"]
    assert [first["clip"], second["clip"]] == ["long.npz, frames 0 to 3", "long.npz, frames 4 to 7"]
    # Each part has the score of a video that has its frames alone.
    for result, part in ((first, frames[:4]), (second, frames[4:8])):
        alone = score(Clip(frames=part, fps=10.0), "mid_frame")["mid_frame"].value
        assert result["scores"]["mid_frame"]["value"] == alone
    assert len(failed) == scores(out)["failures"] == 2
    assert "3 in short.npz" in failed[0]["error"]
    assert main(["score", "--verify", str(out / "scores.json")]) == 0
    capsys.readouterr()
    for length in ("1", "129"):
        assert main(["score", *videos, "--suite", "mid_frame", "--window", length, "--out", str(out)]) == 2
        assert "--window" in capsys.readouterr().err
