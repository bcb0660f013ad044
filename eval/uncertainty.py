"""Standard errors and intervals shared by the measures."""

from collections.abc import Callable

import numpy as np
from scipy import stats

from eval.errors import MeasureError


def standard_error(values: np.ndarray) -> float | None:
    """Standard error of the mean of a serially correlated sequence.

    Neighbouring frames resemble each other, so s/√n would be too small. The number of independent values is taken as
    n(1-ρ)/(1+ρ), ρ the lag-one autocorrelation, which is exact for large n if the sequence is a first-order
    autoregression (Zwiers & von Storch, J. Climate 8, 1995). Negative ρ is taken as zero.

    Args:
        values: (n,) finite values in time order; NaN entries are left out.

    Returns:
        The standard error in the unit of the values, or None for fewer than three values.
    """
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    n = len(values)
    if n < 3:
        return None
    centred = values - values.mean()
    power = float(centred @ centred)
    if power == 0.0:
        return 0.0
    rho = float(np.clip(centred[1:] @ centred[:-1] / power, 0.0, 1.0 - 2.0 / n))
    independent = n * (1.0 - rho) / (1.0 + rho)
    return float(np.sqrt(power / (n - 1) / independent))


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (E. B. Wilson, JASA 22, 1927).

    Args:
        successes: Number of successes in [0, n]; halves (ties) are allowed.
        n: Number of trials, at least one.
        confidence: Coverage of the interval, in (0, 1).

    Raises:
        MeasureError: If `n` is not positive or `successes` lies outside [0, n].
    """
    if n < 1 or not 0 <= successes <= n:
        raise MeasureError(
            expected="0 <= successes <= n with n >= 1", got=f"{successes} of {n}", remedy="Count the trials again."
        )
    z = stats.norm.ppf(0.5 + confidence / 2)
    share, shrink = successes / n, 1 + z**2 / n
    centre = (share + z**2 / (2 * n)) / shrink
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / shrink
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    num_units: int,
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of a statistic of resampled units.

    Args:
        statistic: Takes (num_units,) indices of the resampled units, gives the statistic.
        num_units: Number of independent units (clips, pairs, scenarios) that are drawn with replacement.
        rng: Source of randomness; the same seed gives the same interval.
        resamples: Number of draws.
        confidence: Coverage of the interval, in (0, 1).

    Raises:
        MeasureError: If there is no unit to draw.
    """
    if num_units < 1:
        raise MeasureError(expected="at least one unit to resample", got=num_units, remedy="Add cases.")
    draws = np.array([statistic(rng.integers(0, num_units, num_units)) for _ in range(resamples)])
    low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def mean_interval(
    values: np.ndarray, *, rng: np.random.Generator, resamples: int = 1000, confidence: float = 0.95
) -> tuple[float, float]:
    """`bootstrap_interval` of the mean of independent values (n,), all draws at once.

    Raises:
        MeasureError: If there is no value.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values):
        raise MeasureError(expected="at least one value", got=f"shape {values.shape}", remedy="Add cases.")
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def median_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float] | None:
    """Distribution-free interval of the median of independent values, between two of them (binomial test of the sign).

    Args:
        values: (n,), finite.
        confidence: In (0, 1); the interval holds the median at least as often.

    Returns:
        Lower and upper bound; None where even the whole range holds it less often (95 %: fewer than six values).
    """
    ordered = np.sort(np.asarray(values, np.float64))
    # With k values cut off at each end, the median is missed in 2 P(B <= k) of the cases, B binomial (n, 1/2).
    missed = 2.0 * stats.binom.cdf(np.arange(len(ordered) // 2), len(ordered), 0.5)
    cut = int((missed <= 1.0 - confidence).sum()) - 1
    return None if cut < 0 else (float(ordered[cut]), float(ordered[-1 - cut]))
