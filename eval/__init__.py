"""Evaluators of video: arrays in, scores with evidence out."""

from eval.batch import BatchReport, score_many
from eval.clip import Clip, as_frames
from eval.score import Measurement, Score, Unmeasurable, evaluator
from eval.suite import Report, Suite, score

__all__ = [
    "BatchReport",
    "Clip",
    "Measurement",
    "Report",
    "Score",
    "Suite",
    "Unmeasurable",
    "as_frames",
    "evaluator",
    "score",
    "score_many",
]
