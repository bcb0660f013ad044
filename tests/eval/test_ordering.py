"""Which kind of clip a measure prefers: counted pair by pair, with what could not be measured left out and told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import Clip, score
from eval.batch import Failure
from eval.errors import EvalError
from eval.ordering import MOST_LISTED, orderings
from eval.score import Score
from eval.suite import Report

VALUES = st.lists(st.one_of(st.none(), st.integers(0, 4).map(float)), min_size=1, max_size=7)


def report(value, better="higher"):
    """A report of one measure that gave this value, or none."""
    made = Score(
        name="made_up",
        unit="share",
        better=better,
        status="insufficient" if value is None else "ok",
        value=value,
        normalised=value,
        uncertainty=None,
        coverage=1.0,
        per_frame=None,
        offending=(),
        details={},
        reason="for the test" if value is None else None,
        provenance={},
    )
    return Report(clip="c", suite="s", input="i", scores={"made_up": made})


@given(VALUES, VALUES, st.sampled_from(["higher", "lower"]))
def test_pairs_are_counted_one_by_one(first, other, better):
    found = orderings({"a": [report(v, better) for v in first], "b": [report(v, better) for v in other]})
    known = [v for v in first if v is not None], [v for v in other if v is not None]
    if not known[0] and not known[1]:
        assert found == []
        return
    (ordering,) = found
    sign = 1.0 if better == "higher" else -1.0
    won = [0.5 if a == b else float(sign * a > sign * b) for a in known[0] for b in known[1]]
    preference = ordering.preferences["b"]
    assert (preference.better, preference.pairs) == (sum(won), len(won))
    # The other way round it is the rest.
    (turned,) = orderings({"b": [report(v, better) for v in other], "a": [report(v, better) for v in first]})
    assert turned.preferences["a"].better == preference.pairs - preference.better


def test_what_could_not_be_measured_is_told():
    failure = Failure(clip="c", error="corrupt", trace="")
    (found,) = orderings({"a": [report(0.25), report(None), failure], "b": [report(None)]})
    assert found.cell("a") == "0.25 (1 of 3)"
    assert found.cell("b") == "no value"
    assert str(found.preferences["b"]) == "–"
    many = [report(v) for v in np.linspace(0.0, 1.0, MOST_LISTED + 1)]
    (found,) = orderings({"a": many, "b": many})
    assert found.cell("a") == "0.5 [0, 1], n = 6"
    assert str(found.preferences["b"]) == "18 of 36"


def test_one_kind_is_refused_and_measures_without_direction_are_left_out():
    clip = Clip(frames=np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8), fps=10.0)
    found = score(clip, ["flicker", "dynamics"])
    with pytest.raises(EvalError, match="at least two kinds"):
        orderings({"a": [found]})
    named = {o.name for o in orderings({"a": [found], "b": [found]})}
    assert "dynamics" not in named
