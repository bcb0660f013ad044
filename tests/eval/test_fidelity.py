import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from eval import fidelity
from eval.clip import Clip
from eval.errors import MeasureError
from eval.score import EVALUATORS
from eval.uncertainty import bootstrap_interval, mean_interval, median_interval, standard_error, wilson_interval


def noise(seed, shape=(4, 24, 20, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def moving_square(starts, size=(32, 32), side=8):
    video = np.full((len(starts), *size, 3), 20, np.uint8)
    for frame, x in zip(video, starts, strict=True):
        frame[10 : 10 + side, x : x + side] = 220
    return video


def clip_of(frames, reference, fps=10.0):
    return Clip(frames=frames, fps=fps, reference=Clip(frames=reference, fps=fps))


def test_psnr_of_a_constant_offset_has_its_closed_form():
    reference = np.full((3, 8, 8, 3), 100, np.uint8)
    frames = reference + np.array([1, 5, 20], np.uint8)[:, None, None, None]
    np.testing.assert_allclose(fidelity.psnr(frames, reference), 20 * np.log10(255 / np.array([1, 5, 20])), rtol=1e-12)


def test_psnr_does_not_wrap_uint8_differences():
    dark, bright = np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8)
    assert fidelity.psnr(dark, bright)[0] == fidelity.psnr(bright, dark)[0] == 0.0


def test_ssim_of_flat_frames_is_the_luminance_term():
    a, b = np.full((1, 16, 16, 3), 60, np.uint8), np.full((1, 16, 16, 3), 180, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert fidelity.ssim(a, b)[0] == pytest.approx((2 * 60 * 180 + c1) / (60**2 + 180**2 + c1), abs=1e-9)


def test_ssim_equals_the_definition_window_by_window():
    frames, reference = noise(0), noise(1)
    # Smooth one of them, so that covariances of both signs and sizes occur.
    frames = (0.6 * reference + 0.4 * frames).astype(np.uint8)
    offset = np.arange(11) - 5
    weights = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    for t in range(len(frames)):
        x, y = (sliding_window_view(v[t].astype(float), (11, 11), axis=(0, 1)) for v in (frames, reference))
        mx, my = (x * weights).sum((-1, -2)), (y * weights).sum((-1, -2))
        dx, dy = x - mx[..., None, None], y - my[..., None, None]
        vx, vy, cov = ((p * weights).sum((-1, -2)) for p in (dx * dx, dy * dy, dx * dy))
        expected = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
        assert fidelity.ssim(frames, reference)[t] == pytest.approx(expected, abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_ssim_and_mse_are_symmetric_and_best_for_identical(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 256, (2, 13, 17, 3), dtype=np.uint8) for _ in range(2))
    np.testing.assert_allclose(fidelity.ssim(a, b), fidelity.ssim(b, a), rtol=1e-12)
    np.testing.assert_allclose(fidelity.mse(a, b), fidelity.mse(b, a), rtol=1e-12)
    np.testing.assert_allclose(fidelity.ssim(a, a), 1.0, rtol=1e-12)
    assert np.all(fidelity.ssim(a, b) < 1)
    assert np.all(np.isposinf(fidelity.psnr(a, a)))


@pytest.mark.parametrize("measure", [fidelity.mse, fidelity.psnr, fidelity.ssim, fidelity.anomaly_concordance])
@pytest.mark.parametrize(
    ("frames", "reference"),
    [
        (noise(0), noise(0)[:3]),
        (noise(0), noise(0)[:, :20]),
        (noise(0).astype(float), noise(0)),
        (noise(0)[..., 0], noise(0)[..., 0]),
        (noise(0)[:0], noise(0)[:0]),
    ],
    ids=["length", "size", "float", "grey", "empty"],
)
def test_unequal_or_odd_videos_are_named_errors(measure, frames, reference):
    with pytest.raises(MeasureError, match=r"expected .*; got"):
        measure(frames, reference)


def test_ssim_refuses_frames_smaller_than_its_window():
    with pytest.raises(MeasureError, match="11"):
        fidelity.ssim(noise(0, (1, 10, 20, 3)), noise(1, (1, 10, 20, 3)))


def test_anomaly_concordance_is_one_for_truth_zero_for_background_and_falls_with_shift():
    truth = moving_square(range(0, 24, 2))
    background = np.round(truth.mean(axis=0)).astype(np.uint8)
    np.testing.assert_allclose(fidelity.anomaly_concordance(truth, truth), 1.0, rtol=1e-12)
    still = fidelity.anomaly_concordance(np.repeat(background[None], 12, 0), truth)
    assert np.abs(still).max() < 0.01
    faded = np.round(0.8 * background + 0.2 * truth).astype(np.uint8)
    # With amplitude a the definition gives 2a/(1 + a²), whatever the scene; a correlation would give 1.
    np.testing.assert_allclose(fidelity.anomaly_concordance(faded, truth), 0.4 / 1.04, atol=0.02)
    shifted = [fidelity.anomaly_concordance(np.roll(truth, k, axis=2), truth).mean() for k in (1, 2, 4, 8)]
    assert np.all(np.diff(shifted) < 0)
    assert np.all(np.isnan(fidelity.anomaly_concordance(truth, np.repeat(truth[:1], 12, 0))))


def test_horizon_is_the_planted_frame_of_departure():
    x = np.arange(0, 24, 1)
    truth = moving_square(x)
    for departs in (5, 12, 20):
        dream = moving_square(np.where(np.arange(24) < departs, x, 23 - x))
        # Where the mirrored path crosses the true one the two agree again: choose departures that stay apart.
        found = fidelity.divergence_horizon(fidelity.anomaly_concordance(dream, truth))
        if departs == 12:
            # 11 and 12 are neighbours: the square is one pixel off at first and leaves when half is lost.
            assert found.frame in {13, 14, 15}
        else:
            assert found == (departs, False)


def test_horizon_is_censored_when_the_dream_stays_true():
    truth = moving_square(range(12))
    score = EVALUATORS["divergence_horizon"](clip_of(truth, truth))
    assert score.value == pytest.approx(1.1)
    assert score.normalised == 1.0
    assert score.details["censored"] is True
    assert score.uncertainty is None


def test_horizon_passes_over_a_single_bad_frame_but_not_over_the_last():
    correlation = np.array([1, 0.9, 0.2, 0.9, np.nan, 0.8, 0.1])
    assert fidelity.divergence_horizon(correlation) == (6, False)
    assert fidelity.divergence_horizon(correlation, hold=1) == (2, False)
    assert fidelity.divergence_horizon(correlation[:6]) == (6, True)
    with pytest.raises(MeasureError):
        fidelity.divergence_horizon(np.full(4, np.nan))


def test_horizon_of_a_motionless_truth_is_inapplicable():
    still = np.repeat(noise(0)[:1], 6, 0)
    assert EVALUATORS["divergence_horizon"](clip_of(still, still)).status == "inapplicable"


def test_scores_leave_the_given_frame_out_and_report_it():
    reference = noise(3)
    frames = noise(4)
    frames[0] = reference[0]
    for name, plain in (("psnr", fidelity.psnr), ("ssim", fidelity.ssim)):
        score = EVALUATORS[name](clip_of(frames, reference))
        assert score.value == pytest.approx(plain(frames, reference)[1:].mean())
        assert np.isnan(score.per_frame[0])
        assert score.coverage == 0.75
        assert score.uncertainty > 0


def test_identical_videos_reach_the_stated_ceiling():
    score = EVALUATORS["psnr"](clip_of(noise(0), noise(0)))
    assert score.value == 100.0
    assert score.details["identical_frames"] == 3


@pytest.mark.parametrize("name", ["psnr", "ssim", "divergence_horizon"])
def test_what_cannot_be_compared_is_a_score_with_a_reason(name):
    measure = EVALUATORS[name]
    assert measure(Clip(frames=noise(0), fps=10)).status == "missing"
    assert measure(clip_of(noise(0)[:1], noise(0)[:1])).status == "insufficient"
    faster = Clip(frames=noise(0), fps=10, reference=Clip(frames=noise(0), fps=30))
    assert "frames/s" in measure(faster).reason


def test_standard_error_widens_with_autocorrelation():
    rng = np.random.default_rng(0)
    white = rng.normal(size=400)
    assert standard_error(white) == pytest.approx(white.std(ddof=1) / 20, rel=0.2)
    # AR(1) with ρ = 0.8: the variance of the mean grows by (1+ρ)/(1-ρ) = 9.
    spread = []
    for _ in range(300):
        walk = np.zeros(400)
        for t in range(1, 400):
            walk[t] = 0.8 * walk[t - 1] + rng.normal()
        spread.append((walk.mean(), standard_error(walk)))
    means, errors = np.array(spread).T
    assert np.median(errors) == pytest.approx(means.std(), rel=0.2)
    assert standard_error(np.array([1.0, 2.0])) is None


def test_wilson_interval_matches_a_published_example_and_covers():
    # Newcombe, Statistics in Medicine 17, 1998: 81 of 263 -> 0.2553 to 0.3662.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20)[0] == 0.0
    with pytest.raises(MeasureError):
        wilson_interval(3, 2)


def test_bootstrap_interval_is_seeded_and_near_the_normal_one():
    values = np.random.default_rng(1).normal(size=200)

    def interval(seed):
        return bootstrap_interval(lambda i: values[i].mean(), 200, rng=np.random.default_rng(seed))

    assert interval(0) == interval(0)
    half = 1.96 * values.std() / np.sqrt(200)
    expected = [values.mean() - half, values.mean() + half]
    np.testing.assert_allclose(interval(0), expected, atol=0.25 * half)
    np.testing.assert_allclose(mean_interval(values, rng=np.random.default_rng(0)), expected, atol=0.25 * half)
    with pytest.raises(MeasureError):
        mean_interval(np.array([]), rng=np.random.default_rng(0))


def test_the_median_interval_holds_the_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for n in (6, 9, 20):
        bounds = np.array([median_interval(sample) for sample in rng.exponential(size=(2000, n))])
        held = ((bounds[:, 0] <= np.log(2)) & (np.log(2) <= bounds[:, 1])).mean()
        assert held > 0.94
    # The textbook's case: of ten values the second and the ninth.
    assert median_interval(rng.permutation(10.0 + np.arange(10))) == (11.0, 18.0)
    assert median_interval(np.arange(5.0)) is None
