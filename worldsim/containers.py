"""Video containers through PyAV: mp4, webm, gif and their kin decoded, mp4 and gif encoded.

`worldsim.video` is the public door; this module imports PyAV and is itself imported on first use.
"""

import re
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec import Codec
from av.codec.codec import UnknownCodecError
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from worldsim.errors import VideoError

_CROP_KEY = "worldsim:size="  # MP4 comment: the size before padding to even numbers
_MAX_GIF_FPS = 50.0  # browsers slow down anything faster


class VariableFrameRateWarning(UserWarning):
    """The frames of a video are not evenly spaced in time; the frame rate returned is the mean.

    Attributes:
        times_s: When each frame is shown, in seconds.
    """

    def __init__(self, text: str, times_s: np.ndarray) -> None:
        super().__init__(text)
        self.times_s = times_s


def damaged(path: Path, why: str) -> VideoError:
    """The error for a file that was cut or spoilt."""
    return VideoError(
        expected="a whole, readable video",
        got=f"a corrupt or truncated file, {path} ({why})",
        remedy="Fetch or record it again.",
    )


def _reaches_trailer(gif: bytes) -> bool:
    """Whether the blocks of a GIF (GIF89a specification, W3C) lead to its trailer: a cut file may end in any byte."""

    def table(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    at = 13 + table(gif[10]) if len(gif) > 13 else len(gif)
    while at < len(gif):
        if gif[at] == ord(";"):
            return True
        if gif[at] == ord("!"):  # an extension and its label
            at += 2
        elif gif[at] == ord(",") and at + 10 < len(gif):  # an image: descriptor, colours, width of its codes
            at += 10 + table(gif[at + 9]) + 1
        else:
            return False
        while at < len(gif) and gif[at]:
            at += gif[at] + 1
        at += 1
    return False


def read_container(
    path: Path, *, max_frames: int | None = None, each: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[np.ndarray, float | None]:
    """All frames, uint8 (T, H, W, 3), upright, and the frame rate, or None where the file states none.

    Args:
        path: The file.
        max_frames: Decode no more than these.
        each: Applied to every frame as soon as it is decoded, such as a reduction that keeps memory small.

    Raises:
        VideoError: If the file is corrupt or truncated, or has no video or frames of several sizes.
    """
    if path.suffix.lower() == ".gif" and not _reaches_trailer(path.read_bytes()):
        raise damaged(path, "it ends before its trailer")
    frames, times = [], []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(expected="a video stream", got=f"none in {path}", remedy="Pass a video file.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            _check_index(stream, path)
            size = _size_before_padding(container.metadata.get("comment", ""))
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise damaged(path, f"frame {len(frames)} does not decode")
                turns = round(getattr(frame, "rotation", 0) / 90) % 4
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), turns)
                pixels = pixels if size is None else pixels[: size[0], : size[1]]
                frames.append(pixels if each is None else each(pixels))
                times.append(frame.time)
                if len(frames) == max_frames:
                    break
            nominal = float(stream.average_rate) if stream.average_rate else None
            tick_s = float(stream.time_base or 0)
            if len(frames) != max_frames:
                _check_duration(container, stream, times, path)
    except (FFmpegError, OSError, EOFError) as error:
        raise damaged(path, str(error)) from error
    if not frames:
        raise VideoError(expected="at least one frame", got=f"none in {path}", remedy="Fetch or record it again.")
    if len({f.shape for f in frames}) > 1:
        raise VideoError(
            expected="frames of one size", got=f"several sizes in {path}", remedy="Re-encode it at one resolution."
        )
    return np.stack(frames), _frame_rate(times, nominal, tick_s, path)


def _check_index(stream: Any, path: Path) -> None:  # noqa: ANN401 - PyAV's stream
    """Raises where the container's index points beyond the end of the file: the file was cut."""
    size = path.stat().st_size
    if any(entry.pos + entry.size > size for entry in stream.index_entries):
        raise damaged(path, "its index points beyond its end")


def _check_duration(container: Any, stream: Any, times: list[float | None], path: Path) -> None:  # noqa: ANN401
    """Raises where a Matroska file, whose index cannot tell, states a duration that its frames do not reach."""
    if "matroska" not in container.format.name or not times or times[-1] is None or not container.duration:
        return
    others = any(s.type != "video" for s in container.streams)
    stated_s = _seconds(stream.metadata.get("DURATION")) or (None if others else container.duration / 1e6)
    step_s = (times[-1] - (times[0] or 0.0)) / max(len(times) - 1, 1)
    if stated_s is not None and times[-1] + 2.5 * max(step_s, 0.02) < stated_s:
        raise damaged(path, f"it states {stated_s:.2f} s and its last frame is at {times[-1]:.2f} s")


def _seconds(text: str | None) -> float | None:
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text or "")
    return None if match is None else int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])


def _frame_rate(times: list[float | None], nominal: float | None, tick_s: float, path: Path) -> float | None:
    """The stated rate where the frames' times agree with it, else their mean rate; warns where they are uneven."""
    known = np.array([t for t in times if t is not None])
    if len(known) < 2 or len(known) < len(times):
        return nominal
    steps = np.diff(known)
    mean = float(steps.mean())
    if mean <= 0:
        return nominal
    if np.abs(steps - mean).max() > max(0.1 * mean, 1.5 * tick_s):
        text = (
            f"{path.name}: frames are {steps.min() * 1e3:.0f} to {steps.max() * 1e3:.0f} ms apart; mean rate returned"
        )
        warnings.warn(VariableFrameRateWarning(text, known), stacklevel=4)
        return 1.0 / mean
    agrees = nominal is not None and abs(nominal * mean - 1.0) < 0.5 / len(steps)
    return nominal if agrees else 1.0 / mean


def _size_before_padding(comment: str) -> tuple[int, int] | None:
    match = re.search(re.escape(_CROP_KEY) + r"(\d+)x(\d+)", comment)
    return None if match is None else (int(match[1]), int(match[2]))


def write_mp4(path: Path, frames: np.ndarray, fps: float) -> None:
    """H.264, yuv420p, BT.709; odd sizes are padded and noted."""
    height, width = frames.shape[1:3]
    try:
        Codec("libx264", "w")
    except UnknownCodecError as error:
        raise VideoError(
            expected="a PyAV build with an H.264 encoder", got="none", remedy="Write .gif, .png or .npz instead."
        ) from error
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        if height % 2 or width % 2:
            frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            container.metadata["comment"] = f"{_CROP_KEY}{height}x{width}"
        # x264's macroblock tree gives other bytes for the same frames now and then, with one thread as with many.
        options = {"crf": "16", "preset": "medium", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=_rate(fps), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = 1, 1, 1, 1
        for pixels in frames:
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            yuv = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            container.mux(stream.encode(yuv))
        container.mux(stream.encode(None))


def _rate(fps: float) -> Fraction:
    """The rate as a fraction that containers can hold; 29.97 and its kin become exact."""
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    return (
        ntsc
        if abs(float(ntsc) - fps) < 1e-3 and abs(fps - round(fps)) > 1e-6
        else Fraction(fps).limit_denominator(1001)
    )


def write_gif(path: Path, frames: np.ndarray, fps: float) -> None:
    """One palette of 256 colours for all frames; times in 1/100 s."""
    if fps > _MAX_GIF_FPS:
        raise VideoError(expected="at most 50 fps in a GIF", got=fps, remedy="Write an mp4, or every other frame.")
    sample = frames[np.unique(np.linspace(0, len(frames) - 1, 16).round().astype(int))]
    mosaic = Image.fromarray(np.ascontiguousarray(sample.reshape(-1, *sample.shape[2:])))
    palette = mosaic.quantize(256, method=Image.Quantize.MEDIANCUT)
    colours = np.zeros((256, 4), np.uint8)
    entries = np.array(palette.getpalette("RGB"), np.uint8).reshape(-1, 3)
    colours[: len(entries), 1:], colours[:, 0] = entries, 255
    ticks = np.round(np.arange(len(frames)) * 100.0 / fps).astype(int)
    with av.open(str(path), "w", format="gif") as container:
        stream = container.add_stream("gif", rate=Fraction(100))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "pal8"
        stream.codec_context.time_base = Fraction(1, 100)
        for tick, pixels in zip(ticks, frames, strict=True):
            image = Image.fromarray(np.ascontiguousarray(pixels)).quantize(palette=palette, dither=Image.Dither.NONE)
            pair: Any = (np.asarray(image), colours)  # what PyAV takes for "pal8", though its stub does not say so
            frame = av.VideoFrame.from_ndarray(pair, format="pal8")
            frame.pts, frame.time_base = int(tick), Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
