"""A card's rows and the table of aims it begins with."""

import numpy as np
import pytest

from worldsim.cli.card_aims import AIMS, Aim, aims_table
from worldsim.cli.card_rows import Figure, ratio_figure


def figure(name, value, low, high):
    return Figure(name=name, unit="", value=value, low=low, high=high, count=24)


@pytest.mark.parametrize(
    ("bound", "value", "low", "high", "verdict"),
    [
        ("at least", 0.97, 0.96, 0.99, "yes"),
        ("at least", 0.97, 0.90, 0.99, "yes, within the interval"),
        ("at least", 0.90, 0.80, 0.96, "no, within the interval"),
        ("at least", 0.90, 0.80, 0.94, "no"),
        ("at most", 0.90, 0.80, 0.94, "yes"),
        ("at most", 0.90, 0.80, 0.99, "yes, within the interval"),
        ("at most", 0.97, 0.96, 0.99, "no"),
    ],
)
def test_a_verdict_says_whether_the_interval_leaves_it_open(bound, value, low, high, verdict):
    assert Aim(figure="x", bound=bound, target=0.95).verdict(figure("x", value, low, high)) == verdict


def test_every_aim_has_a_row_and_what_is_not_measured_is_said():
    first, *others = AIMS["Bounce"]
    table = aims_table("Bounce", [figure(first.figure, 1.5, 1.2, 1.8)])
    rows = table.splitlines()[2:]
    assert rows[0] == f"| {first.figure} | at most 2 | 1.500 | 1.200 to 1.800 | yes |"
    assert rows[1:] == [f"| {a.figure} | at least {a.target:g} | not measurable | | |" for a in others]


def test_a_ratio_is_that_of_means_resampled_together():
    rng = np.random.default_rng(0)
    floors = rng.uniform(1.0, 9.0, 20)
    found = ratio_figure("x", (3.0 * floors).tolist(), floors.tolist(), rng)
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 3.0, 3.0))
    loose = ratio_figure("x", rng.permutation(3.0 * floors).tolist(), floors.tolist(), rng)
    assert loose.value == pytest.approx(3.0)
    assert loose.low < 2.9 < 3.1 < loose.high
