import json
import pickle

import numpy as np
import pytest

from eval import Clip, Measurement, Score, Unmeasurable, evaluator
from eval.errors import EvalError, UnknownNameError
from eval.score import EVALUATORS


@evaluator("_test_mean", suite="_test", unit="level", better="neither")
def mean(clip, *, offset=0.0):
    """Mean level."""
    if len(clip) == 1:
        raise Unmeasurable("insufficient", "one frame")
    per_frame = clip.frames.reshape(len(clip), -1).mean(axis=1) + offset
    per_frame[0] = np.nan
    return Measurement(
        value=float(np.nanmean(per_frame)),
        normalised=0.5,
        uncertainty=np.float32(0.1),
        per_frame=per_frame,
        offending=(np.int64(1),),
        details={"array": np.arange(3), "scalar": np.float64(2), "none": np.nan},
    )


@evaluator("_test_depth", suite="_test", unit="m", better="neither", needs=("depth_m", "actions"))
def needs_depth(clip):
    """Needs depth."""
    raise AssertionError("must not run")


@evaluator("_test_nan", suite="_test", unit="m", better="neither")
def gives_nan(clip):
    """NaN."""
    return Measurement(value=float("nan"))


@evaluator("_test_linalg", suite="_test", unit="m", better="neither")
def linalg(clip):
    """Singular."""
    return Measurement(value=np.linalg.inv(np.zeros((2, 2)))[0, 0])


@pytest.fixture(autouse=True, scope="module")
def _forget():
    yield
    for name in [n for n in EVALUATORS if n.startswith("_test")]:
        del EVALUATORS[name]


def clip(t=4):
    return Clip(frames=np.random.default_rng(0).integers(0, 256, (t, 6, 8, 3), dtype=np.uint8), fps=10)


def test_score_round_trips_through_strict_json():
    found = mean(clip())
    text = json.dumps(found.to_json(), allow_nan=False)
    again = Score.from_json(json.loads(text))
    assert again.to_json() == found.to_json()
    np.testing.assert_array_equal(again.per_frame, found.per_frame)
    assert again.offending == (1,)
    assert again.value == pytest.approx(np.nanmean(found.per_frame))


def test_missing_needs_are_named_and_the_measure_does_not_run():
    found = needs_depth(clip())
    assert (found.status, found.value) == ("missing", None)
    assert found.reason == "needs depth_m, actions"


@pytest.mark.parametrize(("broken", "reason"), [(gives_nan, "nan"), (linalg, "LinAlgError")])
def test_no_value_where_the_measure_fails(broken, reason):
    found = broken(clip())
    assert (found.status, found.value, found.normalised) == ("failed", None, None)
    assert reason in found.reason


def test_unmeasurable_becomes_a_reason():
    assert mean(clip(1)).status == "insufficient"
    assert mean(clip(1)).reason == "one frame"


def test_configuration_changes_value_and_hash():
    plain, moved = mean(clip()), mean(clip(), offset=1.0)
    assert moved.value == pytest.approx(plain.value + 1.0)
    assert moved.provenance["config"] != plain.provenance["config"]
    assert moved.provenance["input"] == plain.provenance["input"]
    assert mean(clip(), offset=0.0).provenance == plain.provenance


def test_unknown_parameter_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="offset"):
        mean(clip(), ofset=1.0)


def test_names_are_unique():
    with pytest.raises(EvalError, match="unique"):
        evaluator("_test_mean", suite="_test", unit="", better="lower")(lambda clip: Measurement(value=0.0))


def test_evaluators_survive_pickling():
    assert pickle.loads(pickle.dumps(mean)) is mean
