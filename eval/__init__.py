"""Evaluators of video: arrays in, scores with evidence out."""

from eval.clip import Clip, as_frames
from eval.score import Measurement, Score, Unmeasurable, evaluator

__all__ = ["Clip", "Measurement", "Score", "Unmeasurable", "as_frames", "evaluator"]
