import numpy as np
import pytest
from golden import load
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eval.clip import Clip
from eval.errors import MeasureError
from eval.fidelity import psnr_score
from eval.physics import plausibility as pl

CASES, ARRAYS = load("distribution")
values = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


@pytest.mark.parametrize("name", CASES["outputs"]["surprise"])
@pytest.mark.parametrize(("how", "label"), [("mean", "avg"), ("max", "max")])
def test_accuracy_and_auroc_equal_the_published_code(name, how, label):
    losses, labels = (ARRAYS[f"surprise_{name}_{key}"] for key in ("losses", "labels"))
    surprise = pl.windows_to_video(losses, how)
    possible, impossible = surprise[labels == 1], surprise[labels == 0]
    expected = CASES["outputs"]["surprise"][name]
    strict = pl.relative_accuracy(possible, impossible, tie=0.0)
    assert 100 * strict == pytest.approx(expected[f"Relative Accuracy ({label})"], rel=1e-6)
    assert pl.auroc(possible, impossible).value == pytest.approx(expected[f"AUROC ({label})"], abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(values, values)
def test_auroc_is_the_count_over_all_pairs_and_turns_with_the_sign(negative, positive):
    negative, positive = np.array(negative), np.array(positive)
    wins = np.mean([(p > n) + 0.5 * (p == n) for p in positive for n in negative])
    found = pl.auroc(negative, positive)
    assert found.value == pytest.approx(wins, abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    turned = pl.auroc(-negative, -positive)
    assert turned.value == pytest.approx(1 - found.value)
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-9)


def test_delong_error_is_the_definition_by_placements():
    rng = np.random.default_rng(0)
    negative, positive = rng.normal(size=13).round(1), rng.normal(0.7, 1, 9).round(1)
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    expected = np.sqrt(wins.mean(1).var(ddof=1) / 9 + wins.mean(0).var(ddof=1) / 13)
    assert pl.auroc(negative, positive).standard_error == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("method", ["newcombe", "delong"])
def test_intervals_cover_the_true_area(method):
    rng, true = np.random.default_rng(0), stats.norm.cdf(1.0 / np.sqrt(2))
    covered = 0
    for _ in range(400):
        found = pl.auroc(rng.normal(size=30), rng.normal(1.0, 1, 25), method=method)
        covered += found.low <= true <= found.high
    assert 0.92 <= covered / 400 <= 0.985


def test_perfect_separation_keeps_an_honest_interval():
    negative, positive = np.arange(10.0), np.arange(10.0) + 20
    assert pl.auroc(negative, positive, method="delong")[:3] == (1, 1, 1)
    few, many = pl.auroc(negative, positive), pl.auroc(np.arange(100.0), np.arange(100.0) + 200)
    assert 0.6 < few.low < many.low < 1
    assert few.high == 1


def test_ties_count_half_and_zero_in_the_strict_variant():
    possible, impossible = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0, 3.0])
    assert pl.relative_accuracy(possible, impossible) == 0.5
    assert pl.relative_accuracy(possible, impossible, tie=0.0) == 0.25
    same = np.ones(6)
    assert pl.relative_accuracy(same, same) == pl.auroc(same, same).value == 0.5


def level_clip(level):
    return Clip(frames=np.full((3, 8, 8, 3), level, np.uint8), fps=10)


def brightness(clip):
    level = float(clip.frames.mean())
    return None if level == 0 else level


def pairs(*levels, violation="teleport", severity=1.0):
    return [
        pl.Pair(possible=level_clip(a), impossible=level_clip(b), violation=violation, severity=severity)
        for a, b in levels
    ]


def test_judge_reports_all_then_violations_then_severities():
    given_pairs = [
        *pairs((10, 20), (12, 22), violation="vanish", severity=0.5),
        *pairs((10, 5), (12, 12), violation="vanish", severity=0.1),
        *pairs((10, 30), violation="bounce"),
    ]
    verdicts = pl.judge(iter(given_pairs), brightness)
    assert [(v.violation, v.severity, v.n) for v in verdicts] == [
        ("all", None, 5),
        ("all", 0.1, 2),
        ("all", 0.5, 2),
        ("all", 1.0, 1),
        ("bounce", None, 1),
        ("vanish", None, 4),
        ("vanish", 0.1, 2),
        ("vanish", 0.5, 2),
    ]
    assert verdicts[0].relative_accuracy == 0.7
    assert verdicts[0].strict_accuracy == 0.6
    assert verdicts[6].relative_accuracy == verdicts[1].relative_accuracy == 0.25
    assert verdicts[7].auroc.value == 1.0
    low, high = verdicts[7].relative_interval
    assert low < 0.5 < high


def test_silence_never_raises_a_result():
    scored = pl.judge(pairs((10, 20), (10, 5), (10, 20)), brightness)[0]
    silent = pl.judge(pairs((10, 20), (10, 0), (0, 20)), brightness)[0]
    assert silent.unscored == 2
    assert silent.relative_accuracy < scored.relative_accuracy
    assert silent.auroc.value < scored.auroc.value
    assert pl.judge(pairs((0, 0)), brightness)[0].relative_accuracy == 0.0


def test_pixel_change_is_the_largest_step_between_frames():
    frames = np.zeros((4, 2, 2, 3), np.uint8)
    frames[1:] = 10
    frames[3] = 250
    assert pl.pixel_change(Clip(frames=frames, fps=10)) == 240.0
    assert pl.pixel_change(Clip(frames=frames[:1], fps=10)) == 0.0


def test_an_evaluator_becomes_a_scorer_with_its_direction():
    reference = level_clip(100)
    clip = Clip(frames=reference.frames + np.uint8(5), fps=10, reference=reference)
    # PSNR is better when higher, so surprise is its negative.
    assert pl.surprise_of(psnr_score)(clip) == pytest.approx(-20 * np.log10(255 / 5))
    assert pl.surprise_of(psnr_score)(reference) is None


def test_bad_input_is_a_named_error():
    with pytest.raises(MeasureError):
        pl.relative_accuracy(np.ones(3), np.ones(4))
    with pytest.raises(MeasureError, match="NaN"):
        pl.auroc(np.array([np.nan]), np.ones(1))
    with pytest.raises(MeasureError):
        pl.auroc(np.array([]), np.ones(1))
    with pytest.raises(MeasureError):
        pl.judge([], brightness)
    with pytest.raises(MeasureError):
        pl.windows_to_video(np.ones(3))
