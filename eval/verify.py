"""`verify`: measure a saved score again; it is reproduced, it differs, or it is refused with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from eval.clip import Clip
from eval.score import Score
from eval.suite import Report, load_evaluators

# Other processors add in another order.
RELATIVE_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one saved score.

    Attributes:
        name: Of the evaluator.
        verdict: "reproduced": the same status and value again; "differs": another; "refused": what would be measured
            now is not what was measured then.
        reason: Why it differs or was refused; empty where it was reproduced.
    """

    name: str
    verdict: Literal["reproduced", "differs", "refused"]
    reason: str = ""


def verify(
    saved: Report, clip: Clip, config: Mapping[str, Mapping[str, Any]] | None = None, *, any_versions: bool = False
) -> tuple[Verdict, ...]:
    """Measures every score of a saved report again.

    Args:
        saved: From `Report.load`.
        clip: The clip that it was made of.
        config: Overrides of parameters as they were then; scores keep a hash of them only.
        any_versions: Measure even if versions of packages differ, instead of refusing.

    Returns:
        A verdict for each score, in the report's order. Input, evaluator, version, code, configuration and versions of
        packages must be the same, or the score is refused; then status and value must be, to a relative 1e-6.
    """
    known = load_evaluators()
    verdicts = []
    for name, score in saved.items():
        if name not in known:
            verdicts.append(Verdict(name=name, verdict="refused", reason="there is no such evaluator"))
        elif clip.digest != score.provenance.get("input"):
            verdicts.append(Verdict(name=name, verdict="refused", reason="the clip is another"))
        else:
            now = known[name](clip, **(config or {}).get(name, {}))
            verdicts.append(_verdict(score, now, any_versions=any_versions))
    return tuple(verdicts)


def _verdict(then: Score, now: Score, *, any_versions: bool) -> Verdict:
    ours = ("evaluator", "code", "config", "input")
    keys = ours if any_versions else sorted({*then.provenance, *now.provenance})
    changed = [k for k in keys if then.provenance.get(k) != now.provenance.get(k)]
    if changed:
        reason = "; ".join(f"{k}: {then.provenance.get(k)} then, {now.provenance.get(k)} now" for k in changed)
        return Verdict(name=then.name, verdict="refused", reason=reason)
    if then.status != now.status:
        return Verdict(name=then.name, verdict="differs", reason=f"status: {then.status} then, {now.status} now")
    if then.value is not None and not np.isclose(then.value, now.value or 0.0, rtol=RELATIVE_TOLERANCE, atol=1e-12):
        return Verdict(name=then.name, verdict="differs", reason=f"value: {then.value} then, {now.value} now")
    return Verdict(name=then.name, verdict="reproduced")
