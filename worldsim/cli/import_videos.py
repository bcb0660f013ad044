"""`worldsim import-videos`: a folder of videos, with or without actions and captions, into a dataset."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from worldsim.data import import_videos


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to import.

    Attributes:
        folder: Where the videos lie; an `episodes.jsonl` there may give captions and actions (see docs/data.md).
        out: Directory of the dataset; must not exist.
        size: Height and width: videos are cropped around the centre and resized by area.
        fps: Frames per second: of faster videos the frames nearest in time are taken.
    """

    folder: tyro.conf.Positional[Path]
    out: Path
    size: tuple[int, int] | None = None
    fps: float | None = None


def run(options: Options) -> None:
    """Imports, and says what was written."""
    dataset = import_videos(options.folder, options.out, size=options.size, fps=options.fps)
    print(dataset)
