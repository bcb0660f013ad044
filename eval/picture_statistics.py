"""Plain statistics of the picture, the baseline of validity cards: what knows no laws must not tell pairs.

The measures of `eval.quality` forgive what no eye sees; a baseline must not, or it would be near ½ for being blind.
These have no floor, no normalised value and no card, and enter no report.
"""

from collections.abc import Callable, Mapping

import numpy as np

from eval.clip import Clip
from eval.quality import FLICKER_FRAMES, flicker_levels, frame_change, sharpness
from eval.score import Evaluator, Measurement, Unmeasurable


def _need_frames(clip: Clip) -> None:
    if len(clip) < FLICKER_FRAMES:
        raise Unmeasurable("insufficient", f"fewer than {FLICKER_FRAMES} frames")


def _alternation(clip: Clip) -> Measurement:
    """Mean amplitude of alternating brightness, levels."""
    _need_frames(clip)
    return Measurement(value=float(np.nanmean(flicker_levels(clip.frames))))


def _softness(clip: Clip) -> Measurement:
    """Mean share of the gradient energy that re-blurring leaves."""
    return Measurement(value=float(1.0 - np.nanmean(sharpness(clip.frames))))


def _change(clip: Clip) -> Measurement:
    """Mean absolute change from frame to frame, levels: what PSNR of the last frame repeated measures."""
    _need_frames(clip)
    return Measurement(value=float(frame_change(clip.frames).mean()))


def _jump(clip: Clip) -> Measurement:
    """Largest change from frame to frame beyond the usual one, levels."""
    _need_frames(clip)
    change = frame_change(clip.frames)
    return Measurement(value=float(change.max() - np.median(change)))


class Statistic(Evaluator):
    """An evaluator that no suite contains."""

    def __reduce__(self) -> tuple[Callable[[str, str], Evaluator], tuple[str, str]]:
        return _statistic, (self.suite, self.name)


def _statistic(_: str, name: str) -> Evaluator:
    return STATISTICS[name]


STATISTICS: Mapping[str, Evaluator] = {
    name: Statistic(
        name=name,
        suite="statistics",
        unit=unit,
        better="lower",
        needs=(),
        claims=(),
        version=1,
        summary=(measure.__doc__ or "").splitlines()[0],
        measure=measure,
    )
    for name, unit, measure in (
        ("alternation", "levels", _alternation),
        ("softness", "share", _softness),
        ("frame_change", "levels", _change),
        ("jump", "levels", _jump),
    )
}
