"""Does the video show one three-dimensional world filmed by a moving camera?

Importing this package declares the evaluators of the suite `geometry`.
"""

from eval.geometry import (
    following,
    known_depth,
    known_pose,
    learned,
    memory,
    objects,
    permanence,
    photo_consistency,
    structure,
    tsed,
    unknown,
)

__all__ = [
    "following",
    "known_depth",
    "known_pose",
    "learned",
    "memory",
    "objects",
    "permanence",
    "photo_consistency",
    "structure",
    "tsed",
    "unknown",
]
