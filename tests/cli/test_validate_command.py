"""`worldsim validate --check`: a small sample against the shipped cards."""

from collections import Counter
from dataclasses import replace

from eval.cards import load_card
from worldsim.cli import main, planted_room, validate

SMALL = ["validate", "--check", "--evaluators", "friction", "--pairs", "2", "--lawful", "0"]


def test_a_shipped_card_holds_on_a_small_sample(capsys):
    assert main(SMALL) == 0
    assert "sliding_reversal" in capsys.readouterr().out


def test_a_card_of_other_code_is_refused(monkeypatch, tmp_path, capsys):
    card = load_card("friction")
    assert card is not None
    old = replace(card, provenance={**card.provenance, "code": "0" * 16})
    monkeypatch.setattr(validate, "load_card", lambda name: old)
    assert main([*SMALL, "--work", str(tmp_path)]) == 2
    assert "another version" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 2


def test_an_unknown_evaluator_is_named(capsys):
    assert main(["validate", "--check", "--evaluators", "frction"]) == 2
    assert "friction" in capsys.readouterr().err


def test_geometry_is_judged_on_clips_that_its_measures_are_made_for():
    def sizes(*evaluators):
        return Counter(j.size for j in planted_room.jobs(pairs=4, size=64, first_seed=0, evaluators=evaluators))

    # Eight violations and the nuisances, half of the seeds at 128, three violations at 256.
    assert sizes("residual_flow") == {64: 4 * 9, 128: 2 * 9, 256: 2 * 4}
    assert sizes("sfm") == {128: 2 * 4, 256: 6 * 4}
    planned = planted_room.jobs(pairs=4, size=64, first_seed=0, evaluators=["revisit"])
    assert {planted_room.mode(j) for j in planned} == {planted_room.deciding_mode("revisit", 64)}
