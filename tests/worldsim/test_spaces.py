"""Action spaces: round trips through plain data, and vectors, for any space."""

import json

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from worldsim.errors import ActionError, ConfigError
from worldsim.spaces import action_dim, action_vectors, space_from_dict, space_to_dict, stack_actions


@st.composite
def boxes(draw):
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=0, max_size=2)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    low = draw(st.floats(-100, 99)) if draw(st.booleans()) else -np.inf
    high = low + draw(st.floats(0.5, 100)) if np.isfinite(low) and draw(st.booleans()) else np.inf
    return spaces.Box(low, high, shape, dtype)


LEAVES = st.one_of(
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 6), st.integers(-3, 3)),
    st.lists(st.tuples(st.integers(1, 4), st.integers(-3, 3)), min_size=1, max_size=3).map(
        lambda parts: spaces.MultiDiscrete([n for n, _ in parts], start=[first for _, first in parts])
    ),
    st.builds(spaces.MultiBinary, st.integers(1, 4)),
    boxes(),
)
SPACES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(spaces.Dict, st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3)),
        st.builds(spaces.Tuple, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=4,
)


@settings(max_examples=60)
@given(SPACES)
def test_spaces_survive_plain_data(space):
    assert space_from_dict(json.loads(json.dumps(space_to_dict(space)))) == space


@settings(max_examples=60)
@given(SPACES, st.integers(1, 4), st.integers(0, 2**31))
def test_every_sample_of_every_space_becomes_a_vector(space, count, seed):
    space.seed(seed)
    samples = [space.sample() for _ in range(count)]
    vectors = action_vectors(space, stack_actions(space, samples), 1)
    assert vectors.shape == (count, action_dim(space))
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    # One by one and all at once agree.
    for row, sample in zip(vectors, samples, strict=True):
        np.testing.assert_array_equal(action_vectors(space, stack_actions(space, [sample]), 1)[0], row)


@given(st.integers(1, 8), st.integers(-5, 5), st.data())
def test_discrete_actions_are_one_hot(n, start, data):
    index = data.draw(st.integers(0, n - 1))
    vector = action_vectors(spaces.Discrete(n, start=start), np.array([start + index]), 1)[0]
    assert vector.tolist() == [float(i == index) for i in range(n)]


@given(st.floats(-50, 49), st.floats(0.5, 50), st.floats(0, 1))
def test_bounded_boxes_are_scaled_to_plus_minus_one(low, width, share):
    space = spaces.Box(low, low + width, (1,), np.float64)
    vector = action_vectors(space, np.array([[low + share * width]]), 1)
    np.testing.assert_allclose(vector, [[2 * share - 1]], atol=1e-4)


def test_unbounded_boxes_pass_as_they_are():
    space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    np.testing.assert_array_equal(action_vectors(space, np.array([[3.0, -7.0]]), 1), [[3.0, -7.0]])


def test_parts_of_a_dict_follow_the_order_of_the_space():
    space = spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (1,))})
    vector = action_vectors(space, {"b": np.array([[0.5]]), "a": np.array([1])}, 1)
    np.testing.assert_allclose(vector, [[0, 1, 0.5]])


BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
MIXED = spaces.Dict({"go": spaces.Discrete(2), "turn": BOX})


@pytest.mark.parametrize(
    ("space", "actions"),
    [
        (spaces.Discrete(3), np.array([3])),
        (spaces.Discrete(3), np.array([-1])),
        (spaces.Discrete(3), np.array([0.5])),
        (spaces.Discrete(3), np.array([[0]])),
        (spaces.Discrete(3), np.array(["left"])),
        (spaces.Discrete(3, start=2), np.array([1])),
        (spaces.MultiDiscrete([2, 3]), np.array([[1, 3]])),
        (spaces.MultiDiscrete([2, 3]), np.array([[1]])),
        (spaces.MultiBinary(2), np.array([[0, 2]])),
        (BOX, np.array([[0.0, 1.5]])),
        (BOX, np.array([[np.nan, 0.0]])),
        (BOX, np.array([[np.inf, 0.0]])),
        (BOX, np.array([[0.0]])),
        (MIXED, {"go": np.array([0])}),
        (MIXED, {"go": np.array([0]), "turn": np.zeros((1, 2)), "fly": np.array([0])}),
        (MIXED, np.array([0])),
        (spaces.Tuple([spaces.Discrete(2)]), [np.array([0]), np.array([0])]),
        (spaces.Tuple([spaces.Discrete(2)]), None),
        (spaces.Tuple([spaces.Discrete(2)]), np.array(0)),
        (spaces.Discrete(2), np.array([True])),
        (spaces.MultiDiscrete([2, 3]), np.array([[True, False]])),
        (BOX, np.array([[True, False]])),
        (BOX, [[0.0, 0.0], [0.0]]),
        (spaces.Discrete(2), np.array([1j])),
    ],
    ids=str,
)
def test_actions_outside_the_space_are_refused(space, actions):
    with pytest.raises(ActionError, match="action_space"):
        action_vectors(space, actions, 1)


def test_unsupported_spaces_are_refused():
    with pytest.raises(ConfigError, match="Discrete, MultiDiscrete"):
        space_to_dict(spaces.Text(5))
    with pytest.raises(ConfigError, match="known space type"):
        space_from_dict({"type": "Graph"})
