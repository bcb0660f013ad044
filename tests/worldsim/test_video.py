import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from worldsim.errors import FramesError, VideoError
from worldsim.video import VariableFrameRateWarning, from_model, read_video, to_model, write_video


def moving_gradient(count=12, height=48, width=64):
    y, x = np.mgrid[:height, :width]
    frames = [np.stack([(x * 2 + 3 * t) % 200, y * 4 % 250, np.full_like(x, 30 + 10 * t)], -1) for t in range(count)]
    return np.stack(frames).astype(np.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


# --- tensors


def test_import_does_not_import_torch():
    code = "import sys, worldsim.video; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_to_model_maps_black_to_minus_one_and_white_to_one():
    frames = np.zeros((2, 4, 6, 3), np.uint8)
    frames[1, 2, 3] = (255, 0, 51)
    video = to_model(frames)
    assert video.shape == (1, 2, 3, 4, 6)
    assert video.dtype == torch.float32
    assert video[0, 0].eq(-1.0).all()
    assert video[0, 1, :, 2, 3].tolist() == pytest.approx([1.0, -1.0, -0.6])


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5).map(lambda s: (*s, 3))))
def test_tensor_round_trip_is_exact(frames):
    assert np.array_equal(from_model(to_model(frames)), frames)


def test_to_model_leaves_read_only_and_reversed_frames_alone():
    frames = moving_gradient(3)
    frames.flags.writeable = False
    assert np.array_equal(from_model(to_model(frames[::-1]))[0], frames[::-1])


def test_from_model_rounds_to_nearest_and_saturates():
    video = torch.tensor([-3.0, -1.0, 0.4 / 127.5, 0.6 / 127.5, 1.0, 9.0]).view(1, 1, 1, 1, 6).expand(1, 1, 3, 1, 6)
    assert from_model(video)[0, 0, 0, :, 0].tolist() == [0, 0, 128, 128, 255, 255]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_from_model_refuses_what_is_not_finite(bad):
    video = torch.zeros(1, 2, 3, 4, 4)
    video[0, 1, 2, 3, 3] = bad
    with pytest.raises(FramesError, match="finite"):
        from_model(video)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((2, 4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((2, 3, 4, 4), np.uint8),
    ],
)
def test_wrong_frames_are_named_errors(frames, tmp_path):
    with pytest.raises(FramesError, match="expected"):
        to_model(frames)
    with pytest.raises(FramesError, match="expected"):
        write_video(tmp_path / "a.mp4", frames, 10)
    assert list(tmp_path.iterdir()) == []


def test_from_model_refuses_other_shapes():
    with pytest.raises(FramesError, match="B, T, 3, H, W"):
        from_model(torch.zeros(2, 3, 4, 4))


# --- files


@settings(max_examples=15)
@given(
    frames=hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3).map(lambda s: (*s, 3))),
    fps=st.floats(0.5, 120),
    suffix=st.sampled_from([".npz", ".png"]),
)
def test_lossless_kinds_return_what_was_written(frames, fps, suffix, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / f"a{suffix}"
    write_video(path, frames, fps)
    read, rate = read_video(path)
    assert np.array_equal(read, frames)
    assert rate == fps


@pytest.mark.parametrize("size", [(48, 64), (47, 64), (48, 63), (47, 63)])
@pytest.mark.parametrize("fps", [10.0, 30000 / 1001, 12.5, 60.0])
def test_mp4_keeps_size_count_rate_and_colours(size, fps, tmp_path):
    frames = moving_gradient(9, *size)
    write_video(tmp_path / "a.mp4", frames, fps)
    read, rate = read_video(tmp_path / "a.mp4")
    assert read.shape == frames.shape
    assert rate == pytest.approx(fps, rel=1e-6)
    assert psnr(read, frames) > 32


def test_mp4_keeps_flat_colours_within_a_few_levels(tmp_path):
    # A wrong colour matrix (BT.601 read as BT.709) shifts saturated colours by more than 15 levels.
    colours = np.array([[220, 30, 40], [30, 200, 50], [40, 60, 220], [128, 128, 128], [255, 255, 255], [0, 0, 0]])
    frames = np.broadcast_to(colours[:, None, None], (6, 32, 32, 3)).astype(np.uint8)
    write_video(tmp_path / "a.mp4", frames, 5)
    read, _ = read_video(tmp_path / "a.mp4")
    assert np.abs(read.astype(int) - frames).max() <= 4


def test_the_same_frames_give_the_same_file_again_and_again(tmp_path):
    frames = np.full((64, 64, 64, 3), 200, np.uint8)
    for t in range(64):
        frames[t, 10:20, t // 2 : 10 + t // 2] = (200, 30, 30)
        frames[t, 40:52, 50 - t // 2 : 62 - t // 2] = (20, 30, 190)
    files = set()
    for _ in range(12):
        write_video(tmp_path / "clip.mp4", frames, 10.0)
        files.add((tmp_path / "clip.mp4").read_bytes())
    assert len(files) == 1


def test_mp4_is_h264_that_browsers_play(tmp_path):
    write_video(tmp_path / "a.mp4", moving_gradient(), 10)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize("fps", [10.0, 25.0, 30.0, 50.0])
def test_gif_keeps_every_frame_even_equal_ones(fps, tmp_path):
    frames = moving_gradient(8)
    frames[3:6] = frames[3]
    write_video(tmp_path / "a.gif", frames, fps)
    read, rate = read_video(tmp_path / "a.gif")
    assert read.shape == frames.shape
    assert rate == pytest.approx(fps, rel=0.05)  # GIF counts in 1/100 s
    assert psnr(read, frames) > 25


def test_gif_of_few_colours_is_exact(tmp_path):
    frames = np.zeros((4, 20, 20, 3), np.uint8)
    for t in range(4):
        frames[t, 3 + t : 9 + t, 5:12] = (250, 120, 8)
    write_video(tmp_path / "a.gif", frames, 10)
    assert np.array_equal(read_video(tmp_path / "a.gif").frames, frames)


def test_folder_is_read_in_natural_order(tmp_path):
    for number in (1, 2, 10):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"f{number}.png")
    frames, fps = read_video(tmp_path, default_fps=4)
    assert frames[:, 0, 0, 0].tolist() == [1, 2, 10]
    assert fps == 4
    with pytest.raises(VideoError, match="default_fps"):
        read_video(tmp_path)
    Image.new("RGB", (9, 6)).save(tmp_path / "f11.png")
    with pytest.raises(VideoError, match=r"f11\.png"):
        read_video(tmp_path, default_fps=4)


def test_single_grey_image_is_one_rgb_frame(tmp_path):
    Image.new("L", (8, 6), 77).save(tmp_path / "a.png")
    frames, fps = read_video(tmp_path / "a.png")
    assert frames.shape == (1, 6, 8, 3)
    assert (frames == 77).all()
    assert fps == 1.0


def test_sixteen_bit_image_is_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(VideoError, match="8-bit"):
        read_video(tmp_path / "a.png")


def test_npy_needs_a_rate(tmp_path):
    frames = moving_gradient(3)
    np.save(tmp_path / "a.npy", frames)
    with pytest.raises(VideoError, match="frame rate"):
        read_video(tmp_path / "a.npy")
    assert np.array_equal(read_video(tmp_path / "a.npy", default_fps=5).frames, frames)


def _encode(path, codec, times_ms, format_):
    frames = moving_gradient(len(times_ms))
    with av.open(str(path), "w", format=format_) as container:
        stream = container.add_stream(codec, rate=1000)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time, pixels in zip(times_ms, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return frames


@pytest.mark.parametrize(("codec", "suffix", "format_"), [("libx264", ".mp4", "mp4"), ("libvpx-vp9", ".webm", "webm")])
def test_variable_frame_rate_is_told(codec, suffix, format_, tmp_path):
    path = tmp_path / f"a{suffix}"
    _encode(path, codec, [0, 100, 200, 500, 600, 1000], format_)
    with pytest.warns(VariableFrameRateWarning, match="100 to 400 ms"):
        frames, fps = read_video(path)
    assert len(frames) == 6
    assert fps == pytest.approx(5.0)


@pytest.mark.filterwarnings("error")
def test_webm_with_rounded_times_is_constant(tmp_path):
    times = [round(i * 1000 / 30) for i in range(12)]
    frames = _encode(tmp_path / "a.webm", "libvpx-vp9", times, "webm")
    read, fps = read_video(tmp_path / "a.webm")
    assert read.shape == frames.shape
    assert fps == pytest.approx(30, rel=0.01)


def test_rotation_tag_turns_the_frames_upright(tmp_path):
    # The tag is a rotation matrix in the track header ("tkhd"): four 16.16 numbers at fixed places.
    frames = moving_gradient(4, 32, 48)
    write_video(tmp_path / "a.mp4", frames, 10)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    one, minus = (65536).to_bytes(4, "big"), (-65536).to_bytes(4, "big", signed=True)
    zero = bytes(4)
    data[matrix : matrix + 20] = zero + one + zero + minus + zero  # a quarter turn clockwise when shown
    (tmp_path / "b.mp4").write_bytes(data)
    turned = read_video(tmp_path / "b.mp4").frames
    assert np.array_equal(turned, np.rot90(read_video(tmp_path / "a.mp4").frames, -1, axes=(1, 2)))


# --- damage


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png", ".npz"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9, 0.97])
def test_truncated_files_are_named_errors(suffix, share, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_video(path, moving_gradient(), 10)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(VideoError, match="expected"):
        read_video(path)


def test_a_gif_cut_where_a_byte_looks_like_its_trailer_is_a_named_error(tmp_path):
    write_video(tmp_path / "a.gif", moving_gradient(), 10)
    data = (tmp_path / "a.gif").read_bytes()
    cuts = [n for n in range(1, len(data)) if data[n - 1 : n] == b";"]
    assert cuts
    for cut in cuts:
        (tmp_path / "b.gif").write_bytes(data[:cut])
        with pytest.raises(VideoError, match="trailer"):
            read_video(tmp_path / "b.gif")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_webm_is_a_named_error(share, tmp_path):
    path = tmp_path / "a.webm"
    _encode(path, "libvpx-vp9", [i * 40 for i in range(60)], "webm")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(VideoError, match="truncated"):
        read_video(path)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webm", ".png", ".jpg", ".npz", ".npy"])
def test_noise_is_a_named_error(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(VideoError, match="expected"):
        read_video(path)


def test_missing_unknown_and_pickled_files_are_named_errors(tmp_path):
    with pytest.raises(VideoError, match="no such path"):
        read_video(tmp_path / "none.mp4")
    (tmp_path / "a.txt").write_text("no video")
    with pytest.raises(VideoError, match="ending in"):
        read_video(tmp_path / "a.txt")
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(VideoError, match="corrupt"):
        read_video(tmp_path / "a.npy", default_fps=1)
    np.savez(tmp_path / "a.npz", pictures=moving_gradient(2))
    with pytest.raises(VideoError, match="'frames'"):
        read_video(tmp_path / "a.npz", default_fps=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="no image"):
        read_video(tmp_path / "empty")


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_bad_rates_are_refused(fps, tmp_path):
    with pytest.raises(VideoError, match="fps"):
        write_video(tmp_path / "a.mp4", moving_gradient(2), fps)


def test_gif_beyond_its_rate_is_refused(tmp_path):
    with pytest.raises(VideoError, match="GIF"):
        write_video(tmp_path / "a.gif", moving_gradient(2), 60)


def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write_video(path, moving_gradient(2), 10)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(VideoError, match="No space left"):
        write_video(path, moving_gradient(3), 10)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
