"""Control against constructed truths: the true world scores the ceiling of every figure, a deaf one the floor."""

import numpy as np
import pytest

from eval.controlled import Played, measure_control, replay
from eval.errors import MeasureError
from eval.inverse_dynamics import InverseDynamics

GIVEN, CASES, FRAMES = 3, 6, 24
STEPS = np.array([(0, 0), (-2, 0), (2, 0), (0, -2), (0, 2)])
START = np.random.default_rng(5).integers(20, 28, (CASES, 2))


def world(actions_of, starts=START):
    """A square that actions push about a 48 x 48 world, with friction; it earns by being on the right."""

    def play(policy):
        at, speed = starts.astype(float).copy(), np.zeros((len(starts), 2))
        frames, taken, earned = [draw(at)], [], []
        for t in range(FRAMES - 1):
            given = t < GIVEN - 1
            chosen = RECORDED[: len(starts), t] if given else policy(frames[-1], t)
            speed = 0.5 * speed + STEPS[chosen if given else actions_of(chosen, t)]
            at = np.clip(at + speed, 4, 43)
            frames.append(draw(at))
            taken.append(chosen)
            earned.append((at[:, 0] - 24) / 24)
        return Played(np.stack(frames, 1), np.stack(taken, 1), np.array(earned).T[:, GIVEN - 1 :])

    return play


def draw(at):
    frames = np.full((len(at), 48, 48, 3), 220, np.uint8)
    for frame, (x, y) in zip(frames, at, strict=True):
        frame[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4] = (200, 30, 30)
    return frames


def held(rng, cases):
    return np.repeat(rng.integers(0, 5, (cases, -(-FRAMES // 4))), 4, axis=1)[:, : FRAMES - 1]


RECORDED = held(np.random.default_rng(0), 24)
TRUE = world(lambda chosen, _: chosen)
DEAF = world(lambda chosen, t: RECORDED[: len(chosen), t])
CONTRARY = world(lambda chosen, _: np.array([0, 2, 1, 4, 3])[chosen])


@pytest.fixture(scope="module")
def measured():
    played = world(lambda chosen, _: chosen, np.random.default_rng(1).integers(12, 36, (24, 2)))(replay(RECORDED))
    reader = InverseDynamics.fit(list(played.frames), list(played.actions))
    recorded = RECORDED[:CASES]
    other = recorded.copy()
    other[:, GIVEN - 1 : GIVEN + 1] = (recorded[:, GIVEN - 1 : GIVEN] + 1 + np.arange(CASES)[:, None] % 4) % 5
    policies = {f"always {a}": lambda frames, _, a=a: np.full(len(frames), a) for a in range(5)}

    def of(learned):
        control = measure_control(
            learned, TRUE, given=GIVEN, recorded=recorded, other=other, policies=policies, reader=reader
        )
        return {f.name: f for f in control.figures}, control.returns

    return of


def test_the_true_world_scores_every_ceiling(measured):
    figures, returns = measured(TRUE)
    assert figures["ΔPSNR of actions after 4 frames"].value > 20
    for name in (
        "accuracy of actions read from the dream",
        "action following",
        "counterfactual direction",
        "counterfactual goes the right way",
        "counterfactual gain",
        "policy ranking, Pearson",
        "policy ranking, MMRV",
    ):
        assert figures[name].value == pytest.approx(figures[name].ceiling), name
    assert figures["accuracy of actions read from the dream"].ceiling > 0.6
    assert all(a == b for a, b in returns.values())


def test_a_deaf_world_scores_every_floor(measured):
    figures, _ = measured(DEAF)
    for horizon in (1, 4, 16):
        assert figures[f"ΔPSNR of actions after {horizon} frames"].value == 0.0
    assert figures["counterfactual direction"].value == 0.0
    assert figures["counterfactual gain"].value == 0.0
    assert figures["counterfactual goes the right way"].value == 0.5
    # It pays every policy alike.
    ranking = figures["policy ranking, Pearson"]
    assert ranking.value is None
    assert "spread 0" in ranking.reason


def test_a_world_with_shuffled_actions_is_at_the_readers_floor(measured):
    order = np.random.default_rng(3).permutation(FRAMES)
    shuffled = world(lambda chosen, t: RECORDED[6 + (np.arange(len(chosen)) + order[t]) % 18, t])
    following = measured(shuffled)[0]["action following"]
    assert following.low <= following.floor + 0.1
    assert following.value < 0.25


def test_a_contrary_world_goes_the_wrong_way(measured):
    figures, returns = measured(CONTRARY)
    assert figures["counterfactual direction"].high < 0
    assert figures["counterfactual goes the right way"].value < 0.5
    assert figures["policy ranking, Pearson"].value < 0
    assert returns["always 2"][0] < 0 < returns["always 2"][1]
    assert figures["policy ranking, MMRV"].value > figures["policy ranking, MMRV"].floor > 0


def test_without_a_reader_the_reason_stands():
    recorded = RECORDED[:2]
    other = recorded.copy()
    other[:, GIVEN] = (other[:, GIVEN] + 1) % 5
    small = world(lambda chosen, _: chosen, START[:2])
    control = measure_control(small, small, given=GIVEN, recorded=recorded, other=other, policies={}, reader=None)
    missing = {f.name: f.reason for f in control.figures if f.value is None}
    assert "reader" in missing["action following"]
    assert "policies" in missing["policy ranking, Pearson"]


def test_bad_input_is_named():
    recorded = RECORDED[:CASES]
    kept = {"given": GIVEN, "policies": {}, "reader": None}
    with pytest.raises(MeasureError, match="differ only after"):
        measure_control(TRUE, TRUE, recorded=recorded, other=recorded, **kept)
    early = recorded.copy()
    early[:, 0] = (early[:, 0] + 1) % 5
    with pytest.raises(MeasureError, match="differ only after"):
        measure_control(TRUE, TRUE, recorded=recorded, other=early, **kept)
    late = recorded.copy()
    late[:, GIVEN] = (late[:, GIVEN] + 1) % 5
    with pytest.raises(MeasureError, match="given frames"):
        measure_control(world(lambda c, _: c, START + 3), TRUE, recorded=recorded, other=late, **kept)
