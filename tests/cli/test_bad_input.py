"""`worldsim score` on what files really hold: a score with a reason or a named error, and the batch goes on."""

import json
import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from eval import Clip, score
from worldsim.cli import main
from worldsim.cli.clips import Reader
from worldsim.errors import VideoError
from worldsim.video import write_video


def falling(times_s, size=(48, 64)):
    """A ball on a parabola as it is at the given times, in frames of any number."""
    frames = np.full((len(times_s), *size, 3), 200, np.uint8)
    for frame, t in zip(frames, times_s, strict=True):
        cv2.circle(frame, (round(10 + 20 * t), round(8 + 5 * t + 6 * t * t)), 5, (180, 30, 30), -1)
    return frames


def write_timed(path, frames, times_ms):
    """An mp4 whose frames are shown at the given times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000)
        stream.height, stream.width = frames.shape[1:3]
        stream.codec_context.time_base = Fraction(1, 1000)
        for pixels, at in zip(frames, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = int(at), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def scored(tmp_path, *arguments):
    assert main(["score", *map(str, arguments), "--out", str(tmp_path / "out")]) == 0
    return json.loads((tmp_path / "out" / "scores.json").read_text())


def test_uneven_frame_times_are_evened_and_said(tmp_path):
    jitter = np.random.default_rng(0).integers(-20, 21, 16)
    times_ms = 100 * np.arange(16) + jitter - jitter[0]
    write_timed(tmp_path / "uneven.mp4", falling(times_ms / 1000), times_ms)
    clip = Reader()(tmp_path / "uneven.mp4")
    assert "uneven frame times" in clip.name
    assert clip.frames.shape == (16, 48, 64, 3)
    assert clip.fps == pytest.approx(10, rel=0.02)


def test_a_frame_that_is_missing_is_no_jump_but_an_error_and_lowers_the_mean(tmp_path, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    times_ms = np.delete(100 * np.arange(14), [6, 7])
    write_timed(folder / "b.mp4", falling(times_ms / 1000), times_ms)
    with pytest.raises(VideoError, match="100 to 300 ms apart"):
        Reader()(folder / "b.mp4")
    assert "evenly spaced" not in Reader(fps=10)(folder / "b.mp4").name
    assert main(["score", str(folder / "b.mp4"), "--out", str(tmp_path / "one")]) == 2
    assert "constant frame rate" in capsys.readouterr().err
    write_video(folder / "a.mp4", falling(np.arange(14) / 10), 10)
    found = scored(tmp_path, folder, "--suite", "flicker")
    assert found["failures"] == 1
    assert found["means"]["flicker"]["value"] <= 0.5


def test_grey_transparent_single_and_odd_videos_get_scores_or_reasons(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    frames = falling(np.arange(14) / 10, (37, 51))
    with av.open(str(folder / "grey.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 37, 51, "gray"
        for pixels in frames[..., 0]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="gray")))
        container.mux(stream.encode(None))
    write_video(folder / "odd.mp4", frames, 10)
    write_video(folder / "one.mp4", frames[:1], 10)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i, frame in enumerate(frames):
        cv2.imwrite(str(pictures / f"{i}.png"), np.dstack([frame[..., ::-1], np.full((37, 51), 90, np.uint8)]))
    found = scored(tmp_path, folder, pictures, "--suite", "physics,quality", "--fps", "10")
    assert found["failures"] == 0
    assert len(found["results"]) == 4
    for result in found["results"]:
        for name, one in result["scores"].items():
            assert (one["value"] is None) == (one["status"] != "ok"), name
            assert one["value"] is not None or one["reason"], name
    alone = next(r for r in found["results"] if r["clip"].startswith("one"))["scores"]
    assert all(s["value"] is None for n, s in alone.items() if n != "blur")


def test_thousands_of_specks_are_bounded_in_time(tmp_path):
    rng = np.random.default_rng(0)
    at = rng.integers(0, 512, (10_000, 2))
    frames = np.full((8, 512, 512, 3), 20, np.uint8)
    for t, frame in enumerate(frames):
        moved = (at + t * rng.integers(-2, 3, 2)) % 512
        frame[moved[:, 0], moved[:, 1]] = 255
    began = time.process_time()
    report = score(Clip(frames=frames, fps=10), "physics")
    assert time.process_time() - began < 30
    assert all(s.value is not None or s.reason for s in report.values())


def test_ten_thousand_masks_are_bounded_in_time():
    labels = np.zeros((6, 202, 202), np.int16)
    grid = np.arange(10_000).reshape(100, 100) + 1
    for t in range(6):
        labels[t, t % 2 : t % 2 + 200 : 2, 1:201:2] = grid
    frames = np.repeat((labels % 251).astype(np.uint8)[..., None], 3, axis=-1)
    began = time.process_time()
    report = score(Clip(frames=frames, fps=10, truth={"segmentation": labels}), "physics")
    assert time.process_time() - began < 60
    assert all(s.value is not None or s.reason for s in report.values())


def test_saved_scores_are_measured_again_and_refused_for_another_video(tmp_path, capsys):
    write_video(tmp_path / "a.npz", falling(np.arange(10) / 10), 10)
    scored(tmp_path, tmp_path / "a.npz", "--suite", "flicker,freeze")
    saved = str(tmp_path / "out" / "scores.json")
    assert main(["score", "--verify", saved]) == 0
    assert "2 reproduced, 0 differs, 0 refused" in capsys.readouterr().out
    write_video(tmp_path / "b.npz", falling(np.arange(11) / 10), 10)
    assert main(["score", str(tmp_path / "b.npz"), "--verify", saved]) == 2
    assert "0 reproduced, 0 differs, 2 refused" in capsys.readouterr().err
    (tmp_path / "bad.json").write_text("[]")
    assert main(["score", "--verify", str(tmp_path / "bad.json")]) == 2
    assert "scores of videos" in capsys.readouterr().err
