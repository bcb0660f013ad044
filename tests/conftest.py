"""One thread a test process: several processes share the cores, and OpenMP's pools would fight over them."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    # Read when numpy and torch are first imported, which no plugin has done yet.
    os.environ.setdefault(name, "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

from hypothesis import settings  # noqa: E402 - after the environment is set

# Shared runners are slow at times; a deadline would make tests fail by load alone.
settings.register_profile("worldsim", deadline=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("worldsim"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "worldsim")
