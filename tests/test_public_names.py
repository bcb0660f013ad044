"""What the README promises can be imported, lazily."""

import subprocess
import sys

import worldsim


def test_every_public_name_resolves() -> None:
    for name in worldsim.__all__:
        assert getattr(worldsim, name) is not None
    assert callable(worldsim.train)
    assert callable(worldsim.record)
    assert worldsim.presets.bounce(data="x").data == "x"


def test_importing_worldsim_does_not_import_torch() -> None:
    code = "import sys, worldsim, worldsim.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_environment_registers_whatever_is_imported_first() -> None:
    code = "import worldsim, gymnasium as gym; print(gym.registry['Dream-v0'].entry_point)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "worldsim.gym:SimulatorEnv"
