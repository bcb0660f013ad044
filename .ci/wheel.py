"""Checks the built wheel: it holds every tracked file of the packages, nothing else, and its command starts."""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGES = ("worldsim", "envs", "eval")


def _list(kind: str) -> set[str]:
    command = ["git", "ls-files", "-z", kind, *PACKAGES]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.split("\0") if name and Path(name).exists()}


def main(folder: Path) -> int:
    """Checks the one wheel in `folder`; returns the exit code."""
    (wheel,) = folder.glob("*.whl")
    tracked, untracked = _list("--cached"), _list("--others")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    missing, foreign = tracked - packed, packed - tracked - untracked
    for name in sorted(missing):
        print(f"tracked, but not in the wheel: {name}")
    for name in sorted(foreign):
        print(f"in the wheel, but not in the repository: {name}")
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", scratch, wheel]
        subprocess.run(pip, check=True)
        code = "import sys, worldsim, worldsim.cli; print(worldsim.__file__); worldsim.cli.main(['--help'])"
        environment = {**os.environ, "PYTHONPATH": scratch}
        command = [sys.executable, "-c", code]
        shown = subprocess.run(command, check=False, capture_output=True, text=True, cwd=scratch, env=environment)
    if shown.returncode or not shown.stdout.startswith(scratch) or "commands:" not in shown.stdout:
        print(f"the installed wheel does not start: {shown.stdout}{shown.stderr}")
        return 1
    print(f"{wheel.name}: {len(packed)} files, {wheel.stat().st_size / 2**20:.1f} MiB")
    return 1 if missing or foreign else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
