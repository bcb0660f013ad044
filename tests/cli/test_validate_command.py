"""`worldsim validate --check`: a small sample against the shipped cards."""

from dataclasses import replace

from eval.cards import load_card
from worldsim.cli import main, validate

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
