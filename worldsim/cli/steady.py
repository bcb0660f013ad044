"""Videos whose frames are not evenly spaced in time: brought to a constant frame rate, or refused."""

import numpy as np

from worldsim.errors import VideoError

# How far a frame may lie from its place in time, in frame intervals. Beyond it frames are missing, and a motion that is
# measured on what is left would show jumps that the video's own bodies never made.
MOST_OFF = 0.25


def evenly(frames: np.ndarray, times_s: np.ndarray, name: str) -> tuple[np.ndarray, float, str]:
    """The frames at a constant rate, each of them the nearest in time; none is made up or blended.

    Args:
        frames: (T, ...), T at least 2.
        times_s: (T,) when each is shown, in seconds.
        name: Of the video, for the error.

    Returns:
        The frames, at most as many as given plus those shown twice; frames per second; a note on what was done.

    Raises:
        VideoError: If a frame would be more than `MOST_OFF` of an interval from its place.
    """
    steps = np.diff(times_s)
    usual_s = float(np.median(steps))
    at = np.rint((times_s - times_s[0]) / usual_s) if usual_s > 0 else np.zeros(len(times_s))
    if usual_s > 0 and (np.diff(at) > 0).all():
        # The rate that fits all times best: single frames that are late do not shift the others.
        step_s, start_s = np.polyfit(at, times_s, 1)
        grid_s = start_s + step_s * np.arange(at[-1] + 1)
        nearest = np.abs(times_s[None] - grid_s[:, None]).argmin(axis=1)
        off = float(np.abs(times_s[nearest] - grid_s).max() / step_s)
        if off <= MOST_OFF:
            return frames[nearest], 1.0 / step_s, f"uneven frame times, up to {off * step_s * 1e3:.0f} ms off, evened"
    raise VideoError(
        expected="frames that are evenly spaced in time, or nearly so",
        got=f"{steps.min() * 1e3:.0f} to {steps.max() * 1e3:.0f} ms apart in {name}",
        remedy="Convert it to a constant frame rate, or state the rate (--fps) if the times are wrong.",
    )
