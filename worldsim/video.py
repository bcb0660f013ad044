"""Video at the edges: uint8 frames to model tensors and back, and video files read and written.

Frames are uint8 (T, H, W, 3), RGB, everywhere outside the model. torch, PyAV and Pillow are imported on first use.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from worldsim.containers import VariableFrameRateWarning, damaged, read_container, write_gif, write_mp4
from worldsim.errors import FramesError, VideoError

if TYPE_CHECKING:
    import torch

__all__ = ["VariableFrameRateWarning", "Video", "check_frames", "from_model", "read_video", "to_model", "write_video"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
CONTAINER_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif"})
ARRAY_SUFFIXES = frozenset({".npz", ".npy"})
WRITABLE_SUFFIXES = frozenset({".mp4", ".gif", ".png", ".npz"})

_STRIP_KEY = "worldsim:strip"  # PNG text chunk: "<frames> <fps>"


class Video(NamedTuple):
    """What `read_video` returns: `frames` uint8 (T, H, W, 3) and `fps`, frames per second."""

    frames: np.ndarray
    fps: float


# ---------------------------------------------------------------------------------------------- model tensors


def to_model(frames: np.ndarray, device: "torch.device | str | None" = None) -> "torch.Tensor":
    """Converts frames to a model tensor: 0 becomes -1 and 255 becomes 1.

    Args:
        frames: uint8 (B, T, H, W, 3), or (T, H, W, 3), which becomes a batch of one.
        device: Where the tensor goes.

    Returns:
        float32 (B, T, 3, H, W) in [-1, 1].

    Raises:
        FramesError: If the frames are not uint8 of such a shape.
    """
    import torch  # noqa: PLC0415 - importing this module must not import torch

    frames = np.asarray(frames)
    check_frames(frames, batched=frames.ndim == 5)
    if frames.ndim == 4:
        frames = frames[None]
    frames = np.ascontiguousarray(frames)
    if not frames.flags.writeable:
        frames = frames.copy()
    pixels = torch.from_numpy(frames).to(device)
    return pixels.permute(0, 1, 4, 2, 3).to(torch.float32).div_(127.5).sub_(1.0).contiguous()


def from_model(video: "torch.Tensor") -> np.ndarray:
    """Converts a model tensor to frames: rounds to the nearest of 256 levels; what lies beyond [-1, 1] saturates.

    Args:
        video: floating (B, T, 3, H, W).

    Returns:
        uint8 (B, T, H, W, 3).

    Raises:
        FramesError: If the shape is another, or a value is not finite.
    """
    import torch  # noqa: PLC0415 - importing this module must not import torch

    if video.ndim != 5 or video.shape[2] != 3 or not video.is_floating_point():
        raise FramesError(
            expected="a floating tensor (B, T, 3, H, W)",
            got=f"{video.dtype} {tuple(video.shape)}",
            remedy="Pass the decoder's output as it is.",
        )
    if not bool(torch.isfinite(video).all()):
        raise FramesError(
            expected="finite pixels", got="NaN or infinity", remedy="Check the model's weights and input."
        )
    pixels = video.detach().to(torch.float32).add(1.0).mul_(127.5).round_().clamp_(0.0, 255.0).to(torch.uint8)
    return pixels.permute(0, 1, 3, 4, 2).contiguous().cpu().numpy()


def check_frames(frames: np.ndarray, *, batched: bool = False) -> None:
    """Checks that `frames` is a non-empty uint8 array (T, H, W, 3), or (B, T, H, W, 3) if `batched`.

    Raises:
        FramesError: If it is not.
    """
    shape = "(B, T, H, W, 3)" if batched else "(T, H, W, 3)"
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 + batched:
        got = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise FramesError(expected=f"frames as a uint8 array {shape}", got=got, remedy="Convert them to RGB bytes.")
    if frames.shape[-1] != 3:
        raise FramesError(
            expected=f"frames with three channels last, {shape}",
            got=str(frames.shape),
            remedy="Repeat grey three times, drop alpha, move channels to the end.",
        )
    if 0 in frames.shape:
        raise FramesError(expected="at least one frame with pixels", got=str(frames.shape), remedy="Check the source.")


# ---------------------------------------------------------------------------------------------- reading


def read_video(
    path: str | Path,
    *,
    default_fps: float | None = None,
    max_frames: int | None = None,
    each: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Video:
    """Reads a video file, an array file or a directory of images.

    Containers (mp4, mov, webm, mkv, avi, gif) are decoded with PyAV and turned upright by their rotation tag; frames
    that are not evenly spaced give a `VariableFrameRateWarning` and the mean rate. `.npz` holds `frames` and `fps`,
    `.npy` the frames. A PNG strip of `write_video` is split; any other image is a video of one frame, at 1 fps if no
    rate is given. The images of a directory are taken in natural order (2 before 10).

    Args:
        path: File or directory.
        default_fps: The rate of inputs that state none (images, `.npy`).
        max_frames: Read no more than the first so many; what follows is neither decoded nor checked.
        each: Applied to every frame, uint8 (H, W, 3), as soon as it is decoded: a reduction here keeps the memory of
            large videos small.

    Returns:
        Frames uint8 (T, H, W, 3) and the frame rate.

    Raises:
        VideoError: If the file is missing, empty, corrupt, truncated, of unknown kind, or states no frame rate.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.exists():
        raise VideoError(
            expected="a video file or a directory of images", got=f"no such path: {path}", remedy="Check it."
        )
    if path.is_dir():
        frames, fps = _read_folder(path, max_frames), None
    elif path.stat().st_size == 0:
        raise VideoError(expected="a video file", got=f"an empty file: {path}", remedy="Fetch or record it again.")
    elif suffix in CONTAINER_SUFFIXES:
        frames, fps = read_container(path, max_frames=max_frames, each=each)
    elif suffix in ARRAY_SUFFIXES:
        frames, fps = _read_array(path)
    elif suffix in IMAGE_SUFFIXES:
        frames, fps = _read_image(path)
    else:
        known = " ".join(sorted(CONTAINER_SUFFIXES | ARRAY_SUFFIXES | IMAGE_SUFFIXES))
        raise VideoError(expected=f"a file ending in one of {known}", got=path.name, remedy="Convert it to mp4.")
    try:
        check_frames(frames)
    except FramesError as error:
        raise VideoError(expected=error.expected, got=f"{error.got} in {path}", remedy=error.remedy) from error
    if suffix not in CONTAINER_SUFFIXES:
        frames = frames[:max_frames] if each is None else np.stack([each(f) for f in frames[:max_frames]])
    fps = fps or default_fps or (1.0 if len(frames) == 1 else None)
    if fps is None or not (np.isfinite(fps) and fps > 0):
        raise VideoError(expected="a frame rate above 0", got=f"{fps} for {path}", remedy="Pass default_fps.")
    return Video(frames, float(fps))


def _read_array(path: Path) -> tuple[np.ndarray, float | None]:
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {"frames": loaded} if isinstance(loaded, np.ndarray) else {k: loaded[k] for k in loaded}
    except Exception as error:  # zipfile, zlib and numpy raise many kinds on damaged files
        raise damaged(path, str(error)) from error
    if "frames" not in arrays:
        raise VideoError(expected="an array named 'frames'", got=f"{sorted(arrays)} in {path}", remedy="Rename it.")
    return arrays["frames"], float(arrays["fps"]) if "fps" in arrays else None


def _read_image(path: Path) -> tuple[np.ndarray, float | None]:
    from PIL import Image, ImageOps  # noqa: PLC0415 - only when an image is read

    try:
        with Image.open(path) as image:
            # Pixels may be complete where the end of a PNG is missing: only the walk over its chunks tells.
            image.verify()
        with Image.open(path) as image:
            if image.mode not in {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}:
                raise VideoError(
                    expected="an 8-bit image", got=f"mode {image.mode} in {path}", remedy="Convert it to RGB."
                )
            strip = image.info.get(_STRIP_KEY)
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise damaged(path, str(error)) from error
    if strip is None:
        return pixels[None], None
    count, fps = int(strip.split()[0]), float(strip.split()[1])
    height, width = pixels.shape[0], pixels.shape[1] // count
    return np.ascontiguousarray(pixels.reshape(height, count, width, 3).swapaxes(0, 1)), fps


def _read_folder(path: Path, max_frames: int | None) -> np.ndarray:
    files = sorted((f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES), key=_natural)[:max_frames]
    if not files:
        raise VideoError(expected="a directory of images", got=f"no image in {path}", remedy="Check the path.")
    images = [_read_image(f)[0][0] for f in files]
    odd = next((f for f, i in zip(files, images, strict=True) if i.shape != images[0].shape), None)
    if odd is not None:
        raise VideoError(
            expected=f"images of one size, like {files[0].name}", got=f"another size: {odd.name}", remedy="Resize them."
        )
    return np.stack(images)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


# ---------------------------------------------------------------------------------------------- writing


def write_video(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Writes a video file, whole or not at all.

    - `.mp4`: H.264, yuv420p, BT.709, constant quality; lossy. An odd height or width is padded by repeating the last
      row or column, and the true size is noted in the file, by which `read_video` crops.
    - `.gif`: one palette of 256 colours for the whole video, times in 1/100 s; lossy.
    - `.png`: the frames side by side; the count and the rate are noted in the file. Lossless.
    - `.npz`: `frames` and `fps`. Lossless.

    Args:
        path: Where to write; its directory is made. An existing file is replaced.
        frames: uint8 (T, H, W, 3).
        fps: Frames per second.

    Raises:
        FramesError: If the frames are of another type or shape.
        VideoError: If the kind of file, the rate or the place cannot be written.
    """
    path = Path(path)
    check_frames(frames)
    if not (np.isfinite(fps) and fps > 0):
        raise VideoError(expected="fps above 0", got=fps, remedy="Pass the video's frame rate.")
    writers: dict[str, Callable[[Path, np.ndarray, float], None]] = {
        ".mp4": write_mp4,
        ".gif": write_gif,
        ".png": _write_png,
        ".npz": _write_npz,
    }
    write = writers.get(path.suffix.lower())
    if write is None:
        raise VideoError(expected=f"a path ending in one of {' '.join(writers)}", got=path.name, remedy="Rename it.")
    with _whole_or_nothing(path) as partial:
        write(partial, frames, float(fps))


@contextmanager
def _whole_or_nothing(path: Path) -> Iterator[Path]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise VideoError(
            expected=f"to write {path}", got=str(error), remedy="Check the place and its space."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _write_png(path: Path, frames: np.ndarray, fps: float) -> None:
    from PIL import Image  # noqa: PLC0415 - only when an image is written
    from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415

    count, height, width = frames.shape[:3]
    note = PngInfo()
    note.add_text(_STRIP_KEY, f"{count} {fps!r}")
    strip = frames.swapaxes(0, 1).reshape(height, count * width, 3)
    Image.fromarray(np.ascontiguousarray(strip)).save(path, format="PNG", pnginfo=note)


def _write_npz(path: Path, frames: np.ndarray, fps: float) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, frames=frames, fps=np.float64(fps))
