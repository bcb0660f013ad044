"""The folder that a command fills: complete or untouched."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worldsim.errors import ConfigError

MANIFEST = "files.json"


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """A scratch folder whose files move to `path` when the block ends without an error.

    Files that an earlier run wrote there, which `files.json` names, are replaced or removed; others are left alone.

    Raises:
        ConfigError: If `path` is not a folder or cannot be written.
    """
    made = [parent for parent in (path, *path.parents) if not parent.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".worldsim.", suffix=".tmp", dir=path))
    except OSError as error:
        raise ConfigError(expected=f"a folder to write to at {path}", got=error, remedy="Choose another.") from error
    try:
        yield scratch
        _move(scratch, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for folder in made:
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()


def _move(scratch: Path, path: Path) -> None:
    files = sorted(f.relative_to(scratch).as_posix() for f in scratch.rglob("*") if f.is_file())
    for name in _earlier(path) - set(files):
        (path / name).unlink(missing_ok=True)
    (scratch / MANIFEST).write_text(json.dumps(files, indent=1) + "\n")
    for name in [*files, MANIFEST]:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).chmod(0o644)  # scratch files are made private
        (scratch / name).replace(path / name)


def _earlier(path: Path) -> set[str]:
    """Names of files within `path` that an earlier run wrote."""
    try:
        listed = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError):
        return set()
    names = listed if isinstance(listed, list) else []
    return {n for n in names if isinstance(n, str) and (path / n).resolve().is_relative_to(path.resolve())}
