"""Control: does the video do what the actions say, and does it rank policies as the true world does?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from eval.errors import MeasureError
from eval.fidelity import psnr
from eval.inverse_dynamics import ActionFollowing, InverseDynamics, action_following
from eval.uncertainty import bootstrap_interval

__all__ = [
    "ActionFollowing",
    "CounterfactualResponse",
    "InverseDynamics",
    "PolicyRanking",
    "action_following",
    "counterfactual_response",
    "delta_psnr",
    "mean_maximum_rank_violation",
    "pearson",
    "rank_policies",
]

PEARSON_EPS = 1e-8


class CounterfactualResponse(NamedTuple):
    """What changing one action changes, in the dream and in truth.

    Attributes:
        direction: Cosine between the dream's change and the true change, over all frames after the branch: 1 the same
            way, 0 unrelated, -1 the opposite way.
        gain: Size of the dream's change over that of the true one: 0 ignores the action, 1 as strong as the truth.
        per_frame: (T,) cosine in each frame; NaN where the truth does not change.
        leak: Size of the dream's change before the branch over the true change after it; 0 for the same state.
    """

    direction: float
    gain: float
    per_frame: np.ndarray
    leak: float


class PolicyRanking(NamedTuple):
    """Agreement of policy values in a simulator with those in the true world.

    Attributes:
        pearson: Correlation.
        interval: Its 95 % interval by Fisher's transformation; (-1, 1) for three policies, for which it has no width.
        mmrv: Mean maximum rank violation, in the unit of the returns; 0 is best.
        mmrv_interval: Its 95 % bootstrap interval over policies.
    """

    pearson: float
    interval: tuple[float, float]
    mmrv: float
    mmrv_interval: tuple[float, float]


def delta_psnr(
    truth: np.ndarray, followed: np.ndarray, swapped: np.ndarray, *, ceiling_db: float = 100.0
) -> np.ndarray:
    """How much closer to the truth a dream is with the true actions than with others (Genie, Bruce et al., 2024).

    ΔPSNR of frame t = PSNR(truth, followed) - PSNR(truth, swapped). Genie reports t = 4. Near 0: the actions do not
    matter.

    Args:
        truth: uint8 (T, H, W, 3).
        followed: The dream under the true actions.
        swapped: The dream from the same start under other actions.
        ceiling_db: What an identical frame counts, whose PSNR is infinite.

    Returns:
        (T,) dB.

    Raises:
        MeasureError: If shapes differ.
    """
    return np.minimum(psnr(followed, truth), ceiling_db) - np.minimum(psnr(swapped, truth), ceiling_db)


def counterfactual_response(
    truth: np.ndarray, truth_changed: np.ndarray, dream: np.ndarray, dream_changed: np.ndarray, *, branch: int
) -> CounterfactualResponse:
    """Same state, one action changed: does the difference go the right way, and is it strong enough?

    Args:
        truth: (T, ...) the true world under the original actions: frames, or states such as positions.
        truth_changed: (T, ...) the true world with action `branch` changed, from the same state and noise.
        dream: (T, ...) the dream under the original actions.
        dream_changed: (T, ...) the dream under the changed ones, from the same state and seed.
        branch: Index of the changed action: frames 0...branch must not differ, frame branch + 1 may.

    Raises:
        MeasureError: If shapes differ, values are not finite, or the true change is zero.
    """
    videos = [np.asarray(v, float) for v in (truth, truth_changed, dream, dream_changed)]
    length = len(videos[0])
    if len({v.shape for v in videos}) != 1 or not all(np.isfinite(v).all() for v in videos):
        raise MeasureError(
            expected="four finite arrays of one shape", got=[v.shape for v in videos], remedy="Cut them alike."
        )
    if not 0 <= branch < length - 1:
        raise MeasureError(expected=f"branch in [0, {length - 2}]", got=branch, remedy="Change an earlier action.")
    true_change, change = ((b - a).reshape(length, -1) for a, b in (videos[:2], videos[2:]))
    after = slice(branch + 1, None)
    true_size, size = (float(np.linalg.norm(c[after])) for c in (true_change, change))
    if true_size == 0:
        raise MeasureError(
            expected="an action whose change shows in the true world",
            got="no difference",
            remedy="Change a stronger action, or look longer.",
        )
    product = np.sum(true_change * change, axis=1)
    norms = np.linalg.norm(true_change, axis=1) * np.linalg.norm(change, axis=1)
    per_frame = np.divide(product, norms, out=np.zeros(length), where=norms > 0)
    per_frame[np.linalg.norm(true_change, axis=1) == 0] = np.nan
    return CounterfactualResponse(
        direction=float(product[after].sum() / (true_size * size)) if size > 0 else 0.0,
        gain=size / true_size,
        per_frame=per_frame,
        leak=float(np.linalg.norm(change[: branch + 1])) / true_size,
    )


def pearson(simulated: ArrayLike, real: ArrayLike, *, fixed: bool = False) -> float:
    """Pearson correlation of policy values in the simulator and in the true world (SimplerEnv, Li et al., 2024).

    Args:
        simulated: (n,) return or success rate of each policy in the simulator.
        real: (n,) in the true world.
        fixed: The published code adds 1e-8 to the denominator, gives 1 for equal centred tables (two constants, a
            single policy), and 0 for one constant. Fixed: the exact correlation, or an error where there is none.

    Raises:
        MeasureError: If lengths differ, are zero, or values are not finite; if fixed, also for fewer than three
            policies or a constant table.
    """
    simulated, real = _tables(simulated, real)
    a, b = simulated - simulated.mean(), real - real.mean()
    if not fixed:
        return 1.0 if np.array_equal(a, b) else float(a @ b / (np.sqrt((a @ a) * (b @ b)) + PEARSON_EPS))
    if len(a) < 3 or not (np.ptp(simulated) > 0 and np.ptp(real) > 0):
        raise MeasureError(
            expected="at least three policies whose values differ",
            got=f"{len(a)} policies, spread {np.ptp(simulated)} and {np.ptp(real)}",
            remedy="Compare more, and more different, policies.",
        )
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def mean_maximum_rank_violation(simulated: ArrayLike, real: ArrayLike, *, fixed: bool = False) -> float:
    """MMRV: mean over policies i of the largest |real_i - real_j| among the j whose order with i flips.

    SimplerEnv (Li et al., 2024). 0 is best; the unit is that of `real`.

    Args:
        simulated: (n,) value of each policy in the simulator.
        real: (n,) in the true world.
        fixed: In the published code a tie in the simulator against an order in the true world counts for one of the
            two policies only, depending on which way round it is. Fixed: it counts half for both.

    Raises:
        MeasureError: If lengths differ, are zero, or values are not finite.
    """
    simulated, real = _tables(simulated, real)
    size = np.abs(np.subtract.outer(real, real))
    if fixed:
        signs = [np.sign(np.subtract.outer(x, x)) for x in (simulated, real)]
        flipped = np.abs(signs[0] - signs[1]) / 2
    else:
        flipped = np.greater.outer(simulated, simulated) != np.greater.outer(real, real)
    return float((size * flipped).max(axis=1).mean())


def rank_policies(
    simulated: ArrayLike, real: ArrayLike, *, rng: np.random.Generator | None = None, resamples: int = 1000
) -> PolicyRanking:
    """Correlation and rank violation of policy values, with intervals (fixed variants).

    Args:
        simulated: (n,) value of each policy in the simulator, n at least 3.
        real: (n,) in the true world.
        rng: For the bootstrap; `default_rng(0)` if absent.
        resamples: Draws of the bootstrap.

    Raises:
        MeasureError: As `pearson` with `fixed=True`.
    """
    simulated, real = _tables(simulated, real)
    correlation, n = pearson(simulated, real, fixed=True), len(real)
    interval = (-1.0, 1.0)
    if n > 3:
        half = float(stats.norm.ppf(0.975)) / np.sqrt(n - 3)
        # An exact line has an infinite transform; one rounding step below it does not.
        centre = np.arctanh(np.clip(correlation, -1 + 1e-15, 1 - 1e-15))
        interval = (float(np.tanh(centre - half)), float(np.tanh(centre + half)))
    return PolicyRanking(
        correlation,
        interval,
        mean_maximum_rank_violation(simulated, real, fixed=True),
        bootstrap_interval(
            lambda i: mean_maximum_rank_violation(simulated[i], real[i], fixed=True),
            n,
            rng=rng or np.random.default_rng(0),
            resamples=resamples,
        ),
    )


def _tables(simulated: ArrayLike, real: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    simulated, real = np.asarray(simulated, float), np.asarray(real, float)
    finite = np.isfinite(simulated).all() and np.isfinite(real).all()
    if simulated.ndim != 1 or simulated.shape != real.shape or not len(real) or not finite:
        raise MeasureError(
            expected="two finite tables (n,) of the same policies",
            got=f"{simulated.shape} and {real.shape}",
            remedy="Evaluate every policy in both worlds.",
        )
    return simulated, real
