"""Which camera convention do poses follow? Wrong ones are the commonest cause of bad geometry scores.

The package's convention is OpenCV camera-to-world. Poses from graphics tools look along -z with y up (OpenGL,
Blender), and structure-from-motion tools store world-to-camera. The frames themselves tell: under the right reading
they fit.
"""

from collections.abc import Callable, Mapping

import numpy as np

from eval.geometry.pose import invert
from eval.score import Unmeasurable

EXPECTED = "OpenCV camera-to-world (world_from_camera)"
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])

READINGS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    EXPECTED: lambda poses: poses,
    "OpenGL/Blender camera-to-world (x right, y up, looking along -z)": lambda poses: poses @ _FLIP,
    "OpenCV world-to-camera (camera_from_world)": invert,
    "OpenGL world-to-camera (view matrix)": lambda poses: invert(poses) @ _FLIP,
}
"""What each convention's poses must go through to become the package's."""

# Above this share of misfit the poses are doubted; another reading must fit with less than a third of it to be named.
DOUBT, _DECISIVE = 0.25, 1 / 3


def misfits(poses: np.ndarray, misfit: Callable[[np.ndarray], float]) -> dict[str, float]:
    """Misfit of the frames under each reading of the poses.

    Args:
        poses: (T, 4, 4) in an unknown convention.
        misfit: Takes (T, 4, 4) poses read as the package's convention, gives a share in [0, 1], lower is better.
    """
    return {name: misfit(read(poses)) for name, read in READINGS.items()}


def require_convention(poses: np.ndarray, value: float, misfit: Callable[[np.ndarray], float]) -> None:
    """Refuses a bad score whose cause is the poses' convention.

    Args:
        poses: (T, 4, 4) as given.
        value: Misfit measured with the poses as given.
        misfit: See `misfits`; infinite or NaN where it cannot be measured.

    Raises:
        Unmeasurable: Status `failed`, naming the convention under which the frames fit.
    """
    if value <= DOUBT:
        return
    found = {name: share for name, share in misfits(poses, misfit).items() if np.isfinite(share)}
    best = min(found, key=lambda name: found[name], default=EXPECTED)
    if best != EXPECTED and found[best] < _DECISIVE * value:
        raise Unmeasurable(
            "failed",
            f"the poses look like {best}: read so, {found[best]:.0%} of the picture misfits instead of {value:.0%}. "
            f"Convert them to {EXPECTED}",
        )
