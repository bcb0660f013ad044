"""Distances between two sets of videos: Fréchet and kernel, over any feature.

A distribution distance says how far a set of videos lies from a set of real ones, not which video is wrong. Its value
depends on the feature: numbers of different features cannot be compared. The default feature needs no weights; its
distances are relative, to be read beside the distance between two halves of the real set.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from eval.errors import MeasureError
from eval.fidelity import check_pair
from eval.uncertainty import bootstrap_interval

_LUMA = np.array([0.299, 0.587, 0.114])


class VideoFeature(Protocol):
    """Maps a video to a vector. Any callable with a `name` will do; it must not fetch anything."""

    name: str

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """The feature (D,) of uint8 frames (T, H, W, 3)."""
        ...


@dataclass(frozen=True)
class WeightFreeFeature:
    """Colour layout, texture and motion energy of a video; nothing is learned and nothing is fetched.

    Every video is first brought to `size`×`size` pixels. 78 numbers: mean colour of 4×4 cells (48); standard deviation
    of their luma over time (16); share of gradient energy in eight orientations (8); log energy of three octaves of
    the Laplacian pyramid (3); log energy of the luma's change over 1, 2 and 4 frames (3; a video too short for a lag
    repeats the longest it has). It tells blur, noise and wrong colours; flicker and freezing hardly, objects never.

    Attributes:
        size: Working resolution, a multiple of 8.
    """

    size: int = 32
    name: str = "weight-free"

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """The feature (78,) of uint8 frames (T, H, W, 3), T at least 2."""
        check_pair(frames, frames)
        if len(frames) < 2:
            raise MeasureError(expected="at least two frames", got=len(frames), remedy="Motion needs two frames.")
        square = (self.size, self.size)
        video = np.stack([cv2.resize(f, square, interpolation=cv2.INTER_AREA) for f in frames]) / 255.0
        luma = video @ _LUMA
        cells = luma.reshape(len(luma), 4, self.size // 4, 4, self.size // 4).mean(axis=(2, 4))
        colour = video.mean(axis=0).reshape(4, self.size // 4, 4, self.size // 4, 3).mean(axis=(1, 3))
        lags = [min(lag, len(luma) - 1) for lag in (1, 2, 4)]
        change = [np.mean((luma[lag:] - luma[:-lag]) ** 2) for lag in lags]
        energy = np.log(np.array([*_octaves(luma), *change]) + 1e-6)
        return np.concatenate([colour.ravel(), cells.std(axis=0).ravel(), _orientations(luma), energy])


@dataclass(frozen=True, kw_only=True)
class SetDistance:
    """How far a set of videos lies from the real ones, and what that is worth.

    Attributes:
        feature: Name of the feature.
        frechet: Fréchet distance.
        kernel: Unbiased squared kernel distance.
        kernel_interval: Its 95 % bootstrap interval over videos.
        floor_frechet: Fréchet distance of two random halves of the real set: what no difference looks like.
        floor_kernel: The same for the kernel distance.
        n_real: Number of real videos.
        n_fake: Number of videos that were judged.
    """

    feature: str
    frechet: float
    kernel: float
    kernel_interval: tuple[float, float]
    floor_frechet: float
    floor_kernel: float
    n_real: int
    n_fake: int


def describe(videos: Iterable[np.ndarray], feature: VideoFeature | None = None) -> np.ndarray:
    """Features (n, D) of videos, one at a time; memory does not grow with their length.

    Raises:
        MeasureError: If there is no video or a feature is not a finite vector of fixed length.
    """
    rows = [np.asarray((feature or WeightFreeFeature())(frames), float) for frames in videos]
    if len({row.shape for row in rows}) != 1 or rows[0].ndim != 1:
        raise MeasureError(
            expected="one vector of fixed length for each of at least one video",
            got=sorted({row.shape for row in rows}) or "no video",
            remedy="Check the feature.",
        )
    return _features(np.stack(rows), "videos", minimum=1)


def frechet_distance(real: np.ndarray, fake: np.ndarray, *, ddof: int = 0) -> float:
    """Fréchet distance of two Gaussians fitted to features: |μ₁-μ₂|² + tr(Σ₁ + Σ₂ - 2(Σ₁Σ₂)^½).

    Dowson & Landau, J. Multivariate Analysis 12, 1982; Heusel et al., 2017 (FID); Unterthiner et al., 2018 (FVD). The
    trace of the root is the sum of roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric, so that singular
    covariances (fewer videos than dimensions) need no special case.

    Args:
        real: (n, D) features.
        fake: (m, D) features.
        ddof: 0 for the population covariance (cd-fvd), 1 for the sample covariance (pytorch-fid).

    Raises:
        MeasureError: If shapes do not fit, values are not finite, or there are fewer than two rows.
    """
    real, fake = _features(real, "real"), _features(fake, "fake")
    _same_width(real, fake)
    means = real.mean(axis=0) - fake.mean(axis=0)
    first, second = (np.atleast_2d(np.cov(x, rowvar=False, ddof=ddof)) for x in (real, fake))
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(np.clip(values, 0.0, None)) @ vectors.T
    cross = np.linalg.eigvalsh(root @ second @ root)
    return float(means @ means + np.trace(first) + np.trace(second) - 2 * np.sqrt(np.clip(cross, 0.0, None)).sum())


def kernel_distance(
    real: np.ndarray,
    fake: np.ndarray,
    *,
    degree: int = 2,
    gamma: float | None = None,
    coef0: float = 0.0,
    unbiased: bool = False,
) -> float:
    """Squared maximum mean discrepancy with the polynomial kernel (γ⟨x, y⟩ + c)^d.

    The defaults are those of JEDi (Luo et al., 2024; oooolga/JEDi, which reports 100 times this): a biased estimate,
    and a kernel without a constant that sees second moments only, so that x and -x look alike. The kernel inception
    distance (Bińkowski et al., 2018) is `degree=3, coef0=1, unbiased=True`.

    Args:
        real: (n, D) features.
        fake: (m, D) features.
        degree: d.
        gamma: γ; 1/D if None.
        coef0: c.
        unbiased: Leave the diagonals out; two samples of one distribution then average to 0 (and may be negative).

    Raises:
        MeasureError: As `frechet_distance`.
    """
    real, fake = _features(real, "real"), _features(fake, "fake")
    _same_width(real, fake)
    scale = 1.0 / real.shape[1] if gamma is None else gamma

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (scale * a @ b.T + coef0) ** degree

    def within(x: np.ndarray) -> float:
        values, n = kernel(x, x), len(x)
        return float((values.sum() - np.trace(values)) / (n * (n - 1)) if unbiased else values.mean())

    return within(real) + within(fake) - 2 * float(kernel(real, fake).mean())


def set_distance(
    real: np.ndarray, fake: np.ndarray, *, feature: str = "given", rng: np.random.Generator | None = None
) -> SetDistance:
    """Both distances between sets of features, beside their floor.

    Features are first centred and scaled (`standardised`), so that no unit dominates.

    Args:
        real: (n, D) features of real videos, at least four.
        fake: (m, D) features of the videos to judge.
        feature: Name of the feature, for the report.
        rng: For the halves and the bootstrap; `default_rng(0)` if absent.

    Raises:
        MeasureError: As `frechet_distance`.
    """
    rng = rng or np.random.default_rng(0)
    real, fake = _features(real, "real", minimum=4), _features(fake, "fake")
    _same_width(real, fake)
    real, fake = standardised(real, fake)
    order = rng.permutation(len(real))
    half, other = real[order[: len(real) // 2]], real[order[len(real) // 2 :]]

    def kid(a: np.ndarray, b: np.ndarray) -> float:
        return kernel_distance(a, b, degree=3, coef0=1.0, unbiased=True)

    grams = [(a @ b.T / real.shape[1] + 1.0) ** 3 for a, b in ((real, real), (fake, fake), (real, fake))]

    def resampled(indices: np.ndarray) -> float:
        return _resampled_kid(grams, rng.integers(0, len(real), len(real)), indices)

    return SetDistance(
        feature=feature,
        frechet=frechet_distance(real, fake),
        kernel=kid(real, fake),
        kernel_interval=bootstrap_interval(resampled, len(fake), rng=rng, resamples=200),
        floor_frechet=frechet_distance(half, other),
        floor_kernel=kid(half, other),
        n_real=len(real),
        n_fake=len(fake),
    )


def standardised(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets of features (n, D), (m, D), centred and scaled by the mean and deviation of the two sets together.

    Each set counts for half. Scaled by the real set alone, a feature that hardly varies among few real videos would
    decide the distance: measured, sets of twelve videos of one source were up to 10⁵ times as far apart as others.
    """
    centre = 0.5 * (real.mean(axis=0) + fake.mean(axis=0))
    spread = np.sqrt(0.5 * (((real - centre) ** 2).mean(axis=0) + ((fake - centre) ** 2).mean(axis=0)))
    # A feature that never varies keeps its own unit.
    spread = np.where(spread > 0, spread, 1.0)
    return (real - centre) / spread, (fake - centre) / spread


def _features(values: np.ndarray, name: str, *, minimum: int = 2) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 2 or len(values) < minimum or values.shape[1] < 1 or not np.isfinite(values).all():
        raise MeasureError(
            expected=f"{name} features (n, D), finite, n at least {minimum}",
            got=f"shape {values.shape}, {np.count_nonzero(~np.isfinite(values))} not finite",
            remedy="Describe more videos, and repair those that cannot be read.",
        )
    return values


def _resampled_kid(grams: list[np.ndarray], real: np.ndarray, fake: np.ndarray) -> float:
    # A video drawn twice must not be compared with itself: that would pass for a small distance within the set.
    weights = [
        np.bincount(drawn, minlength=len(gram)).astype(float)
        for drawn, gram in zip((real, fake), grams[:2], strict=True)
    ]
    within = 0.0
    for w, gram in zip(weights, grams[:2], strict=True):
        within += (w @ gram @ w - w**2 @ np.diag(gram)) / (w.sum() ** 2 - (w**2).sum())
    return float(within - 2 * weights[0] @ grams[2] @ weights[1] / (weights[0].sum() * weights[1].sum()))


def _same_width(real: np.ndarray, fake: np.ndarray) -> None:
    if real.shape[1] != fake.shape[1]:
        raise MeasureError(
            expected="features of one length",
            got=(real.shape[1], fake.shape[1]),
            remedy="Use the same feature for both sets.",
        )


def _orientations(luma: np.ndarray) -> np.ndarray:
    dy, dx = np.gradient(luma, axis=(1, 2))
    power = dx**2 + dy**2
    bins = np.floor((np.arctan2(dy, dx) % np.pi) / np.pi * 8).astype(int) % 8
    share = np.bincount(bins.ravel(), weights=power.ravel(), minlength=8)
    return share / max(share.sum(), 1e-12)


def _octaves(luma: np.ndarray) -> list[float]:
    energies, level = [], luma
    for _ in range(3):
        count, height, width = level.shape
        coarse = level.reshape(count, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
        energies.append(float(np.mean((level - coarse.repeat(2, axis=1).repeat(2, axis=2)) ** 2)))
        level = coarse
    return energies
