"""Runs every notebook of a directory from top to bottom in a scratch copy; fails at the first error."""

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TIMEOUT_S = 300


def main(folder: Path) -> int:
    """Runs the notebooks of `folder`; returns the exit code."""
    notebooks = sorted(folder.glob("*.ipynb"))
    if not notebooks:
        print(f"no notebook in {folder}")
        return 1
    for path in notebooks:
        begun = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as scratch:
            NotebookClient(notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": scratch}}).execute()
        print(f"{path}: {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
