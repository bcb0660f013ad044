"""`score`: run a suite of evaluators on a clip and get a `Report`."""

import importlib
import json
import math
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Self

import eval as package
from eval.cards import load_card
from eval.clip import Clip
from eval.errors import ClipError, EvalError, UnknownNameError
from eval.score import EVALUATORS, Evaluator, Score

REPORT_FORMAT = 1


def load_evaluators() -> Mapping[str, Evaluator]:
    """Imports every module of `eval`, so that each declares its evaluators, and returns them by name."""
    _import_modules()
    return dict(sorted(EVALUATORS.items()))


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Evaluators to run together.

    Attributes:
        name: Label in reports.
        evaluators: What to run, in order.
        config: Overrides of an evaluator's parameters, by evaluator name.
    """

    name: str
    evaluators: tuple[Evaluator, ...]
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, names: "str | Sequence[str] | Suite", config: Mapping[str, Mapping[str, Any]] | None = None) -> "Suite":
        """A suite from names of suites ("physics", "geometry", ...), of evaluators, or "all".

        Raises:
            UnknownNameError: On a name that is neither; on overrides for an evaluator that is not in the suite, or of
                a parameter that it does not have.
            EvalError: If no name is given.
        """
        if isinstance(names, Suite):
            return names
        listed = (names,) if isinstance(names, str) else tuple(names)
        if not listed:
            raise EvalError(expected="at least one suite or evaluator", got="none", remedy='For example "physics".')
        known = load_evaluators()
        chosen: dict[str, Evaluator] = {}
        for name in listed:
            chosen |= {e.name: e for e in _named(name, known)}
        for name, overrides in (config or {}).items():
            if name not in chosen:
                raise UnknownNameError(kind="evaluator of this suite", name=name, known=chosen)
            chosen[name].config(**overrides)
        return cls(name="+".join(listed), evaluators=tuple(chosen.values()), config=config or {})

    def __call__(self, clip: Clip) -> "Report":
        """Runs every evaluator on `clip`."""
        scores = {e.name: e(clip, **self.config.get(e.name, {})) for e in self.evaluators}
        return Report(clip=clip.name, suite=self.name, input=clip.digest, scores=scores)


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One number over the evaluators that have a passing validity card, with what it rests on.

    Attributes:
        value: Mean normalised value, failures of an evaluator counted as 0; None if nothing could be measured.
        lower: The same with everything unmeasured counted as 0: no exclusion can raise it.
        measured: How many evaluators gave a value.
        total: How many evaluators of the suite carry a passing card and have a 0-1 scale.
        unmeasured: Why the others of `total` gave none, by name.
        left_out: Evaluators without a passing card, which never count.
    """

    value: float | None
    lower: float | None
    measured: int
    total: int
    unmeasured: Mapping[str, str]
    left_out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Report(Mapping[str, Score]):
    """The scores of one clip, by evaluator name.

    Attributes:
        clip: The clip's name.
        suite: What was asked for.
        input: The clip's digest; the same input, versions and configuration give the same report.
        scores: Every score, those without a value too.
    """

    clip: str
    suite: str
    input: str
    scores: Mapping[str, Score]

    def __getitem__(self, name: str) -> Score:
        if name not in self.scores:
            raise UnknownNameError(kind="score of this report", name=name, known=self.scores)
        return self.scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    def aggregate(self) -> Aggregate:
        """The mean over evaluators with a passing card; see `Aggregate` for what is counted how."""
        carded = {n: s for n, s in self.scores.items() if is_validated(s)}
        left_out = tuple(sorted(set(self.scores) - set(carded)))
        values = {n: s.normalised for n, s in carded.items() if s.normalised is not None}
        without = {n: s for n, s in carded.items() if s.value is None}
        failed = sum(s.status == "failed" for s in without.values())
        total, counted = len(values) + len(without), len(values) + failed
        value_sum = math.fsum(values.values())
        return Aggregate(
            value=value_sum / counted if counted else None,
            lower=value_sum / total if total else None,
            measured=len(values),
            total=total,
            unmeasured={n: f"{s.status}: {s.reason}" for n, s in without.items()},
            left_out=left_out,
        )

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json.dumps` takes and `from_json` restores."""
        return {
            "format": REPORT_FORMAT,
            "clip": self.clip,
            "suite": self.suite,
            "input": self.input,
            "scores": {n: s.to_json() for n, s in self.scores.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            EvalError: If `data` is not a report of this format.
        """
        if not isinstance(data, Mapping) or data.get("format") != REPORT_FORMAT:
            got = data.get("format") if isinstance(data, Mapping) else type(data).__name__
            raise EvalError(
                expected=f"a report of format {REPORT_FORMAT}",
                got=got,
                remedy="Score the clip again with this version.",
            )
        try:
            scores = {n: Score.from_json(s) for n, s in data["scores"].items()}
            return cls(clip=data["clip"], suite=data["suite"], input=data["input"], scores=scores)
        except (KeyError, TypeError, AttributeError) as error:
            raise EvalError(expected="a complete report", got=repr(error), remedy="Score the clip again.") from error

    def save(self, path: str | Path) -> None:
        """Writes the report as JSON, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a report that `save` wrote.

        Raises:
            EvalError: If the file is missing, not JSON, or not a report.
        """
        return cls.from_json(read_json(path))


def score(
    clip: Clip, suite: str | Sequence[str] | Suite = "physics", config: Mapping[str, Mapping[str, Any]] | None = None
) -> Report:
    """Scores one clip.

    Args:
        clip: The video and what is known about it.
        suite: "physics", "geometry", "fidelity", "control", "quality", "all", the name of an evaluator, a list of such
            names, or a `Suite`.
        config: Overrides of evaluators' parameters, by evaluator name.

    Raises:
        ClipError: If `clip` is not a `Clip`.
        UnknownNameError: On an unknown name; the message suggests the nearest.
    """
    if not isinstance(clip, Clip):
        raise ClipError(expected="a Clip", got=type(clip).__name__, remedy="Wrap it: Clip(frames=frames, fps=10).")
    return Suite.of(suite, config)(clip)


def is_validated(found: Score) -> bool:
    """Whether the evaluator that made this score has a passing card, of the same version and code."""
    card = load_card(found.name)
    return card is not None and card.passed and card.is_of(found.provenance)


def write_json(path: str | Path, data: Mapping[str, Any]) -> None:
    """Writes strict JSON to `path` in one step: a reader sees the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
        try:
            json.dump(data, file, allow_nan=False, indent=1)
        except BaseException:
            Path(file.name).unlink()
            raise
    Path(file.name).replace(path)


def read_json(path: str | Path) -> Any:  # noqa: ANN401 - JSON is untyped
    """Reads JSON.

    Raises:
        EvalError: If the file cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvalError(expected=f"a JSON file at {path}", got=repr(error), remedy="Check the path.") from error


@cache
def _import_modules() -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def _named(name: str, known: Mapping[str, Evaluator]) -> list[Evaluator]:
    if name == "all":
        return list(known.values())
    if name in known:
        return [known[name]]
    members = [e for e in known.values() if e.suite == name]
    if not members:
        raise UnknownNameError(kind="suite or evaluator", name=name, known=[*{e.suite for e in known.values()}, *known])
    return members
