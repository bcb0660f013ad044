"""A saved score is reproduced, found to differ, or refused with the reason."""

from dataclasses import replace

import numpy as np
import pytest

from eval import Clip, Report, score, verify

FRAMES = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
CLIP = Clip(frames=FRAMES, fps=10, name="noise")


@pytest.fixture
def saved(tmp_path):
    score(CLIP, ("flicker", "freeze", "psnr")).save(tmp_path / "report.json")
    return Report.load(tmp_path / "report.json")


def with_(report, name, **changed):
    return replace(report, scores={**report.scores, name: replace(report[name], **changed)})


def verdicts(report, clip=CLIP, **options):
    return {v.name: (v.verdict, v.reason) for v in verify(report, clip, **options)}


def test_the_same_clip_and_code_reproduce_every_score_also_those_without_a_value(saved):
    assert saved["psnr"].status == "missing"
    assert verdicts(saved) == dict.fromkeys(("flicker", "freeze", "psnr"), ("reproduced", ""))


def test_another_value_or_status_differs(saved):
    found = verdicts(with_(saved, "flicker", value=saved["flicker"].value + 1e-3))
    assert found["flicker"][0] == "differs"
    assert found["freeze"][0] == "reproduced"
    assert verdicts(with_(saved, "freeze", status="inapplicable", value=None))["freeze"][0] == "differs"


def test_another_input_code_configuration_or_package_is_refused(saved):
    other = Clip(frames=FRAMES[::-1], fps=10)
    assert {v for v, _ in verdicts(saved, other).values()} == {"refused"}
    for key in ("code", "config", "numpy"):
        then = {**saved["flicker"].provenance, key: "0"}
        verdict, reason = verdicts(with_(saved, "flicker", provenance=then))["flicker"]
        assert verdict == "refused"
        assert reason.startswith(f"{key}: 0 then")
    assert verdicts(with_(saved, "flicker", provenance=then), any_versions=True)["flicker"][0] == "reproduced"
    unknown = replace(saved, scores={"gone": saved["flicker"]})
    assert verdicts(unknown)["gone"] == ("refused", "there is no such evaluator")
    assert verdicts(saved, config={"psnr": {"ceiling_db": 90.0}})["psnr"][0] == "refused"
