"""Does the video show one three-dimensional world filmed by a moving camera?

Importing this package declares the evaluators of the suite `geometry`.
"""

from eval.geometry import known_depth, known_pose, unknown

__all__ = ["known_depth", "known_pose", "unknown"]
