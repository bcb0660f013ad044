import numpy as np
import pytest
from golden import load
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import control
from eval.errors import MeasureError

CASES, ARRAYS = load("distribution")
TABLES = CASES["outputs"]["rank_tables"]


def tables(name):
    return ARRAYS[f"rank_{name}_sim"], ARRAYS[f"rank_{name}_real"]


@pytest.mark.parametrize("name", TABLES)
def test_policy_ranking_equals_the_published_code(name):
    simulated, real = tables(name)
    expected = TABLES[name]
    assert control.mean_maximum_rank_violation(simulated, real) == pytest.approx(expected["mmrv"], abs=1e-12)
    swapped = control.mean_maximum_rank_violation(real, simulated)
    assert swapped == pytest.approx(expected["mmrv_with_arguments_swapped"], abs=1e-12)
    tolerance = 1e-7 if name == "constant_offset" else 1e-12
    assert control.pearson(simulated, real) == pytest.approx(expected["pearson"], abs=tolerance)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=3, max_size=9), st.randoms(use_true_random=False))
def test_fixed_ranking_is_symmetric_in_order_and_blind_to_monotone_maps(real, random):
    real = np.array(real, float)
    simulated = np.array([random.randint(0, 6) for _ in real], float)
    found = control.mean_maximum_rank_violation(simulated, real, fixed=True)
    order = np.array(random.sample(range(len(real)), len(real)))
    assert control.mean_maximum_rank_violation(simulated[order], real[order], fixed=True) == pytest.approx(found)
    assert control.mean_maximum_rank_violation(simulated**3 + 1, real, fixed=True) == pytest.approx(found)
    # Turning both worlds upside down changes no order; the published code disagrees where there are ties.
    assert control.mean_maximum_rank_violation(-simulated, -real, fixed=True) == pytest.approx(found)
    assert control.mean_maximum_rank_violation(real, real, fixed=True) == 0


def test_fixed_ranking_counts_a_simulator_that_cannot_tell_as_half_a_violation():
    real = np.array([0.0, 1.0])
    assert control.mean_maximum_rank_violation([1.0, 0.0], real, fixed=True) == 1.0
    assert control.mean_maximum_rank_violation([5.0, 5.0], real, fixed=True) == 0.5


def test_fixed_pearson_is_exact_and_refuses_what_has_no_correlation():
    x = np.random.default_rng(0).normal(size=9)
    assert control.pearson(2 * x + 1, x, fixed=True) == pytest.approx(1.0, abs=1e-15)
    assert control.pearson(x[::-1], x, fixed=True) == pytest.approx(np.corrcoef(x[::-1], x)[0, 1], abs=1e-14)
    for simulated, real in ((np.ones(4), np.arange(4.0)), ([1.0], [2.0]), ([1.0, 2.0], [2.0, 1.0])):
        with pytest.raises(MeasureError, match="three policies"):
            control.pearson(simulated, real, fixed=True)
    with pytest.raises(MeasureError):
        control.pearson([1.0, np.nan, 2.0], np.arange(3.0))


def test_interval_of_the_correlation_covers():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(300):
        x = rng.normal(size=12)
        y = 0.6 * x + 0.8 * rng.normal(size=12)
        a, b = rng.normal(size=2)
        low, high = control.rank_policies(a + np.abs(b) * y, x, resamples=1).interval
        covered += low <= 0.6 <= high
    assert 0.9 <= covered / 300 <= 0.985


def disc(centre, size=48, radius=4.0, colour=(20, 20, 20)):
    """An anti-aliased disc on a plain ground, with a red bystander."""
    grid = np.arange(size) + 0.5
    frame = np.full((size, size, 3), 230.0)
    for (x, y), rgb in ((centre, colour), ((12.0, 36.0), (220, 60, 60))):
        inside = np.clip(radius - np.hypot(grid[None] - x, grid[:, None] - y) + 0.5, 0, 1)[..., None]
        frame = frame * (1 - inside) + inside * np.array(rgb)
    return np.round(frame).astype(np.uint8)


PUSH = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)], float)


def roll(actions, start=(24.0, 20.0), obeys=None, force=0.5):
    """Frames of a disc that actions push against a drag; `obeys` are the actions that it really takes."""
    taken = actions if obeys is None else obeys
    position, velocity, frames = np.array(start), np.zeros(2), [disc(start)]
    for action in taken:
        velocity = 0.9 * velocity + force * (PUSH[action] if np.ndim(action) == 0 else np.asarray(action))
        position = position + velocity
        velocity = np.where((position < 6) | (position > 42), -velocity, velocity)
        position = np.clip(position, 6, 42)
        frames.append(disc(position))
    return np.stack(frames)


def episodes(rng, count, length=24, share=1.0, continuous=False):
    """Videos and commanded actions; each action is obeyed with probability `share`, else another is taken."""
    videos, commands = [], []
    for _ in range(count):
        draw = (lambda: rng.uniform(-1, 1, (length, 2))) if continuous else (lambda: rng.integers(0, 5, length))
        command, other = draw(), draw()
        kept = rng.random(length) < share
        obeys = np.where(kept[:, None] if continuous else kept, command, other)
        videos.append(roll(command, rng.uniform(12, 36, 2), obeys))
        commands.append(command)
    return videos, commands


@pytest.fixture(scope="module")
def reader():
    return control.InverseDynamics.fit(*episodes(np.random.default_rng(0), 24))


@pytest.fixture(scope="module")
def held_out():
    return episodes(np.random.default_rng(1), 10)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_following_is_the_share_of_actions_that_the_dream_obeys(reader, held_out, share):
    found = control.action_following(reader, held_out, episodes(np.random.default_rng(2), 16, share=share))
    assert found.real > 0.8
    assert found.shuffled == pytest.approx(0.2, abs=0.03)
    assert found.following == pytest.approx(share, abs=0.1)
    assert found.interval[0] <= found.following <= found.interval[1]


def test_continuous_actions_are_read_as_explained_variance():
    rng = np.random.default_rng(3)
    model = control.InverseDynamics.fit(*episodes(rng, 24, continuous=True))
    real = episodes(rng, 8, continuous=True)
    obeys, ignores = (episodes(rng, 12, share=s, continuous=True) for s in (1.0, 0.0))
    assert control.action_following(model, real, obeys).following == pytest.approx(1.0, abs=0.1)
    assert control.action_following(model, real, ignores).following == pytest.approx(0.0, abs=0.1)


def test_a_still_dream_follows_nothing(reader, held_out):
    videos, actions = episodes(np.random.default_rng(4), 8)
    still = [np.repeat(v[:1], len(v), axis=0) for v in videos]
    assert abs(control.action_following(reader, held_out, (still, actions)).following) < 0.12


def test_reading_refuses_what_it_cannot_learn_from(reader, held_out):
    videos, actions = held_out
    with pytest.raises(MeasureError, match="T-1"):
        control.InverseDynamics.fit(videos, [a[:-1] for a in actions])
    with pytest.raises(MeasureError, match="vary"):
        control.InverseDynamics.fit(videos, [np.zeros(24, int)] * len(videos))
    with pytest.raises(MeasureError):
        control.InverseDynamics.fit([], [])
    with pytest.raises(MeasureError):
        control.InverseDynamics.fit([videos[0][:1]], [actions[0][:0]])
    still = [np.repeat(v[:1], len(v), axis=0) for v in videos]
    rng = np.random.default_rng(5)
    with pytest.raises(MeasureError, match="read from real video"):
        # Every prediction on still video is the same: shuffling changes nothing on average, so no scale exists.
        control.action_following(reader, (still, [np.full(24, 9)] * len(still)), held_out, rng=rng)


def test_delta_psnr_has_its_closed_form_and_is_zero_where_actions_do_not_matter():
    truth = np.full((4, 8, 8, 3), 100, np.uint8)
    found = control.delta_psnr(truth, truth + np.uint8(2), truth + np.uint8(20))
    np.testing.assert_allclose(found, 20.0, rtol=1e-12)
    np.testing.assert_array_equal(control.delta_psnr(truth, truth + np.uint8(2), truth + np.uint8(2)), 0)
    np.testing.assert_array_equal(control.delta_psnr(truth, truth, truth), 0)
    with pytest.raises(MeasureError):
        control.delta_psnr(truth, truth[:3], truth)


def test_counterfactual_response_knows_direction_size_and_leak():
    actions = np.zeros(12, int)
    right, left = actions.copy(), actions.copy()
    right[4:], left[4:] = 2, 1
    truth, changed, opposite = roll(actions), roll(right), roll(left)
    same = control.counterfactual_response(truth, changed, truth, changed, branch=4)
    assert (same.direction, same.gain, same.leak) == pytest.approx((1, 1, 0))
    assert np.isnan(same.per_frame[:5]).all()
    np.testing.assert_allclose(same.per_frame[5:], 1.0)
    ignored = control.counterfactual_response(truth, changed, truth, truth, branch=4)
    assert (ignored.direction, ignored.gain) == (0, 0)
    wrong = control.counterfactual_response(truth, changed, truth, opposite, branch=4)
    assert wrong.direction < 0.6
    assert wrong.per_frame[5] < 0  # the first step goes the opposite way before the discs part
    leaking = control.counterfactual_response(truth, changed, truth, changed + np.uint8(3), branch=4)
    assert leaking.leak > 0.05


def test_counterfactual_response_takes_states_and_refuses_no_change():
    path = np.linspace(0, 1, 8)[:, None] * [1.0, 0.0]
    found = control.counterfactual_response(np.zeros((8, 2)), path, np.zeros((8, 2)), -0.5 * path, branch=0)
    assert (found.direction, found.gain) == pytest.approx((-1, 0.5))
    with pytest.raises(MeasureError, match="no difference"):
        control.counterfactual_response(path, path, path, path, branch=0)
    with pytest.raises(MeasureError, match="branch"):
        control.counterfactual_response(path, path, path, path, branch=7)
    with pytest.raises(MeasureError, match="one shape"):
        control.counterfactual_response(path, path[:4], path, path, branch=0)
