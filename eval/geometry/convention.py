"""Which camera convention do poses follow? Wrong ones are the commonest cause of bad geometry scores.

The package's convention is OpenCV camera-to-world. Poses from graphics tools look along -z with y up (OpenGL,
Blender), and structure-from-motion tools store world-to-camera. The frames themselves tell: under the right reading
they fit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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

# Above this share of misfit the poses are doubted. Another reading is named only if nearly all of the picture fits
# under it, nearly everywhere, and it makes the picture move: a frozen video fits whatever reading says "no motion".
DOUBT, _FITS, _MEASURED, _MOVES_PX = 0.25, 0.1, 0.6, 2.0


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """How badly the frames fit under one reading of the poses.

    Attributes:
        share: Of the picture that misfits, mean over the pairs that could be measured; infinite if none could.
        measured: Share of the pairs that could be measured.
        motion_px: Median image motion that the reading commands, in pixels at a shorter side of 256.
    """

    share: float
    measured: float
    motion_px: float

    @classmethod
    def of(cls, found: Sequence[tuple[float, float]], *, pairs: int) -> "Misfit":
        """From the share and the commanded motion of each measured pair."""
        if not found:
            return cls(share=float("inf"), measured=0.0, motion_px=0.0)
        shares, motions = np.array(found).T
        return cls(share=float(shares.mean()), measured=len(found) / pairs, motion_px=float(np.median(motions)))


def require_convention(poses: np.ndarray, value: float, misfit: Callable[[np.ndarray], Misfit]) -> None:
    """Refuses a bad score whose cause is the poses' convention.

    Args:
        poses: (T, 4, 4) as given.
        value: Misfit measured with the poses as given.
        misfit: Takes (T, 4, 4) poses read as the package's convention.

    Raises:
        Unmeasurable: Status `failed`, naming the convention under which the frames fit.
    """
    if value <= DOUBT:
        return
    found = {name: misfit(read(poses)) for name, read in READINGS.items() if name != EXPECTED}
    fitting = {
        name: f.share
        for name, f in found.items()
        if f.share < _FITS and f.measured >= _MEASURED and f.motion_px >= _MOVES_PX
    }
    if fitting:
        best = min(fitting, key=lambda name: fitting[name])
        raise Unmeasurable(
            "failed",
            f"the poses look like {best}: read so, {fitting[best]:.0%} of the picture misfits instead of {value:.0%}. "
            f"Convert them to {EXPECTED}",
        )
