"""Do the cards that ship still describe the code that ships?"""

import json

import pytest

from eval.cards import CARDS_DIR, disagreements, load_card
from eval.fingerprint import fingerprint
from eval.physics.evidence import Z_ALARM
from eval.sets import SET_EVALUATORS
from eval.suite import load_evaluators
from worldsim.cli import planted
from worldsim.cli.planted import Job

CARDS = sorted(path.stem for path in CARDS_DIR.glob("*.json"))
# Two laws, each on pairs that take a second to make and to read.
REMEASURED = {"continuity": "teleport", "rigidity": "shape_swap"}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_of_the_present_code(name):
    card, evaluator = load_card(name), {**load_evaluators(), **SET_EVALUATORS}[name]
    assert card is not None
    assert card.evaluator == f"{name}@{evaluator.version}"
    assert card.provenance["code"] == fingerprint(evaluator.measure), f"older than the code: worldsim validate {name}"
    assert card.figures["claims"] == list(evaluator.claims)
    assert card.passed == (not card.failures)


@pytest.mark.parametrize("name", REMEASURED)
def test_the_first_pairs_of_a_card_measure_the_same_again(name):
    card, law, claim = load_card(name), load_evaluators()[name], REMEASURED[name]
    assert card is not None
    severity, size = card.provenance["requirements"]["severity"], 64
    above = 0
    for seed, lawful, violated in card.figures["samples"][claim]:
        pair = planted._pair(Job("bounce", "violation", claim, seed, size), severity)
        found = [law(planted._clip(record, "pixels")).value for record in pair]
        # Other versions of OpenCV and SciPy round differently.
        assert found == pytest.approx([lawful, violated], rel=0.02, abs=0.1)
        above += violated > Z_ALARM
    assert above >= 0.5 * len(card.figures["samples"][claim]) > 0


def test_the_check_notices_other_code_and_contradicting_figures():
    shipped = load_card("continuity")
    assert shipped is not None
    assert disagreements(shipped, shipped) == []
    worse = json.loads(json.dumps(vars(shipped)))
    worse["provenance"]["code"] = "0" * 16
    worse["figures"]["violations"]["teleport"]["by_severity"]["0.3"]["auroc"] = [0.5, 0.4, 0.6]
    worse["figures"]["lawful"] |= {"alarms": 40, "alarm_rate_interval": [0.08, 0.14]}
    found = " ".join(disagreements(shipped, type(shipped)(**worse)))
    for words in ("another version", "teleport: AUROC 0.50", "alarms on 40"):
        assert words in found
