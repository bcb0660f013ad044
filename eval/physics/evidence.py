"""From statistics to one comparable number: how many standard deviations of a Gaussian an observation is worth.

Every law reports the strongest evidence against itself in a clip. The p-value is corrected for how many tests were
made (Bonferroni), so that longer clips and more objects do not raise more alarms.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

# One false alarm in 100,000 lawful clips for each law, if the noise is as modelled.
ALPHA = 1e-5
Z_ALARM = float(-special.ndtri(ALPHA))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One test of a law.

    Attributes:
        log_p: Natural logarithm of the probability of so strong a deviation in a lawful clip.
        frames: The frames concerned.
        about: Which object or pair, and the deviation with its unit, in words.
    """

    log_p: float
    frames: tuple[int, ...]
    about: str


def log_p_above(deviation: float, sigma: float) -> float:
    """Log p-value of a one-sided Gaussian deviation."""
    return float(special.log_ndtr(-deviation / sigma))


def log_p_either(deviation: float, sigma: float) -> float:
    """Log p-value of a two-sided Gaussian deviation."""
    return float(min(np.log(2.0) + special.log_ndtr(-abs(deviation) / sigma), 0.0))


def log_p_chi2(chi2: ArrayLike, dof: ArrayLike) -> np.ndarray:
    """Log p-value of a chi-square statistic, finite however large it is."""
    chi2, dof = np.broadcast_arrays(np.asarray(chi2, float), np.asarray(dof, float))
    tail = special.gammaincc(dof / 2.0, chi2 / 2.0)
    # Where it underflows: its leading asymptotic term, (x/2)^(k/2-1) e^(-x/2) / Γ(k/2).
    half, x = dof / 2.0, np.maximum(chi2 / 2.0, 1.0)
    asymptotic = (half - 1.0) * np.log(x) - x - special.gammaln(half)
    return np.where(tail > 1e-300, np.log(np.maximum(tail, 1e-300)), asymptotic)


def z_score(log_p: float) -> float:
    """The z of which a one-sided Gaussian test would give this log p-value; 0 for p >= 1/2."""
    if log_p >= np.log(0.5):
        return 0.0
    if log_p > -700.0:
        return float(-special.ndtri(np.exp(log_p)))
    # Mills' ratio: log p = -z²/2 - log(z sqrt(2π)).
    z = np.sqrt(-2.0 * log_p)
    for _ in range(4):
        z = np.sqrt(-2.0 * (log_p + np.log(z * np.sqrt(2.0 * np.pi))))
    return float(z)


def corrected(log_p: float, tests: int) -> float:
    """Log p-value of the smallest of `tests` p-values."""
    return min(0.0, log_p + np.log(max(tests, 1)))
