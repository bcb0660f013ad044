"""`worldsim score --suite plausibility | control CHECKPOINT`."""

import json

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console

from envs.violations import makers, pair
from eval.controlled import Control, ControlFigure
from eval.physics.plausibility import pixel_change
from worldsim.cli import card_control, main, policies, score_control, score_phyworld, score_plausibility
from worldsim.cli.demo_cases import FRESH_SEED, GIVEN
from worldsim.cli.worlds import random_actions
from worldsim.simulator import load

VIOLATIONS = {name: maker for name, maker in makers("bounce").items() if name in {"teleport", "vanish"}}


@pytest.fixture
def two_violations(monkeypatch):
    monkeypatch.setattr(score_plausibility, "makers", lambda _: VIOLATIONS)
    monkeypatch.setattr(score_plausibility, "SEVERITIES", (0.1, 1.0))


def test_plausibility_writes_verdicts_of_every_scorer(tiny_bounce, two_violations, tmp_path, capsys):
    arguments = ["score", str(tiny_bounce), "--suite", "plausibility", "--cases", "1", "--out", str(tmp_path)]
    assert main([*arguments, "--scorers", "surprise,untrained,pixel_change,continuity"]) == 0
    shown = capsys.readouterr().out
    saved = json.loads((tmp_path / "scores.json").read_text())
    html = (tmp_path / "report.html").read_text()
    names = {"surprise_mean", "surprise_peak", "untrained_mean", "untrained_peak", "pixel_change", "continuity"}
    assert set(saved["found"]) == names
    for name, found in saved["found"].items():
        assert name in shown
        assert name in html
        assert [(v["violation"], v["severity"], v["n"]) for v in found["verdicts"]][:2] == [
            ("all", None, 4),
            ("all", 0.1, 2),
        ]
        assert len(found["pairs"]) == 4
    # Pixel by pixel what the world renders from the seeds of this run.
    first = score_plausibility.FIRST_SEED + score_plausibility.SEEDS_A_RUN
    for k, (judged, (name, severity)) in enumerate(
        zip(
            saved["found"]["pixel_change"]["pairs"],
            [(n, s) for n in VIOLATIONS for s in score_plausibility.SEVERITIES],
            strict=True,
        )
    ):
        lawful, violated = pair(name, first + k, severity, size=(32, 32))
        assert (judged["violation"], judged["severity"]) == (name, severity)
        for side, record in (("possible", lawful), ("impossible", violated)):
            assert judged[side] == pixel_change(score_plausibility._clip(record))


def test_surprise_is_the_simulators_own_under_one_noise(tiny_bounce, two_violations):
    simulator = load(tiny_bounce)
    found = score_plausibility.measure(simulator, scorers=["surprise"], cases=1, seed=2, console=Console(quiet=True))
    lawful, violated = pair(
        "teleport", score_plausibility.FIRST_SEED + 2 * score_plausibility.SEEDS_A_RUN, 0.1, size=(32, 32)
    )
    judged = found.judged["surprise_mean"][0]
    for value, record in ((judged.possible, lawful), (judged.impossible, violated)):
        alone = simulator.surprise(record.frames, actions=record.actions, text=record.text)
        assert value == pytest.approx(np.mean(alone[1:]), rel=1e-5)


def test_control_writes_every_figure(tiny_bounce, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(score_control, "FIT_CASES", 4)
    assert main(["score", str(tiny_bounce), "--suite", "control", "--cases", "2", "--out", str(tmp_path)]) == 0
    shown, html = capsys.readouterr().out, (tmp_path / "report.html").read_text()
    saved = json.loads((tmp_path / "scores.json").read_text())["found"]
    for name in ("ΔPSNR", "action following", "counterfactual direction", "Pearson", "MMRV"):
        assert any(name in f["name"] for f in saved["figures"])
        assert name in shown
        assert name in html
    # What policies earn in truth is what the world pays.
    env = gym.make("envs:Bounce-v0", size=(32, 32))
    first = FRESH_SEED + 2 * score_control.SEEDS_A_RUN
    paid = []
    for k in range(2):
        actions = random_actions(env.action_space, score_control.FRAMES - 1, first + k)
        actions[GIVEN - 1 :] = 1
        env.reset(seed=first + k)
        paid.append([env.step(a)[1] for a in actions][GIVEN - 1 :])
    assert saved["returns"]["always 1"]["true"] == np.mean(np.sum(paid, axis=1))


def test_the_card_shows_figures_with_a_value_and_the_ends_that_were_measured(monkeypatch):
    kept = {"unit": "", "low": 0.2, "high": 0.4, "count": 9}
    figures = (
        ControlFigure(name="ΔPSNR of actions after 1 frames", value=1.0, floor=0.0, ceiling=None, **kept),
        ControlFigure(name="accuracy of actions read from the dream", value=0.3, floor=0.2, ceiling=0.9, **kept),
        ControlFigure(name="policy ranking, Pearson", value=None, floor=0.0, ceiling=1.0, reason="no spread", **kept),
        ControlFigure(name="counterfactual gain", value=0.3, floor=0.0, ceiling=1.0, **kept),
    )
    asked = []

    def measured(_, *, cases, seed, example):
        assert not example  # nobody looks at it on a card
        asked.append((cases, seed))
        return score_control.Found(Control(figures=figures, returns={}), {})

    monkeypatch.setattr(card_control, "measure", measured)
    rows = {f.name: f.value for f in card_control.control_figures(None, cases=1, seed=5)}
    assert rows == {
        "accuracy of actions read from the dream": 0.3,
        "accuracy of actions read from the dream, shuffled actions": 0.2,
        "accuracy of actions read from the dream, true world": 0.9,
        "counterfactual gain": 0.3,
    }
    card_control.control_figures(None, cases=99, seed=5)
    assert asked == [(2, 5), (card_control.CASES, 5)]


def test_phyworld_has_a_row_for_every_split(tiny_bounce, tmp_path, capsys, monkeypatch):
    some = {"axes": {"train": ("envs:Bounce-v0", "train")}, "templates": score_phyworld.FAMILIES["templates"]}
    monkeypatch.setattr(score_phyworld, "FAMILIES", some)
    assert main(["score", str(tiny_bounce), "--suite", "phyworld", "--cases", "2", "--out", str(tmp_path)]) == 0
    shown, html = capsys.readouterr().out, (tmp_path / "report.html").read_text()
    saved = json.loads((tmp_path / "scores.json").read_text())["found"]
    assert [row["row"]["group"] for row in saved["templates"]] == ["train", "ood_template"]
    assert saved["axes"][0]["beyond"] == 1.0
    for family, rows in saved.items():
        for row in rows:
            assert row["row"]["n"] + row["row"]["undefined"] == 2
            assert f"{family}: {row['row']['group']}" in shown
            assert f"{family}: {row['row']['group']}" in html


def test_the_truth_in_place_of_the_dream_is_at_the_floor():
    frames = np.full((20, 64, 64, 3), 230, np.uint8)
    for t in range(20):
        frames[t, 20:30, 5 + 2 * t : 15 + 2 * t] = (200, 30, 30)
    moved = score_phyworld._moved(frames, frames, 10.0)
    assert moved.error == 0.0
    assert moved.missing == 0.0
    assert moved.floor < 0.05
    gone = frames.copy()
    gone[GIVEN:] = 230
    lost = score_phyworld._moved(gone, frames, 10.0)
    assert lost.missing == 1.0
    assert lost.error > 0.2


def test_a_bounce_policy_steers_by_what_it_sees():
    frame = np.full((32, 32, 3), 255, np.uint8)
    frame[10:13, 4:7] = 0
    for place, push in (((10, 20), 2), ((10, 0), 1), ((0, 5), 3), ((28, 5), 4)):
        seen = frame.copy()
        seen[place[0] : place[0] + 3, place[1] : place[1] + 3] = (255, 0, 0)
        assert policies.push(seen, (255, 0, 0), 1.0) == push
        assert policies.push(seen, (255, 0, 0), -1.0) == {1: 2, 2: 1, 3: 4, 4: 3}[push]
    assert policies.push(frame, (255, 0, 0), 1.0) == 0
    assert policies.push(frame, None, 1.0) == 0


@pytest.mark.parametrize(
    ("extra", "hint"),
    [
        (["--suite", "control", "--cases", "1"], "cases"),
        (["--scorers", "surprize"], "surpri"),
        (["--cases", "0"], "cases"),
        (["--suite", "plausibility,physics"], "alone"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(extra, hint, tiny_bounce, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["score", str(tiny_bounce), "--suite", "plausibility", *extra, "--out", str(out)]) == 2
    assert hint in capsys.readouterr().err
    assert not out.exists()
