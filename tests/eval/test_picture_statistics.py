import pickle

import numpy as np
import pytest

from eval import Clip
from eval.picture_statistics import STATISTICS
from eval.suite import load_evaluators


def clip(frames: np.ndarray) -> Clip:
    return Clip(frames=frames, fps=10.0)


def square(num_frames: int = 12) -> np.ndarray:
    """A white square of 8 x 8 pixels that moves by a pixel a frame."""
    frames = np.full((num_frames, 64, 64, 3), 40, np.uint8)
    for t in range(num_frames):
        frames[t, 20:28, 10 + t : 18 + t] = 240
    return frames


def test_they_are_what_they_say_on_a_moving_square():
    # 8 pixels brighten and 8 darken by 200 levels of 64 x 64; the mean stays.
    change = 16 * 200 / 64**2
    found = {name: e(clip(square())).value for name, e in STATISTICS.items()}
    assert found["frame_change"] == pytest.approx(change, rel=1e-5)
    assert found["jump"] == pytest.approx(0.0, abs=1e-5)
    assert found["alternation"] == pytest.approx(0.0, abs=1e-5)


def test_they_are_not_blind_where_the_picture_changes_by_itself():
    lawful, vanished = square(), square()
    vanished[6:] = 40
    for name in ("jump", "alternation"):
        before, after = (STATISTICS[name](clip(x)).value for x in (lawful, vanished))
        assert after > before + 0.1, name


def test_too_few_frames_have_no_value():
    assert STATISTICS["jump"](clip(square(3))).status == "insufficient"


def test_they_belong_to_no_suite_and_travel_between_processes():
    assert not set(STATISTICS) & set(load_evaluators())
    assert all(pickle.loads(pickle.dumps(e)) is e for e in STATISTICS.values())
