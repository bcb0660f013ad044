"""Training: tokenizer, forecast where the model has one, dynamics.

`train(config, out=...)` leaves a checkpoint in `out/checkpoint` that `worldsim.load` takes.
"""

from worldsim.training.config import DynamicsConfig, EvaluationConfig, OptimiserConfig, TrainConfig
from worldsim.training.log import read_metrics
from worldsim.training.trainer import train

__all__ = ["DynamicsConfig", "EvaluationConfig", "OptimiserConfig", "TrainConfig", "read_metrics", "train"]
