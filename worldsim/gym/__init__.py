"""A learned world as a Gymnasium environment, `worldsim:Dream-v0`, alone or in batches."""

from worldsim.gym.single import SimulatorEnv
from worldsim.gym.vector import SimulatorVectorEnv

__all__ = ["SimulatorEnv", "SimulatorVectorEnv"]
