"""From readings to a validity card: figures with intervals, and whether they are good enough.

What a card must show is listed in `Requirements`; an evaluator whose card does not pass is left out of every aggregate
(`eval.suite`). Nothing is tuned on the clips that judge: evaluators raise alarms at thresholds that follow from their
noise model, and the card reports what came of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from eval.cards import Card
from eval.errors import EvalError
from eval.fingerprint import fingerprint
from eval.physics.plausibility import auroc
from eval.score import Evaluator, versions
from eval.suite import write_json
from eval.uncertainty import wilson_interval
from eval.validity import Kind, Reading, Trial

DETECTED_SHARE = 0.9
SEED_GROUPS = 4
MIN_GROUP = 4
# Pairs of each claim whose readings the card carries, for a check that takes seconds.
SAMPLES = 4


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What a card must show.

    Attributes:
        severity: The severity at which claims are judged, on the violations' own scale from 0 to 1.
        auroc: Least AUROC on every claimed violation at that severity, over pairs whose lawful clip can be measured.
        pairs: Least number of such pairs.
        nuisance_auroc: How far the AUROC of a nuisance may be from ½, if its interval does not contain ½.
        false_alarms: Largest share of lawful clips with an alarm.
        ceiling: Least mean normalised value of lawful clips.
        beaten: Largest share of degenerate clips that score strictly better than the clip that they were made from.
        spearman: Least rank correlation between severity and value on every claimed violation.
    """

    severity: float = 0.3
    auroc: float = 0.95
    pairs: int = 10
    nuisance_auroc: float = 0.1
    false_alarms: float = 0.01
    ceiling: float = 0.95
    beaten: float = 0.1
    spearman: float = 0.5


def make_card(
    evaluator: Evaluator,
    trials: Sequence[Trial],
    *,
    mode: str,
    baselines: Sequence[str] = (),
    requirements: Requirements | None = None,
    parity: str = "no published reference",
) -> Card:
    """The card of one evaluator.

    Args:
        evaluator: Whose.
        trials: From `measure`.
        mode: The mode that decides; the others are reported beside.
        baselines: Names of quality measures in the trials, for the baseline that must stay near ½ on the same pairs.
        requirements: What must be shown; the defaults if None.
        parity: How far the evaluator agrees with a published reference, and where that is tested.

    Raises:
        EvalError: If no trial has this mode and evaluator.
    """
    required = requirements or Requirements()
    name = evaluator.name
    own = [t for t in trials if t.mode == mode and name in t.lawful]
    if not own:
        raise EvalError(
            expected=f"trials of {name} in mode {mode!r}", got="none", remedy="Measure with a suite that contains it."
        )
    figures = _figures(own, name)
    failures = _failures(evaluator, figures, required)
    figures["claims"] = list(evaluator.claims)
    figures["parity"] = parity
    figures["samples"] = {c: _samples(own, name, c, required.severity) for c in evaluator.claims}
    figures["baselines"] = {
        b: {v: _violation_at(own, b, v, required.severity)["auroc"] for v in _with_matched(evaluator, figures)}
        for b in baselines
        if any(b in t.lawful for t in own)
    }
    others = sorted({t.mode for t in trials if t.mode != mode and name in t.lawful})
    figures["other_modes"] = {
        m: _figures([t for t in trials if t.mode == m and name in t.lawful], name) for m in others
    }
    return Card(
        evaluator=f"{name}@{evaluator.version}",
        passed=not failures,
        failures=tuple(failures),
        figures=figures,
        provenance={
            "code": fingerprint(evaluator.measure),
            "mode": mode,
            "seeds": sorted({t.seed for t in own}),
            "requirements": vars(required),
            **versions(),
        },
    )


def save_card(card: Card, directory: Path) -> Path:
    """Writes a card where `eval.cards.load_card` finds it."""
    path = directory / f"{card.evaluator.split('@')[0]}.json"
    write_json(path, vars(card))
    return path


# --- figures ----------------------------------------------------------------------------------------------------------


def _figures(own: Sequence[Trial], name: str) -> dict[str, Any]:
    lawful = [t.lawful[name] for t in own if t.kind == "lawful"]
    return {
        "lawful": _lawful_figures(lawful),
        "violations": {v: _violation_figures(own, name, v) for v in _names(own, "violation")},
        "nuisances": {n: _nuisance_figures(own, name, n) for n in _names(own, "nuisance")},
        "degenerate": {d: _degenerate_figures(own, name, d) for d in _names(own, "degenerate")},
    }


def _with_matched(evaluator: Evaluator, figures: Mapping[str, Any]) -> list[str]:
    """What an evaluator claims, and the same beside lawful clips of equal brightness, where such pairs were planted."""
    return [n for c in evaluator.claims for n in (c, f"{c}_matched") if n == c or n in figures["violations"]]


def _names(own: Sequence[Trial], kind: Kind) -> list[str]:
    return sorted({t.name for t in own if t.kind == kind})


def _lawful_figures(readings: Sequence[Reading]) -> dict[str, Any]:
    normalised = np.array([r.normalised for r in readings if r.normalised is not None])
    badness = np.array([r.badness for r in readings if r.badness is not None])
    alarms = [r.alarm for r in readings if r.alarm is not None]
    return {
        "clips": len(readings),
        "measured": len(badness),
        "normalised_mean": float(normalised.mean()) if len(normalised) else None,
        "normalised_spread": float(normalised.std(ddof=1)) if len(normalised) > 1 else None,
        "value_spread": float(badness.std(ddof=1)) if len(badness) > 1 else None,
        "alarms": sum(alarms),
        "alarm_rate": sum(alarms) / len(alarms) if alarms else None,
        "alarm_rate_interval": wilson_interval(sum(alarms), len(alarms)) if alarms else None,
    }


def _violation_figures(own: Sequence[Trial], name: str, violation: str) -> dict[str, Any]:
    severities = sorted({t.severity for t in own if t.kind == "violation" and t.name == violation})
    by_severity = {f"{s:g}": _violation_at(own, name, violation, s) for s in severities}
    detected = [s for s in severities if (by_severity[f"{s:g}"]["detected"] or 0.0) >= DETECTED_SHARE]
    chosen = [t for t in own if t.kind == "violation" and t.name == violation and _occasion(t, name)]
    # The lawful twin stands for severity 0.
    levels = np.array([0.0] * len(chosen) + [t.severity for t in chosen])
    negative, positive = _badness(chosen, name)
    values = np.concatenate([negative, positive])
    varied = len(chosen) >= 3 and len(np.unique(levels)) > 1 and len(np.unique(values)) > 1
    return {
        "by_severity": by_severity,
        "smallest_detected": min(detected) if detected else None,
        "spearman": _spearman(levels, values) if varied else None,
    }


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation: Pearson's of the ranks, ties averaged."""
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


def _violation_at(own: Sequence[Trial], name: str, violation: str, severity: float) -> dict[str, Any]:
    at = [
        t
        for t in own
        if t.kind == "violation" and t.name == violation and math.isclose(t.severity, severity) and name in t.lawful
    ]
    chosen = [t for t in at if _occasion(t, name)]
    negative, positive = _badness(chosen, name)
    return {
        "pairs": len(at),
        "measured": len(chosen),
        "auroc": _area(negative, positive),
        "seed_spread": _seed_spread(chosen, name),
        "detected": _detected(chosen, name, negative, positive),
    }


def _seed_spread(chosen: Sequence[Trial], name: str) -> float | None:
    """Standard deviation of the AUROC over `SEED_GROUPS` groups of seeds; None where a group would be too small."""
    groups = [sorted(chosen, key=lambda t: t.seed)[g::SEED_GROUPS] for g in range(SEED_GROUPS)]
    if min(map(len, groups)) < MIN_GROUP:
        return None
    return float(np.std([auroc(*_badness(group, name)).value for group in groups], ddof=1))


def _samples(own: Sequence[Trial], name: str, violation: str, severity: float) -> list[list[float | None]]:
    """Seed, and the badness of the lawful and of the violated clip, of a few pairs."""
    chosen = [
        t
        for t in own
        if t.kind == "violation" and t.name == violation and math.isclose(t.severity, severity) and _occasion(t, name)
    ]
    chosen = sorted(chosen, key=lambda t: t.seed)[:SAMPLES]
    return [[t.seed, t.lawful[name].badness, t.changed[name].badness] for t in chosen]


def _occasion(trial: Trial, name: str) -> bool:
    """The lawful twin can be measured, so the law has an occasion; the violated clip may then hide nowhere."""
    return trial.lawful[name].badness is not None


def _badness(chosen: Sequence[Trial], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Badness of lawful and changed clips; a changed clip without a value counts as the best one: it was missed."""
    known = [r.badness for t in chosen for r in (t.lawful[name], t.changed[name]) if r.badness is not None]
    best = min(known, default=0.0)
    sides = ([t.lawful[name].badness for t in chosen], [t.changed[name].badness for t in chosen])
    negative, positive = (np.array([best if b is None else b for b in side], float) for side in sides)
    return negative, positive


def _area(negative: np.ndarray, positive: np.ndarray) -> list[float] | None:
    """AUROC with its 95 % interval, or None without clips."""
    if len(negative) == 0 or len(positive) == 0:
        return None
    found = auroc(negative, positive)
    return [found.value, found.low, found.high]


def _detected(chosen: Sequence[Trial], name: str, negative: np.ndarray, positive: np.ndarray) -> float | None:
    """Share of violated clips with an alarm; without alarms, above 95 % of the lawful clips."""
    if not chosen:
        return None
    if any(t.lawful[name].alarm is not None for t in chosen):
        return float(np.mean([bool(t.changed[name].alarm) for t in chosen]))
    return float(np.mean(positive > np.quantile(negative, 0.95)))


def _nuisance_figures(own: Sequence[Trial], name: str, nuisance: str) -> dict[str, Any]:
    at = [t for t in own if t.kind == "nuisance" and t.name == nuisance]
    both = [t for t in at if _occasion(t, name) and t.changed[name].badness is not None]
    negative, positive = _badness(both, name)
    alarms = [bool(t.changed[name].alarm) for t in both]
    return {
        "pairs": len(at),
        "measured": len(both),
        "auroc": _area(negative, positive),
        "alarm_rate": float(np.mean(alarms)) if alarms else None,
    }


def _degenerate_figures(own: Sequence[Trial], name: str, degeneration: str) -> dict[str, Any]:
    at = [t for t in own if t.kind == "degenerate" and t.name == degeneration]
    wins = 0
    for trial in at:
        true, made = (_goodness(r[name]) for r in (trial.lawful, trial.changed))
        wins += true is not None and made is not None and made > true + 1e-9
    return {
        "clips": len(at),
        "measured": sum(t.changed[name].badness is not None for t in at),
        "beats_true": wins / len(at) if at else None,
    }


def _goodness(reading: Reading) -> float | None:
    """The 0-1 scale, or the value where there is none; more is better."""
    if reading.normalised is not None or reading.badness is None:
        return reading.normalised
    return -reading.badness


# --- judging ----------------------------------------------------------------------------------------------------------


def _failures(evaluator: Evaluator, figures: Mapping[str, Any], required: Requirements) -> list[str]:
    failures = [] if evaluator.claims else ["it claims to detect nothing"]
    for claim in evaluator.claims:
        failures += _failed_claim(claim, figures["violations"].get(claim), required)
    lawful = figures["lawful"]
    if lawful["alarm_rate"] is not None and lawful["alarm_rate"] > required.false_alarms:
        failures.append(f"{lawful['alarms']} of {lawful['measured']} lawful clips raise an alarm")
    if not lawful["measured"]:
        failures.append("no lawful clip could be measured")
    # Measures without a 0-1 scale enter no aggregate; there is no top to reach.
    elif lawful["normalised_mean"] is not None and lawful["normalised_mean"] < required.ceiling:
        failures.append(f"lawful clips reach {lawful['normalised_mean']}, not {required.ceiling}")
    for nuisance, found in figures["nuisances"].items():
        area = found["auroc"]
        if area is not None and abs(area[0] - 0.5) > required.nuisance_auroc and not area[1] <= 0.5 <= area[2]:
            failures.append(f"the nuisance {nuisance} is told from the plain clip (AUROC {area[0]:.2f})")
    for degeneration, found in figures["degenerate"].items():
        if found["beats_true"] > required.beaten:
            failures.append(f"{degeneration} clips beat true ones in {100 * found['beats_true']:.0f} % of cases")
    return failures


def _failed_claim(claim: str, found: Mapping[str, Any] | None, required: Requirements) -> list[str]:
    at = None if found is None else found["by_severity"].get(f"{required.severity:g}")
    if found is None or at is None or at["measured"] < required.pairs or at["auroc"] is None:
        measured = 0 if at is None else at["measured"]
        return [f"{claim}: {measured} pairs measured at severity {required.severity:g}, {required.pairs} are needed"]
    failures = []
    if at["auroc"][0] < required.auroc:
        failures.append(f"{claim}: AUROC {at['auroc'][0]:.3f} at severity {required.severity:g}, not {required.auroc}")
    if found["spearman"] is None or found["spearman"] < required.spearman:
        failures.append(f"{claim}: rank correlation with severity {found['spearman']}, not {required.spearman}")
    return failures
