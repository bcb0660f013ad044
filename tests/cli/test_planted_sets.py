"""Pairs of sets for the cards of set distances: what is harmless befalls both, defects the second alone."""

from eval.sets import SET_EVALUATORS
from worldsim.cli import planted_sets
from worldsim.cli.planted_sets import Group, groups, trials


def test_no_scene_is_in_two_sets():
    planned = groups(pairs=3, size=64, first_seed=7)
    scenes = [g.seed + i for g in planned for i in range(2 * g.clips)]
    assert len(set(scenes)) == len(scenes)


def test_a_pair_of_sets_gives_readings_of_every_kind_for_both_distances(monkeypatch):
    monkeypatch.setattr(planted_sets, "NUISANCES", ("exposure",))
    found = trials(Group(seed=5, size=32, clips=3))
    by_kind = {k: {t.name for t in found if t.kind == k} for k in ("lawful", "violation", "nuisance", "degenerate")}
    assert by_kind["nuisance"] == {"exposure", "codec", "size"}
    assert by_kind["degenerate"] == {"static", "blurred", "noise", "shuffled"}
    for name, evaluator in SET_EVALUATORS.items():
        own = [t for t in found if name in t.lawful]
        assert {t.name for t in own if t.kind == "violation" and t.mode == name} == set(evaluator.claims)
        assert {t.name for t in own if t.mode == "beyond"} == {"alternation", "stutter", "laws"}
        # One real and one lawful set stand behind every trial.
        assert len({t.lawful[name].badness for t in own}) == 1
        noisy = next(t for t in own if t.name == "noise" and t.kind == "degenerate")
        assert noisy.changed[name].badness > noisy.lawful[name].badness
