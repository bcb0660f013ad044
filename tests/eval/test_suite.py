import json
from pathlib import Path

import numpy as np
import pytest

from eval import Clip, Measurement, Report, Suite, Unmeasurable, evaluator, score
from eval.batch import Failure, score_many
from eval.cards import Card
from eval.errors import ClipError, EvalError, UnknownNameError
from eval.fingerprint import fingerprint
from eval.score import EVALUATORS


@evaluator("_suite_mean", suite="_suite", unit="level", better="higher")
def mean(clip, *, offset=0.0):
    """Mean level."""
    value = float(clip.frames.mean()) + offset
    return Measurement(value=value, normalised=min(value / 255, 1.0))


@evaluator("_suite_motion", suite="_suite", unit="level", better="higher")
def motion(clip):
    """Mean change."""
    if len(clip) < 2:
        raise Unmeasurable("insufficient", "one frame")
    value = float(np.abs(np.diff(clip.frames.astype(float), axis=0)).mean())
    return Measurement(value=value, normalised=min(value / 255, 1.0))


@evaluator("_suite_breaks", suite="_suite_fragile", unit="level", better="higher")
def breaks(clip):
    """Divides by the first pixel."""
    return Measurement(value=1 / int(clip.frames[0, 0, 0, 0]), normalised=1.0)


def make(i, t=3):
    rng = np.random.default_rng(i)
    return Clip(frames=rng.integers(0, 256, (t, 6, 8, 3), dtype=np.uint8), fps=10, name=f"clip {i}")


def read(path: Path) -> Clip:
    if path.stem == "3":
        raise ValueError("corrupt file")
    return make(int(path.stem))


@pytest.fixture
def cards(monkeypatch):
    """Lets a test say which evaluators carry a passing card."""
    shown = {}

    def give(name, *, passed=True, version=1):
        code = fingerprint(EVALUATORS[name].measure)
        shown[name] = Card(evaluator=f"{name}@{version}", passed=passed, failures=(), provenance={"code": code})

    monkeypatch.setattr("eval.suite.load_card", shown.get)
    return give


@pytest.fixture(autouse=True, scope="module")
def _forget():
    yield
    for name in [n for n in EVALUATORS if n.startswith("_suite")]:
        del EVALUATORS[name]


def test_score_runs_a_suite_by_name_and_is_a_mapping():
    report = score(make(0), suite="_suite")
    assert list(report) == ["_suite_mean", "_suite_motion"]
    assert report["_suite_mean"].value == pytest.approx(make(0).frames.mean())
    assert report.input == make(0).digest


def test_lists_mix_suites_and_evaluators_without_running_one_twice():
    assert set(score(make(0), suite=["_suite", "_suite_mean"])) == {"_suite_mean", "_suite_motion"}


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="'_suite_motion'"):
        score(make(0), suite="_suite_motoin")
    with pytest.raises(UnknownNameError, match="_suite_mean"):
        score(make(0), suite="_suite").__getitem__("_suite_meen")
    with pytest.raises(UnknownNameError):
        score(make(0), suite="_suite", config={"_suite_mean": {"ofset": 1}})
    with pytest.raises(UnknownNameError):
        score(make(0), suite="_suite", config={"_suite_breaks": {}})
    with pytest.raises(EvalError):
        score(make(0), suite=[])
    with pytest.raises(ClipError):
        score(make(0).frames, suite="_suite")


def test_config_reaches_the_evaluator():
    report = score(make(0), suite="_suite", config={"_suite_mean": {"offset": 5.0}})
    assert report["_suite_mean"].value == pytest.approx(make(0).frames.mean() + 5)


def test_report_round_trips_through_a_file(tmp_path):
    report = score(make(0, t=1), suite="_suite")
    report.save(tmp_path / "sub" / "r.json")
    again = Report.load(tmp_path / "sub" / "r.json")
    assert again.to_json() == report.to_json()
    assert again["_suite_motion"].reason == "one frame"
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 99}', '{"format": 1, "clip": "x"}', '{"format": 1, "scores": 3}']
)
def test_broken_reports_are_named_errors(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(EvalError, match="expected"):
        Report.load(tmp_path / "r.json")
    with pytest.raises(EvalError, match="expected"):
        Report.load(tmp_path / "absent.json")


def test_only_carded_evaluators_enter_the_aggregate(cards):
    report = score(make(0), suite="_suite")
    assert report.aggregate().value is None
    assert report.aggregate().left_out == ("_suite_mean", "_suite_motion")
    cards("_suite_mean")
    assert report.aggregate().value == report["_suite_mean"].normalised
    cards("_suite_motion", passed=False)
    assert report.aggregate().value == report["_suite_mean"].normalised
    cards("_suite_motion", version=2)
    assert report.aggregate().value == report["_suite_mean"].normalised
    cards("_suite_motion")
    both = [s.normalised for s in report.values()]
    assert report.aggregate().value == pytest.approx(np.mean(both))


def test_what_is_not_measured_is_said_and_lowers_the_lower_bound(cards):
    cards("_suite_mean")
    cards("_suite_motion")
    found = score(make(0, t=1), suite="_suite").aggregate()
    assert (found.measured, found.total) == (1, 2)
    assert found.unmeasured == {"_suite_motion": "insufficient: one frame"}
    assert found.lower == pytest.approx(found.value / 2)


def test_a_corrupt_file_is_counted_and_lowers_the_mean(cards):
    cards("_suite_mean")
    paths = [Path(f"{i}.mp4") for i in range(6)]
    batch = score_many(paths, "_suite", read=read)
    good = [make(i).frames.mean() / 255 for i in range(6) if i != 3]
    assert [type(r) for r in batch.results].index(Failure) == 3
    assert batch.failures[0].error == "ValueError: corrupt file"
    assert batch.mean("_suite_mean").value == pytest.approx(sum(good) / 6)
    assert batch.mean("_suite_mean").failed == batch.aggregate().failed == 1
    assert batch.aggregate().value == pytest.approx(sum(good) / 6)
    json.dumps(batch.to_json(), allow_nan=False)


def test_an_evaluator_that_crashes_is_a_failure_not_a_score():
    dark = Clip(frames=np.zeros((2, 4, 4, 3), np.uint8), fps=10)
    batch = score_many([make(0), dark], ["_suite_fragile"])
    assert "ZeroDivisionError" in batch.failures[0].error
    assert batch.mean("_suite_breaks").value == 0.5


def test_results_do_not_depend_on_the_number_of_workers():
    clips = [make(i) for i in range(7)]
    seen = []
    alone = score_many(clips, "_suite", progress=lambda done, result: seen.append((done, result.clip)))
    shared = score_many((c for c in clips), "_suite", workers=2)
    assert alone.to_json() == shared.to_json()
    assert seen == [(i + 1, f"clip {i}") for i in range(7)]


def test_resume_scores_only_what_is_new(tmp_path, monkeypatch):
    first = score_many([make(i) for i in range(2)], "_suite", out=tmp_path)
    files = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert len(files) == 2
    ran = []
    monkeypatch.setattr(Suite, "__call__", lambda suite, clip: ran.append(clip.name) or first.reports[0])
    again = score_many([make(i) for i in range(3)], "_suite", out=tmp_path)
    assert ran == ["clip 2"]
    assert [r.to_json() for r in again.reports[:2]] == [r.to_json() for r in first.reports]
    assert all(p.stat().st_mtime_ns == m for p, m in files.items())
    score_many([make(0)], Suite.of("_suite", {"_suite_mean": {"offset": 1.0}}), out=tmp_path)
    assert ran == ["clip 2", "clip 0"]


@pytest.mark.parametrize(("clips", "kwargs"), [(["a.mp4"], {}), ([3], {"read": read}), ([make(0)], {"workers": 0})])
def test_score_many_refuses_nonsense(clips, kwargs):
    with pytest.raises(EvalError):
        score_many(clips, "_suite", **kwargs)
