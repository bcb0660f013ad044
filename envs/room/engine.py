"""MuJoCo as one untyped name: its compiled modules ship no type stubs."""

from typing import Any

import mujoco

mj: Any = mujoco
