"""worldsim: learned world simulators you can step through Gymnasium."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium as gym

if TYPE_CHECKING:
    from worldsim import generate
    from worldsim.data import Dataset, record
    from worldsim.gym import SimulatorEnv, SimulatorVectorEnv
    from worldsim.simulator import Sampling, Simulator, State, load
    from worldsim.training import presets, train

__version__ = "0.1.0"

# Public names, imported on first use: `import worldsim` does not import torch.
_PUBLIC = {
    "Dataset": "worldsim.data",
    "record": "worldsim.data",
    "Simulator": "worldsim.simulator",
    "State": "worldsim.simulator",
    "load": "worldsim.simulator",
    "Sampling": "worldsim.simulator",
    "train": "worldsim.training",
    "presets": "worldsim.training.presets",
    "generate": "worldsim.generate",
    "SimulatorEnv": "worldsim.gym",
    "SimulatorVectorEnv": "worldsim.gym",
}
_MODULES = {"generate", "presets"}

__all__ = [
    "Dataset",
    "Sampling",
    "Simulator",
    "SimulatorEnv",
    "SimulatorVectorEnv",
    "State",
    "__version__",
    "generate",
    "load",
    "presets",
    "record",
    "train",
]


gym.register(
    id="Dream-v0",
    entry_point="worldsim.gym:SimulatorEnv",
    vector_entry_point="worldsim.gym:SimulatorVectorEnv",
)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - module attributes are of any type
    if name not in _PUBLIC:
        raise AttributeError(f"module 'worldsim' has no attribute {name!r}")
    module = import_module(_PUBLIC[name])
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
