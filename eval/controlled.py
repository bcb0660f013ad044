"""Is a learned world controlled by its actions as the true one is? Both are played by the same policies and compared.

A world is anything that can be played: `play(policy)` runs all cases from their fixed beginnings and returns what was
seen, done and earned. The true world played as if it were learned scores the ceiling of every figure, and one that
ignores its actions the floor.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from eval.control import counterfactual_response, delta_psnr, mean_maximum_rank_violation, rank_policies
from eval.errors import MeasureError
from eval.inverse_dynamics import InverseDynamics, action_following, colour_moments, find_palette
from eval.uncertainty import mean_interval, wilson_interval

# (latest frames (B, H, W, 3), index of the action) -> actions (B, ...).
Policy = Callable[[np.ndarray, int], np.ndarray]
SHUFFLES = 200
# Frames after the change over which its consequences are compared: later ones differ by chaos too.
RESPONSE_FRAMES = 8
HORIZONS = (1, 4, 16)


class Played(NamedTuple):
    """What came of a policy, case by case.

    Attributes:
        frames: uint8 (B, T, H, W, 3); the given ones first.
        actions: (B, T-1, ...); those between the given frames first, which no policy chose.
        rewards: (B, T-G) of the actions that the policy chose, G frames being given.
    """

    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


Play = Callable[[Policy], Played]


@dataclass(frozen=True, kw_only=True)
class ControlFigure:
    """One figure of control, with what it would be for a world that ignores its actions, and for the true one.

    Attributes:
        name: What was measured.
        unit: Its unit.
        value: The figure; None where it cannot be measured.
        low: Lower end of its 95 % interval.
        high: Upper end.
        count: Cases, or policies, that it rests on.
        floor: Without control; None where it could not be measured either.
        ceiling: Of the true world; None for no limit.
        reason: Why there is no value.
    """

    name: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    count: int
    floor: float | None
    ceiling: float | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Control:
    """The figures, and the returns of every policy: name to (learned world, true world)."""

    figures: tuple[ControlFigure, ...]
    returns: Mapping[str, tuple[float, float]]


def replay(actions: np.ndarray) -> Policy:
    """The policy that takes fixed actions (B, T-1, ...)."""
    return lambda _, t: actions[:, t]


def measure_control(
    learned: Play,
    true: Play,
    *,
    given: int,
    recorded: np.ndarray,
    other: np.ndarray,
    policies: Mapping[str, Policy],
    reader: InverseDynamics | None,
    rng: np.random.Generator | None = None,
) -> Control:
    """All figures of control.

    Args:
        learned: Plays the learned world: cases begin with `given` frames of the true one.
        true: Plays the true world.
        given: G, frames that every case begins with.
        recorded: (B, T-1, ...) ordinary actions of B cases, at least two.
        other: The same actions but for the first few that a policy chooses: what is changed for the counterfactual.
        policies: Policies to be ranked, by name.
        reader: A reader of actions, fitted to other videos of the true world; None if it could not be fitted.
        rng: For intervals and floors; `default_rng(0)` if absent.

    Raises:
        MeasureError: If there are fewer than two cases, `other` changes an action between given frames or none at all,
            or the worlds begin differently.
    """
    rng = rng or np.random.default_rng(0)
    changed = np.any((recorded != other).reshape(*recorded.shape[:2], -1), axis=(0, 2))
    if len(recorded) < 2 or recorded.shape != other.shape or not changed.any() or changed[: given - 1].any():
        raise MeasureError(
            expected="at least two cases, and other actions that differ only after the given frames",
            got=f"{recorded.shape}, {other.shape}, changed at {np.flatnonzero(changed)}",
            remedy="Change actions from given - 1 on.",
        )
    branch = int(np.flatnonzero(changed)[0])
    truth, dream = true(replay(recorded)), learned(replay(recorded))
    if not np.array_equal(truth.frames[:, :given], dream.frames[:, :given]):
        raise MeasureError(
            expected="the same given frames in both worlds", got="others", remedy="Begin the learned world with them."
        )
    swapped = recorded.copy()
    swapped[:, given - 1 :] = np.roll(recorded, 1, axis=0)[:, given - 1 :]
    figures = [
        *_delta(truth, dream, learned(replay(swapped)), given, rng),
        *_following(reader, truth, dream, given, rng),
        *_counterfactual(
            (truth.frames, true(replay(other)).frames), (dream.frames, learned(replay(other)).frames), branch, rng
        ),
    ]
    returns = {name: (_return(learned(policy)), _return(true(policy))) for name, policy in policies.items()}
    return Control(figures=(*figures, *_ranking(returns, rng)), returns=returns)


def _return(played: Played) -> float:
    return float(played.rewards.sum(axis=1).mean())


def _delta(
    truth: Played, dream: Played, swapped: Played, given: int, rng: np.random.Generator
) -> Iterator[ControlFigure]:
    gained = np.array([delta_psnr(*videos) for videos in zip(truth.frames, dream.frames, swapped.frames, strict=True)])[
        :, given:
    ]
    for horizon in (h for h in HORIZONS if h <= gained.shape[1]):
        yield _mean(
            f"ΔPSNR of actions after {horizon} frames", "dB", gained[:, horizon - 1], rng, floor=0.0, ceiling=None
        )


def _following(
    reader: InverseDynamics | None, truth: Played, dream: Played, given: int, rng: np.random.Generator
) -> Iterator[ControlFigure]:
    names = ("accuracy of actions read from the dream", "action following")
    reason = "no reader of actions could be fitted to the true world"
    if reader is not None:
        own = [(list(p.frames[:, given - 1 :]), list(p.actions[:, given - 1 :])) for p in (truth, dream)]
        try:
            found = action_following(reader, *own, rng=rng)
        except MeasureError as error:
            reason = str(error)
        else:
            span, count = found.real - found.shuffled, len(dream.frames)
            low, high = (found.shuffled + end * span for end in found.interval)
            yield ControlFigure(
                name=names[0], unit="", value=found.dream, low=low, high=high, count=count,
                floor=found.shuffled, ceiling=found.real,
            )  # fmt: skip
            yield ControlFigure(
                name=names[1], unit="", value=found.following, low=found.interval[0], high=found.interval[1],
                count=count, floor=0.0, ceiling=1.0,
            )  # fmt: skip
            return
    for name in names:
        yield _without(name, "", floor=0.0, ceiling=1.0, reason=reason)


def _counterfactual(
    truth: tuple[np.ndarray, np.ndarray], dream: tuple[np.ndarray, np.ndarray], branch: int, rng: np.random.Generator
) -> Iterator[ControlFigure]:
    """Same state, other action: does the dream's change agree with the true one, and is it as large?

    Compared are the places of colours: pixels of a body that goes the wrong way are merely elsewhere, not opposite.
    """
    stop = branch + 1 + RESPONSE_FRAMES
    palette = find_palette(list(truth[0][:, :stop]))
    cut_truth, cut_dream = (
        tuple(np.stack([colour_moments(v, palette) for v in video[:, :stop]]) for video in videos)
        for videos in (truth, dream)
    )
    found, strangers = [], []
    for k in range(len(cut_truth[0])):
        stranger = (k + 1) % len(cut_truth[0])
        for into, case in ((found, k), (strangers, stranger)):
            try:
                videos = (*(v[case] for v in cut_truth), *(v[k] for v in cut_dream))
                into.append(counterfactual_response(*videos, branch=branch))
            except MeasureError:
                continue  # the true world does not show this change: there is nothing to agree with
    names = ("counterfactual direction", "counterfactual goes the right way", "counterfactual gain")
    if not found:
        for name in names:
            yield _without(name, "", floor=0.0, ceiling=1.0, reason="no changed action shows in the true world")
        return
    direction = np.array([r.direction for r in found])
    floor = float(np.mean([r.direction for r in strangers]))
    yield _mean(names[0], "", direction, rng, floor=floor, ceiling=1.0)
    wins = float(np.sum((direction > 0) + 0.5 * (direction == 0)))
    low, high = wilson_interval(wins, len(found))
    yield ControlFigure(
        name=names[1], unit="", value=wins / len(found), low=low, high=high, count=len(found), floor=0.5, ceiling=1.0
    )
    yield _mean(names[2], "", np.array([r.gain for r in found]), rng, floor=0.0, ceiling=1.0)


def _ranking(returns: Mapping[str, Sequence[float]], rng: np.random.Generator) -> Iterator[ControlFigure]:
    names, count = ("policy ranking, Pearson", "policy ranking, MMRV"), len(returns)
    values = np.array(list(returns.values()), float).reshape(-1, 2)
    try:
        found = rank_policies(values[:, 0], values[:, 1], rng=rng)
    except MeasureError as error:
        yield _without(names[0], "", floor=0.0, ceiling=1.0, reason=str(error))
        yield _without(names[1], "return", floor=None, ceiling=0.0, reason=str(error))
        return
    yield ControlFigure(
        name=names[0], unit="", value=found.pearson, low=found.interval[0], high=found.interval[1], count=count,
        floor=0.0, ceiling=1.0,
    )  # fmt: skip
    chance = [
        mean_maximum_rank_violation(rng.permutation(values[:, 0]), values[:, 1], fixed=True) for _ in range(SHUFFLES)
    ]
    yield ControlFigure(
        name=names[1], unit="return", value=found.mmrv, low=found.mmrv_interval[0], high=found.mmrv_interval[1],
        count=count, floor=float(np.mean(chance)), ceiling=0.0,
    )  # fmt: skip


def _mean(
    name: str, unit: str, values: np.ndarray, rng: np.random.Generator, *, floor: float, ceiling: float | None
) -> ControlFigure:
    low, high = mean_interval(values, rng=rng)
    value = float(values.mean())
    return ControlFigure(
        name=name, unit=unit, value=value, low=low, high=high, count=len(values), floor=floor, ceiling=ceiling
    )


def _without(name: str, unit: str, *, floor: float | None, ceiling: float, reason: str) -> ControlFigure:
    return ControlFigure(
        name=name, unit=unit, value=None, low=None, high=None, count=0, floor=floor, ceiling=ceiling, reason=reason
    )
