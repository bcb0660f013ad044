import json
from dataclasses import replace

import numpy as np
import pytest

from eval import Clip, Measurement, Suite, Unmeasurable, evaluator, validity
from eval.cards import load_card
from eval.errors import EvalError
from eval.judging import Requirements, make_card, save_card
from eval.score import EVALUATORS
from eval.suite import is_validated
from eval.validity import Case, Variant, degenerate, measure

ALARM = 50.0


@evaluator("_valid_top", suite="_valid", unit="level", better="lower", claims=("spot",))
def top(clip):
    """Brightest level above the clip's median; an alarm above `ALARM`."""
    if len(clip) < 2:
        raise Unmeasurable("insufficient", "one frame")
    value = float(clip.frames.max() - np.median(clip.frames))
    return Measurement(
        value=value, normalised=1.0 if value <= ALARM else ALARM / value, details={"alarm": value > ALARM}
    )


@evaluator("_valid_mean", suite="_valid", unit="level", better="higher", claims=("spot",))
def mean(clip):
    """Mean level: blind to the spot, fooled by exposure, and won by white noise."""
    value = float(clip.frames.mean())
    return Measurement(value=value, normalised=value / 255)


@evaluator("_valid_modest", suite="_valid", unit="level", better="lower")
def modest(clip):
    """Claims nothing."""
    return Measurement(value=1.0, normalised=1.0)


@pytest.fixture(autouse=True, scope="module")
def _forget():
    yield
    for name in [n for n in EVALUATORS if n.startswith("_valid")]:
        del EVALUATORS[name]


def frames(seed, t=4):
    return np.random.default_rng(seed).integers(90, 110, (t, 12, 12, 3), dtype=np.uint8)


def build(seed):
    """A spot brighter by 150 levels x severity; exposure that adds 5 levels; degenerate clips."""
    base = frames(seed)
    variants = []
    for severity in (0.1, 0.3, 1.0):
        spotted = base.copy()
        spotted[2, 5, 5] = np.minimum(spotted[2, 5, 5].astype(int) + int(100 + 50 * severity), 255)
        if severity == 0.1:
            spotted = base.copy()
        variants.append(Variant(kind="violation", name="spot", severity=severity, clip=Clip(frames=spotted, fps=10)))
    brighter = (base + 5).astype(np.uint8)
    variants.append(Variant(kind="nuisance", name="exposure", severity=0.5, clip=Clip(frames=brighter, fps=10)))
    lawful = Clip(frames=base, fps=10)
    return [
        Case(
            mode="pixels", seed=seed, lawful=lawful, variants=(*variants, *degenerate(lawful, np.random.default_rng(0)))
        )
    ]


@pytest.fixture(scope="module")
def trials():
    return measure(range(20), build, Suite.of("_valid"))


def test_a_good_evaluator_passes_with_true_figures(trials):
    card = make_card(top, trials, mode="pixels")
    assert card.failures == ()
    assert card.passed
    spot = card.figures["violations"]["spot"]
    assert spot["by_severity"]["0.3"]["auroc"][0] == 1.0
    assert spot["by_severity"]["0.3"]["measured"] == 20
    assert spot["by_severity"]["0.1"]["auroc"][0] == 0.5
    assert spot["smallest_detected"] == 0.3
    # Severity 0.1 shows nothing: half of the lower ranks are ties.
    assert 0.7 < spot["spearman"] < 0.85
    assert card.figures["lawful"]["alarms"] == 0
    assert card.figures["lawful"]["alarm_rate_interval"][1] == pytest.approx(0.161, abs=0.002)
    assert card.figures["nuisances"]["exposure"]["auroc"][0] == 0.5
    assert card.figures["degenerate"]["noise"]["beats_true"] == 0.0
    # Every group of five seeds ranks the spot first.
    assert spot["by_severity"]["0.3"]["seed_spread"] == 0.0
    readings = {t.seed: t for t in trials if t.kind == "violation" and t.severity == 0.3}
    assert card.figures["samples"]["spot"] == [
        [s, readings[s].lawful["_valid_top"].badness, readings[s].changed["_valid_top"].badness] for s in range(4)
    ]
    low = card.figures["violations"]["spot"]["by_severity"]["0.3"]["auroc"][1]
    assert card.summary == (
        f"AUROC 1.00 [{low:.2f}, 1.00] on spot at severity 0.3; 0 alarms on 20 lawful clips (at most 16.1 %)"
    )


def test_a_bad_evaluator_fails_for_each_reason(trials):
    card = make_card(mean, trials, mode="pixels")
    assert not card.passed
    text = "; ".join(card.failures)
    for reason in ("spot: AUROC", "nuisance exposure", "noise clips beat", "lawful clips reach"):
        assert reason in text
    assert make_card(modest, trials, mode="pixels").failures == ("it claims to detect nothing",)


def test_too_few_pairs_do_not_pass(trials):
    few = [t for t in trials if t.seed < 4]
    assert "4 pairs measured" in make_card(top, few, mode="pixels").failures[0]
    assert make_card(top, few, mode="pixels", requirements=Requirements(pairs=4)).passed
    with pytest.raises(EvalError, match="mode"):
        make_card(top, trials, mode="masks")


def test_a_violated_clip_without_a_value_is_missed():
    def vanish(seed):
        lawful = Clip(frames=frames(seed), fps=10)
        gone = Variant(kind="violation", name="spot", severity=0.3, clip=lawful.window(0, 1))
        return [Case(mode="pixels", seed=seed, lawful=lawful, variants=(gone,))]

    found = make_card(top, measure(range(12), vanish, Suite.of("_valid_top")), mode="pixels")
    at = found.figures["violations"]["spot"]["by_severity"]["0.3"]
    assert (at["measured"], at["detected"]) == (12, 0.0)
    assert at["auroc"][0] < 0.5


def test_baselines_are_reported_on_the_same_pairs(trials):
    card = make_card(top, trials, mode="pixels", baselines=("_valid_modest", "_valid_mean"))
    assert card.figures["baselines"]["_valid_modest"]["spot"][0] == 0.5
    # The spot raises the mean by a fifth of a level: these pairs are not matched in brightness, and it shows.
    assert card.figures["baselines"]["_valid_mean"]["spot"][0] < 0.3


def test_measuring_depends_neither_on_workers_nor_on_resuming(trials, tmp_path):
    again = measure(range(20), build, Suite.of("_valid"), workers=2, out=tmp_path)
    assert again == trials
    count = []
    resumed = measure(range(20), fail_if_called, Suite.of("_valid"), out=tmp_path, progress=count.append)
    assert resumed == trials
    assert count == list(range(1, 21))


def test_a_changed_evaluator_is_measured_again_and_no_other(trials, tmp_path, monkeypatch):
    suite = Suite.of(["_valid_top", "_valid_modest"])
    first = measure(range(3), build, suite, out=tmp_path)
    ran = []
    monkeypatch.setattr("eval.validity._read", lambda clip, part: ran.extend(e.name for e in part.evaluators) or {})
    changed = {"_valid_top": "new"}
    known = validity.fingerprint
    monkeypatch.setattr("eval.validity.fingerprint", lambda f: changed.get(f"_valid_{f.__name__}") or known(f))
    again = measure(range(3), build, suite, out=tmp_path)
    assert set(ran) == {"_valid_top"}
    assert [t.lawful["_valid_modest"] for t in again] == [t.lawful["_valid_modest"] for t in first]


def fail_if_called(seed):
    raise AssertionError(seed)


def test_cards_round_trip_and_only_passing_ones_of_this_version_count(trials, tmp_path, monkeypatch):
    card = make_card(top, trials, mode="pixels")
    path = save_card(card, tmp_path)
    json.loads(path.read_text())
    loaded = load_card("_valid_top", tmp_path)
    assert (loaded.evaluator, loaded.passed) == ("_valid_top@1", True)
    assert load_card("_valid_mean", tmp_path) is None
    score = top(Clip(frames=frames(0), fps=10))
    monkeypatch.setattr("eval.suite.load_card", lambda name: load_card(name, tmp_path))
    assert is_validated(score)
    # A score, or a card, made by other code of the same version counts for nothing.
    assert not is_validated(replace(score, provenance={**score.provenance, "code": "0" * 16}))
    assert not loaded.is_of({"evaluator": "_valid_top@1", "code": "unknown"})
    assert not replace(loaded, provenance={}).is_of({"evaluator": "_valid_top@1"})
    save_card(make_card(mean, trials, mode="pixels"), tmp_path)
    assert not is_validated(mean(Clip(frames=frames(0), fps=10)))
    (tmp_path / "_valid_broken.json").write_text("{}")
    with pytest.raises(EvalError, match="card"):
        load_card("_valid_broken", tmp_path)


def test_degenerate_clips_are_what_they_say():
    clip = Clip(frames=frames(3, t=6), fps=10, truth={"segmentation": np.zeros((6, 12, 12), np.int16)})
    made = {v.name: v.clip.frames for v in degenerate(clip, np.random.default_rng(0))}
    assert (made["static"] == clip.frames[0]).all()
    assert made["blurred"].astype(float).std() < 0.5 * clip.frames.astype(float).std()
    assert made["blurred"].mean() == pytest.approx(clip.frames.mean(), abs=0.6)
    np.testing.assert_array_equal(np.sort(made["shuffled"], axis=0), np.sort(clip.frames, axis=0))
    assert all("segmentation" not in v.clip.truth for v in degenerate(clip, np.random.default_rng(0)))
