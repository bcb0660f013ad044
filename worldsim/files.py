"""Writing files so that they are never seen half-written."""

import os
import tempfile
from pathlib import Path


def write_text(file: Path, text: str) -> None:
    """Writes a text file beside its place, then moves it there."""
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".", suffix=".tmp", delete=False) as stream:
        stream.write(text)
    # A temporary file is private; what it becomes should be as readable as any other file.
    Path(stream.name).chmod(0o644)
    os.replace(stream.name, file)  # noqa: PTH105 - the rename is the point
