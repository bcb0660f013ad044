"""Evaluators of video: arrays in, scores with evidence out."""

from eval.batch import BatchReport, score_many
from eval.clip import Clip, as_frames
from eval.score import Measurement, Score, Unmeasurable, evaluator
from eval.simulation import Evaluation, evaluate
from eval.suite import Report, Suite, score
from eval.verify import verify

__all__ = [
    "BatchReport",
    "Clip",
    "Evaluation",
    "Measurement",
    "Report",
    "Score",
    "Suite",
    "Unmeasurable",
    "as_frames",
    "evaluate",
    "evaluator",
    "score",
    "score_many",
    "verify",
]
