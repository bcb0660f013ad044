"""How well a learned world obeys: the rows of its card, beside their floors and ceilings where those are measured."""

from collections.abc import Iterator

from worldsim.cli.card_rows import Figure
from worldsim.cli.score_control import measure
from worldsim.simulator import Simulator

# Its returns and changes settle with few episodes; every episode is dreamt a dozen times.
CASES = 16
# The card measures it itself, further.
LEFT_OUT = "ΔPSNR"
# Ends that are measured too, and not 0, ½ or 1 by definition.
MEASURED_ENDS = {
    "accuracy of actions read from the dream": ("shuffled actions", "true world"),
    "counterfactual direction": ("another episode's change", None),
    "policy ranking, MMRV": ("policies shuffled", None),
}


def control_figures(simulator: Simulator, *, cases: int, seed: int) -> list[Figure]:
    """The figures of `worldsim score --suite control`, but for those without a value, on 2 to `CASES` episodes."""
    return list(_rows(simulator, max(2, min(cases, CASES)), seed))


def _rows(simulator: Simulator, cases: int, seed: int) -> Iterator[Figure]:
    for found in measure(simulator, cases=cases, seed=seed, example=False).control.figures:
        if found.value is None or found.name.startswith(LEFT_OUT):
            continue
        assert found.low is not None
        assert found.high is not None
        yield Figure(
            name=found.name, unit=found.unit, value=found.value, low=found.low, high=found.high, count=found.count
        )
        for label, end in zip(MEASURED_ENDS.get(found.name, ()), (found.floor, found.ceiling), strict=False):
            if label is not None and end is not None:
                yield Figure(
                    name=f"{found.name}, {label}", unit=found.unit, value=end, low=end, high=end, count=found.count
                )
