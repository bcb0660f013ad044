"""Training: tokenizer, then dynamics.

`train(config, out=...)` leaves a checkpoint in `out/checkpoint` that `worldsim.load` takes.
"""

from worldsim.train.config import DynamicsConfig, OptimiserConfig, TrainConfig
from worldsim.train.trainer import train

__all__ = ["DynamicsConfig", "OptimiserConfig", "TrainConfig", "train"]
