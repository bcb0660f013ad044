"""How good are the evaluators? Planted violations, nuisances and degenerate clips become validity cards.

Whoever owns worlds with known truth supplies `Case`s: a lawful clip and variants of it. `measure` scores them all over
processes; `eval.judging.make_card` turns the readings of one evaluator into its card.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from eval.batch import run_ordered
from eval.clip import Clip
from eval.fingerprint import fingerprint
from eval.score import Evaluator, Score, versions
from eval.suite import Suite, read_json, write_json

Kind = Literal["violation", "nuisance", "degenerate"]
Job = TypeVar("Job")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A clip made from a lawful one.

    Attributes:
        kind: What was done: a law was broken, something harmless was changed, or the clip was made worthless.
        name: Of the violation ("teleport"), nuisance ("noise") or degeneration ("static").
        severity: In (0, 1].
        clip: The result.
        lawful: Its lawful twin, where that is not the case's own.
    """

    kind: Kind
    name: str
    severity: float
    clip: Clip
    lawful: Clip | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """A lawful clip and what was made of it.

    Attributes:
        mode: What evaluators are given: "pixels", "masks" or "truth"; cards keep them apart.
        seed: Of the scene.
        lawful: The lawful clip.
        variants: What was made of it.
    """

    mode: str
    seed: int
    lawful: Clip
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Reading:
    """What one evaluator said of one clip.

    Attributes:
        status: As in `Score`.
        badness: The value, turned so that more is worse; None without a value.
        normalised: As in `Score`.
        alarm: Whether the evaluator raised an alarm; None for evaluators without alarms.
    """

    status: str
    badness: float | None
    normalised: float | None
    alarm: bool | None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The readings of one variant and its lawful twin, by evaluator.

    Attributes:
        mode: As in `Case`.
        kind: As in `Variant`; "lawful" for the lawful clip of a case by itself.
        name: Of the violation, nuisance or degeneration.
        severity: Of the variant.
        seed: Of the scene.
        lawful: Readings of the lawful twin.
        changed: Readings of the variant; empty for lawful trials.
    """

    mode: str
    kind: str
    name: str
    severity: float
    seed: int
    lawful: Mapping[str, Reading]
    changed: Mapping[str, Reading] = field(default_factory=dict)


def measure(
    jobs: Iterable[Job],
    build: Callable[[Job], Sequence[Case]],
    suite: Suite,
    *,
    workers: int = 1,
    out: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Trial]:
    """Scores all cases; results depend neither on `workers` nor on resuming.

    Args:
        jobs: What `build` makes cases from; each must have a distinct `str`.
        build: Makes cases; runs in the worker and must be picklable where `workers` > 1.
        suite: The evaluators.
        workers: Processes.
        out: A folder for the readings of each job; what is found there is not measured again, unless the evaluator's
            code or configuration has changed since.
        progress: Called with the number of jobs done.
    """
    trials: list[Trial] = []
    listed = list(jobs)
    done = run_ordered(partial(_measure_job, build=build, suite=suite, out=out), listed, workers)
    for number, found in enumerate(done, start=1):
        trials += found
        if progress is not None:
            progress(number)
    return trials


def degenerate(clip: Clip, rng: np.random.Generator) -> list[Variant]:
    """The clips that must not win: one frame repeated, blurred, pure noise, frames shuffled."""
    frames = clip.frames
    blurred = frames.astype(np.float32)
    for _ in range(3):
        blurred = sum(np.roll(blurred, (dy, dx), (1, 2)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9.0
    made = {
        "static": np.repeat(frames[:1], len(frames), axis=0),
        "blurred": np.round(np.asarray(blurred)).astype(np.uint8),
        "noise": rng.integers(0, 256, frames.shape, dtype=np.uint8),
        "shuffled": frames[rng.permutation(len(frames))],
    }
    known = {k: v for k, v in clip.truth.items() if k != "segmentation"}
    return [
        Variant(
            kind="degenerate",
            name=name,
            severity=1.0,
            clip=Clip(frames=video, fps=clip.fps, actions=clip.actions, text=clip.text, truth=known, name=name),
        )
        for name, video in made.items()
    ]


# --- measuring --------------------------------------------------------------------------------------------------------


def _measure_job(job: Job, build: Callable[[Job], Sequence[Case]], suite: Suite, out: Path | None) -> list[Trial]:
    """The trials of a job. Readings on disk count where evaluator, configuration and clips are still the same."""
    if out is None:
        return [t for case in build(job) for t in _trials(case, suite)]
    path = out / f"{_key(f'{job}|{sorted(versions().items())}')}.json"
    stored = read_json(path) if path.exists() else {"clips": "", "made_by": {}, "trials": []}
    trials = [_trial_from(t) for t in stored["trials"]]
    made_by = {e.name: _made_by(e, suite) for e in suite.evaluators}
    fresh = [e for e in suite.evaluators if stored["made_by"].get(e.name) != made_by[e.name]]
    if fresh:
        cases = build(job)
        clips = _key("".join(c.digest for case in cases for c in _clips(case)))
        if clips != stored["clips"]:
            fresh, trials, stored = list(suite.evaluators), [], {"made_by": {}}
        part = replace(suite, evaluators=tuple(fresh))
        trials = _merged(trials, [t for case in cases for t in _trials(case, part)])
        data = {"job": str(job), "clips": clips, "made_by": {**stored["made_by"], **made_by}}
        write_json(path, {**data, "trials": [_trial_json(t) for t in trials]})
    wanted = {e.name for e in suite.evaluators}
    return [replace(t, lawful=_only(t.lawful, wanted), changed=_only(t.changed, wanted)) for t in trials]


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _made_by(evaluator: Evaluator, suite: Suite) -> str:
    config = evaluator.config(**suite.config.get(evaluator.name, {}))
    return _key(f"{evaluator.version}|{fingerprint(evaluator.measure)}|{sorted(config.items())!r}")


def _clips(case: Case) -> Iterable[Clip]:
    yield case.lawful
    for variant in case.variants:
        yield from (c for c in (variant.lawful, variant.clip) if c is not None)


def _merged(old: Sequence[Trial], new: Sequence[Trial]) -> list[Trial]:
    """New readings beside, or in place of, the old ones of the same clips."""
    if not old:
        return list(new)
    pairs = zip(old, new, strict=True)
    return [replace(n, lawful={**o.lawful, **n.lawful}, changed={**o.changed, **n.changed}) for o, n in pairs]


def _only(readings: Mapping[str, Reading], wanted: set[str]) -> dict[str, Reading]:
    return {k: r for k, r in readings.items() if k in wanted}


def _trials(case: Case, suite: Suite) -> Iterable[Trial]:
    lawful = _read(case.lawful, suite)
    yield Trial(mode=case.mode, kind="lawful", name="", severity=0.0, seed=case.seed, lawful=lawful)
    for variant in case.variants:
        twin = lawful if variant.lawful is None else _read(variant.lawful, suite)
        if variant.lawful is not None:
            yield Trial(mode=case.mode, kind="lawful", name="", severity=0.0, seed=case.seed, lawful=twin)
        yield Trial(
            mode=case.mode,
            kind=variant.kind,
            name=variant.name,
            severity=variant.severity,
            seed=case.seed,
            lawful=twin,
            changed=_read(variant.clip, suite),
        )


def _read(clip: Clip, suite: Suite) -> dict[str, Reading]:
    return {e.name: _reading(e, e(clip, **suite.config.get(e.name, {}))) for e in suite.evaluators}


def _reading(evaluator: Evaluator, found: Score) -> Reading:
    worse = {"lower": 1.0, "higher": -1.0, "neither": 1.0}[evaluator.better]
    badness = None if found.value is None else worse * found.value
    return Reading(found.status, badness, found.normalised, found.details.get("alarm"))


def _trial_json(trial: Trial) -> dict[str, Any]:
    data = dict(vars(trial))
    for side in ("lawful", "changed"):
        data[side] = {k: list(vars(r).values()) for k, r in data[side].items()}
    return data


def _trial_from(data: Mapping[str, Any]) -> Trial:
    sides = {s: {k: Reading(*r) for k, r in data[s].items()} for s in ("lawful", "changed")}
    return Trial(**{**data, **sides})
