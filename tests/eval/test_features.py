import cv2
import numpy as np
import pytest
from golden import load
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import features as ft
from eval.errors import MeasureError

CASES, ARRAYS = load("distribution")
SETS = CASES["outputs"]["feature_sets"]


def golden_sets(name):
    return ARRAYS[f"feat_{name}_real"], ARRAYS[f"feat_{name}_fake"]


@pytest.mark.parametrize("name", SETS)
def test_frechet_distance_equals_the_published_code(name):
    expected = SETS[name]
    if expected["frechet_cdfvd"] is None:
        pytest.skip("the published code cannot take one dimension")
    rank_deficient = name.startswith("rank_deficient")
    tolerance = {"rel": 1e-6 if rank_deficient else 1e-8, "abs": 1e-9}
    assert ft.frechet_distance(*golden_sets(name)) == pytest.approx(expected["frechet_cdfvd"], **tolerance)
    own = expected["frechet_eig_sample_cov_derived"]
    assert ft.frechet_distance(*golden_sets(name), ddof=1) == pytest.approx(own, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("ddof", [0, 1])
def test_frechet_distance_in_one_dimension_has_its_closed_form(ddof):
    real, fake = (x.astype(float) for x in golden_sets("one_dimensional"))
    expected = (real.mean() - fake.mean()) ** 2 + (real.std(ddof=ddof) - fake.std(ddof=ddof)) ** 2
    assert ft.frechet_distance(real, fake, ddof=ddof) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", SETS)
def test_kernel_distance_equals_the_published_code(name):
    expected = SETS[name]
    scale = max(1.0, expected["mmd_poly_deg2_gamma1overD_coef0"])
    found = ft.kernel_distance(*golden_sets(name))
    assert found == pytest.approx(expected["mmd_poly_deg2_gamma1overD_coef0"], abs=1e-12 * scale)
    cubic = ft.kernel_distance(*golden_sets(name), degree=3, coef0=1.0)
    assert cubic == pytest.approx(expected["mmd_poly_deg3_coef1"], rel=1e-9, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_frechet_distance_of_scaled_and_shifted_features_has_its_closed_form(seed):
    rng = np.random.default_rng(seed)
    x, shift, scale = rng.normal(size=(40, 5)), rng.normal(size=5), rng.uniform(0.1, 3)
    # Σ₂ = s²Σ₁ commutes with Σ₁: the distance is |Δμ|² + (1 - s)² tr Σ₁.
    expected = ((scale - 1) * x.mean(0) + shift) @ ((scale - 1) * x.mean(0) + shift)
    expected += (1 - scale) ** 2 * np.trace(np.cov(x, rowvar=False, ddof=0))
    assert ft.frechet_distance(x, scale * x + shift) == pytest.approx(expected, rel=1e-8, abs=1e-10)
    assert ft.frechet_distance(scale * x + shift, x) == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_unbiased_kernel_distance_averages_to_zero_and_the_biased_one_does_not():
    rng = np.random.default_rng(0)
    draws = [(rng.normal(size=(20, 4)), rng.normal(size=(20, 4))) for _ in range(400)]
    unbiased = np.array([ft.kernel_distance(a, b, unbiased=True) for a, b in draws])
    biased = np.array([ft.kernel_distance(a, b) for a, b in draws])
    assert abs(unbiased.mean()) < 3 * unbiased.std() / 20
    assert biased.mean() > 10 * biased.std() / 20
    # The published kernel has no constant term: it cannot see a sign flip, the kernel inception distance can.
    x = rng.normal(1.0, 1, (50, 4))
    assert ft.kernel_distance(x, -x) == pytest.approx(0, abs=1e-12)
    assert ft.kernel_distance(x, -x, degree=3, coef0=1.0) > 0.1


def texture(rng, frames=8):
    """A drifting random texture with a moving square."""
    base = cv2.GaussianBlur(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8), (0, 0), 2)
    x, y, vx = rng.integers(5, 30), rng.integers(5, 45), rng.integers(1, 4)
    video = np.repeat(base[None], frames, 0)
    for t, frame in enumerate(video):
        frame[y : y + 12, x + vx * t : x + vx * t + 12] = (230, 40, 40)
    return video


def noisy(video, rng):
    return np.clip(video + rng.normal(0, 25, video.shape), 0, 255).astype(np.uint8)


DEGRADED = {
    "blur": lambda v, _: np.stack([cv2.GaussianBlur(f, (0, 0), 2) for f in v]),
    "noise": noisy,
    "frozen": lambda v, _: np.repeat(v[:1], len(v), 0),
    "shuffled": lambda v, rng: v[rng.permutation(len(v))],
    "tinted": lambda v, _: np.clip(v + np.array([40, 0, 0]), 0, 255).astype(np.uint8),
}


@pytest.fixture(scope="module")
def real_features():
    rng = np.random.default_rng(0)
    return ft.describe(texture(rng) for _ in range(160))


@pytest.mark.parametrize("kind", DEGRADED)
def test_weight_free_feature_moves_away_under_every_degradation(kind, real_features):
    rng = np.random.default_rng(1)
    held_out = ft.describe(texture(rng) for _ in range(60))
    degraded = ft.describe(DEGRADED[kind](texture(rng), rng) for _ in range(60))
    same, other = ft.set_distance(real_features, held_out), ft.set_distance(real_features, degraded)
    # Scaled over both sets, shuffled frames stay within the Fréchet distance's own bias at 60 videos; the kernel does
    # see them.
    assert other.frechet > (1.0 if kind == "shuffled" else 1.4) * same.frechet
    # No difference lies inside the interval of held-out real videos, and outside that of degraded ones.
    assert same.kernel_interval[0] < 0 < same.kernel_interval[1]
    assert 0 < other.kernel_interval[0] < other.kernel < other.kernel_interval[1]


def test_weight_free_feature_is_finite_for_odd_videos_and_names_what_it_refuses():
    feature = ft.WeightFreeFeature()
    assert feature(np.zeros((2, 5, 301, 3), np.uint8)).shape == (78,)
    assert np.isfinite(feature(np.zeros((2, 5, 301, 3), np.uint8))).all()
    with pytest.raises(MeasureError, match="two frames"):
        feature(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(MeasureError):
        feature(np.zeros((4, 8, 8, 3)))


def test_any_feature_plugs_in():
    class Mean:
        name = "mean colour"

        def __call__(self, frames):
            return frames.mean(axis=(0, 1, 2))

    rng = np.random.default_rng(0)
    found = ft.describe((texture(rng) for _ in range(3)), Mean())
    assert found.shape == (3, 3)


@pytest.mark.parametrize("distance", [ft.frechet_distance, ft.kernel_distance, ft.set_distance])
def test_bad_features_are_named_errors(distance):
    good = np.random.default_rng(0).normal(size=(6, 3))
    for real, fake in ((good, good[:, :2]), (good[:1], good), (good, good * np.nan), (good[0], good), (good, good[:0])):
        with pytest.raises(MeasureError):
            distance(real, fake)


def test_describe_refuses_no_video_and_ragged_features():
    class Ragged:
        name = "ragged"

        def __call__(self, frames):
            return np.zeros(len(frames))

    with pytest.raises(MeasureError):
        ft.describe([])
    with pytest.raises(MeasureError):
        ft.describe([np.zeros((2, 4, 4, 3), np.uint8), np.zeros((3, 4, 4, 3), np.uint8)], Ragged())
