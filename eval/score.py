"""`Score`: a value with its unit, uncertainty, coverage and evidence; and how evaluators are declared."""

import hashlib
import importlib
import inspect
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from typing import Any, Literal

import cv2
import numpy as np

from eval.clip import Clip
from eval.errors import EvalError, UnknownNameError
from eval.fingerprint import fingerprint

Better = Literal["lower", "higher", "neither"]
# ok: measured. missing: the clip lacks a need. inapplicable: nothing to test (no motion, no contact).
# insufficient: too little evidence (texture, parallax, frames). failed: a library refused the input.
Status = Literal["ok", "missing", "inapplicable", "insufficient", "failed"]


class Unmeasurable(Exception):  # noqa: N818 - control flow that becomes a Score, not an error for the user
    """Raised inside an evaluator when a clip cannot be measured; becomes a `Score` without a value."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status: Status = status
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What an evaluator returns when it could measure.

    Attributes:
        value: In the evaluator's unit.
        normalised: 0 (worst) to 1 (lawful, coherent, identical), or None where no such scale exists.
        uncertainty: Standard error of `value` in the same unit, or None if unknown.
        coverage: Share in [0, 1] of the clip (frames, pairs, object-frames) that the value rests on.
        per_frame: (T,) evidence per frame, NaN where there is none.
        offending: Frame indices where the law or coherence broke.
        details: Further named numbers or small arrays, for reports.
    """

    value: float
    normalised: float | None = None
    uncertainty: float | None = None
    coverage: float = 1.0
    per_frame: np.ndarray | None = None
    offending: tuple[int, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One evaluator's verdict on one clip. Fields as in `Measurement`, and who measured what.

    `value` is None exactly when `status` is not "ok"; `reason` then says why.
    """

    name: str
    unit: str
    better: Better
    status: Status
    value: float | None
    normalised: float | None
    uncertainty: float | None
    coverage: float
    per_frame: np.ndarray | None
    offending: tuple[int, ...]
    details: Mapping[str, Any]
    reason: str | None
    provenance: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json.dumps` takes and `from_json` restores."""
        return {k: _plain(v) for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Score":
        """The inverse of `to_json`."""
        per_frame = data["per_frame"]
        as_array = None if per_frame is None else np.array([np.nan if v is None else v for v in per_frame], float)
        return cls(**{**data, "per_frame": as_array, "offending": tuple(data["offending"])})


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """A named measure over clips. Call it to get a `Score`; it never raises for what a clip lacks.

    Attributes are those of `evaluator`; `summary` is the first line of the measure's docstring.
    """

    name: str
    suite: str
    unit: str
    better: Better
    needs: tuple[str, ...]
    claims: tuple[str, ...]
    version: int
    summary: str
    measure: Callable[..., Measurement]

    def __call__(self, clip: Clip, **config: object) -> Score:
        """Scores one clip; keyword arguments override the measure's defaults and enter the configuration hash."""
        provenance = self._provenance(clip, config)
        missing = clip.missing(self.needs)
        if missing:
            return self._without_value("missing", f"needs {', '.join(missing)}", provenance)
        try:
            found = self.measure(clip, **config)
        except Unmeasurable as none:
            return self._without_value(none.status, none.reason, provenance)
        except (cv2.error, np.linalg.LinAlgError) as refusal:
            return self._without_value("failed", f"{type(refusal).__name__}: {refusal}".strip(), provenance)
        if not np.isfinite(found.value):
            return self._without_value("failed", f"the measure gave {found.value}", provenance)
        assert found.normalised is None or 0.0 <= found.normalised <= 1.0, (self.name, found.normalised)
        assert 0.0 <= found.coverage <= 1.0, (self.name, found.coverage)
        return Score(
            name=self.name,
            unit=self.unit,
            better=self.better,
            status="ok",
            value=float(found.value),
            normalised=None if found.normalised is None else float(found.normalised),
            uncertainty=None if found.uncertainty is None else float(found.uncertainty),
            coverage=float(found.coverage),
            per_frame=found.per_frame,
            offending=tuple(int(i) for i in found.offending),
            details=found.details,
            reason=None,
            provenance=provenance,
        )

    def __reduce__(self) -> tuple[Callable[[str, str], "Evaluator"], tuple[str, str]]:
        # The decorated name is this evaluator, not the bare measure, so pickle cannot find the measure by its name.
        return _restore, (self.measure.__module__, self.name)

    def config(self, **overrides: object) -> dict[str, object]:
        """The measure's parameters: its defaults, then the overrides."""
        parameters = inspect.signature(self.measure).parameters
        defaults = {k: p.default for k, p in parameters.items() if p.default is not inspect.Parameter.empty}
        unknown = set(overrides) - set(defaults)
        if unknown:
            raise UnknownNameError(kind=f"parameter of {self.name}", name=min(unknown), known=defaults)
        return {**defaults, **overrides}

    def _provenance(self, clip: Clip, overrides: Mapping[str, object]) -> dict[str, str]:
        config = json.dumps(self.config(**overrides), sort_keys=True, default=repr)
        return {
            "evaluator": f"{self.name}@{self.version}",
            "code": fingerprint(self.measure),
            "config": hashlib.sha256(config.encode()).hexdigest()[:16],
            "input": clip.digest,
            **versions(),
        }

    def _without_value(self, status: Status, reason: str, provenance: Mapping[str, str]) -> Score:
        return Score(
            name=self.name,
            unit=self.unit,
            better=self.better,
            status=status,
            value=None,
            normalised=None,
            uncertainty=None,
            coverage=0.0,
            per_frame=None,
            offending=(),
            details={},
            reason=reason,
            provenance=provenance,
        )


EVALUATORS: dict[str, Evaluator] = {}


def evaluator(
    name: str,
    *,
    suite: str,
    unit: str,
    better: Better,
    needs: tuple[str, ...] = (),
    claims: tuple[str, ...] = (),
    version: int = 1,
) -> Callable[[Callable[..., Measurement]], Evaluator]:
    """Declares a measure `(clip, **config) -> Measurement` as an evaluator and registers it under `name`.

    Args:
        name: Unique, lower case with underscores.
        suite: `physics`, `geometry`, `fidelity`, `control` or `quality`.
        unit: Unit of the value, e.g. "px", "dB", "share".
        better: Whether lower or higher values are better.
        needs: Names of what the clip must have: `actions`, `text`, `reference`, or keys of `Clip.truth`.
        claims: Names of the planted violations that it claims to detect; its validity card holds it to them.
        version: Raised whenever the same input would give another value.
    """

    def declare(measure: Callable[..., Measurement]) -> Evaluator:
        if name in EVALUATORS:
            raise EvalError(expected="a new evaluator name", got=repr(name), remedy="Names are unique.")
        summary = (measure.__doc__ or "").strip().split("\n", 1)[0]
        made = Evaluator(
            name=name,
            suite=suite,
            unit=unit,
            better=better,
            needs=needs,
            claims=claims,
            version=version,
            summary=summary,
            measure=measure,
        )
        EVALUATORS[name] = made
        return made

    return declare


def _restore(module: str, name: str) -> Evaluator:
    importlib.import_module(module)
    return EVALUATORS[name]


@cache
def versions() -> dict[str, str]:
    """Versions of everything that can change a score."""
    found = {"python": platform.python_version()}
    for package in ("worldsim", "numpy", "scipy", "opencv-python-headless"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON is untyped
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
