"""From evidence against a law to a `Measurement`."""

from collections.abc import Sequence

import numpy as np

from eval.physics.evidence import ALPHA, Z_ALARM, Evidence, corrected, z_score
from eval.score import Measurement

UNIT = "z"


def verdict(evidence: Sequence[Evidence], frames: int, coverage: float, **details: object) -> Measurement:
    """The strongest evidence against a law among `evidence`, corrected for how many tests there are.

    The value is a z-score: how many standard deviations of a Gaussian the strongest deviation is worth. It is
    normalised to 1 up to `Z_ALARM` (where a lawful clip arrives once in 100,000) and falls as `Z_ALARM` / z beyond.

    Args:
        evidence: At least one test.
        frames: T, the clip's length.
        coverage: Share of the seen object-frames that the tests rest on.
        details: Further numbers for the report.
    """
    assert evidence
    tests = len(evidence)
    logs = np.array([corrected(e.log_p, tests) for e in evidence])
    worst = int(np.argmin(logs))
    z = z_score(float(logs[worst]))
    per_frame = np.full(frames, np.nan)
    for each, log_p in zip(evidence, logs, strict=True):
        at = list(each.frames)
        per_frame[at] = np.fmax(per_frame[at], z_score(float(log_p)))
    broken = sorted({f for e, log_p in zip(evidence, logs, strict=True) if log_p < np.log(ALPHA) for f in e.frames})
    return Measurement(
        value=z,
        normalised=1.0 if z <= Z_ALARM else Z_ALARM / z,
        uncertainty=1.0,
        coverage=float(np.clip(coverage, 0.0, 1.0)),
        per_frame=per_frame,
        offending=tuple(broken),
        details={
            "p_value": float(np.exp(max(logs[worst], -700.0))),
            "alarm": bool(logs[worst] < np.log(ALPHA)),
            "strongest": evidence[worst].about,
            "tests": tests,
            **details,
        },
    )
