"""PhyWorld: does the ball in the video move as the true ball? Velocity errors of one ball and of two that collide.

Kang et al., "How Far Is Video Generation from World Model: A Physical Law Perspective", 2024; phyworld/phyworld. A
world of 10×10 units seen at 0.1 s a frame: uniform motion, a parabola (g = 2.5), an elastic collision of a red and a
blue ball. The first four frames are given.

Every function follows the published code; `fixed=True` mends what docs/evaluators-reference.md lists as its defects.
Positions are in world units, y growing with the row index (the benchmark's stored files are upside down).
"""

from dataclasses import dataclass

import numpy as np

from eval.errors import MeasureError
from eval.physics.phyworld_table import Case, Row, group_of, table
from eval.physics.phyworld_tracking import (
    DT_S,
    MISSING_SPEED,
    WORLD_SIZE,
    BallTrack,
    Colour,
    acceleration_error,
    charged,
    filled,
    fitted_velocity,
    last_ema,
    mean,
    track_ball,
)

__all__ = [
    "MISSING_SPEED",
    "BallErrors",
    "BallTrack",
    "Case",
    "CollisionErrors",
    "Row",
    "evaluate_ball",
    "evaluate_collision",
    "group_of",
    "relative_to_floor",
    "table",
    "track_ball",
]

CONDITION_FRAMES = 4
# Change of a true velocity between two frames that counts as the impact.
IMPACT_JUMP = 0.1
RADIUS_FRAMES = 5


@dataclass(frozen=True, kw_only=True)
class BallErrors:
    """Errors of one ball; lengths in world units, velocities in units/s, accelerations in units/s².

    Attributes:
        velocity_error: The reported number. Published: |mean x velocity - initial speed|. Fixed: mean over frame pairs
            of the length of the velocity's error; a pair in which the ball is missing is charged its true speed,
            but at least 4.
        speed_error: (2,) mean |error| of the x and y velocity over frame pairs.
        position_error: (2,) mean |error| of x and y.
        ema_position_error: (2,) last value of an exponential average over the evaluated frames.
        radius_change: Largest minus smallest radius.
        acceleration_error: Length of the error of the acceleration, from quadratic fits; NaN in the published mode
            and for fewer than three visible frames.
        missing: Share of evaluated frames without the ball.
        extra: Share of evaluated frames with more than one region of its colour.
        frames: (n,) indices of the evaluated frames.
        track: The ball at those frames.
    """

    velocity_error: float
    speed_error: np.ndarray
    position_error: np.ndarray
    ema_position_error: np.ndarray
    radius_change: float
    acceleration_error: float
    missing: float
    extra: float
    frames: np.ndarray
    track: BallTrack


@dataclass(frozen=True, kw_only=True)
class CollisionErrors:
    """Errors of two balls before and after their impact; every pair is (before, after), NaN where undefined.

    Attributes:
        velocity_error: The reported number. Published: mean over balls of |mean x velocity - true mean|. Fixed: mean
            over balls and frame pairs as in `BallErrors`.
        speed_error: Mean |error| of the x velocity over balls and frame pairs.
        position_error: Mean |error| of x over balls and frames.
        momentum_error: Published: mean |error|. Fixed: |error| of fitted velocities over Σ m|v|.
        energy_error: Published: mean |error|. Fixed: |error| of fitted velocities over the true energy.
        radius_change: Larger of the two balls' radius changes (published: in the first five evaluated frames).
        missing: Share of evaluated ball-frames without the ball.
        extra: Share of evaluated ball-frames with more than one region of its colour.
        impact: Index, among the evaluated frame pairs, of the first velocity after the impact began.
        frames: (n,) indices of the evaluated frames.
        velocities: (n - 1, 2) tracked x velocities.
    """

    velocity_error: tuple[float, float]
    speed_error: tuple[float, float]
    position_error: tuple[float, float]
    momentum_error: tuple[float, float]
    energy_error: tuple[float, float]
    radius_change: float
    missing: float
    extra: float
    impact: int
    frames: np.ndarray
    velocities: np.ndarray


def evaluate_ball(
    frames: np.ndarray,
    positions: np.ndarray,
    *,
    radius: float,
    speed: float,
    colour: Colour = "red",
    fixed: bool = False,
) -> BallErrors:
    """Errors of a ball in uniform motion or on a parabola.

    Evaluated are the frames from the last given one on in which the true ball lies wholly inside the world.

    Args:
        frames: uint8 (T, S, S, 3), RGB.
        positions: (T, 2) true centres, world units.
        radius: True radius, world units.
        speed: Initial x speed, units/s (only the published velocity error uses it).
        colour: Of the ball.
        fixed: Mend the defects of the published code.

    Raises:
        MeasureError: If lengths differ, positions are not finite, or fewer than two frames can be evaluated.
    """
    positions = _checked(frames, positions, (2,))
    inside = np.all((positions - radius >= 0) & (positions + radius <= WORLD_SIZE), axis=1)
    used = _evaluated(inside)
    truth, seen = positions[used], track_ball(frames[used], colour=colour, fixed=fixed)
    lost = np.isnan(seen.radius)
    shown = seen if fixed else filled(seen, edge=WORLD_SIZE)
    difference = np.abs(shown.xy - truth)
    adjacent = np.diff(used) == 1 if fixed else np.ones(len(used) - 1, bool)
    velocity, true_velocity = (np.diff(xy, axis=0)[adjacent] / DT_S for xy in (shown.xy, truth))
    radii = shown.radius[~lost] if fixed else shown.radius
    return BallErrors(
        velocity_error=charged(velocity, true_velocity) if fixed else abs(float(velocity[:, 0].mean()) - speed),
        speed_error=mean(np.abs(velocity - true_velocity), skip_missing=fixed),
        position_error=mean(difference, skip_missing=fixed),
        # The published code drops x too where y is unknown.
        ema_position_error=last_ema(np.where(np.isnan(difference).any(axis=1, keepdims=True), np.nan, difference)),
        radius_change=float(np.ptp(radii)) if len(radii) else np.nan,
        acceleration_error=acceleration_error(seen.xy, truth, used * DT_S) if fixed else np.nan,
        missing=float(lost.mean()),
        extra=float((seen.blobs > 1).mean()),
        frames=used,
        track=shown,
    )


def evaluate_collision(
    frames: np.ndarray, positions: np.ndarray, *, radii: np.ndarray, speeds: np.ndarray, fixed: bool = False
) -> CollisionErrors:
    """Errors of a red (left) and a blue (right) ball that meet head on.

    The impact is the first evaluated frame at which a true x velocity jumps by more than 0.1; the velocity that
    straddles it is left out.

    Args:
        frames: uint8 (T, S, S, 3), RGB.
        positions: (T, 2, 2) true centres of the left and the right ball, world units.
        radii: (2,) world units; masses are their squares.
        speeds: (2,) initial speeds, units/s, the left ball moving right and the right ball moving left.
        fixed: Mend the defects of the published code.

    Raises:
        MeasureError: As `evaluate_ball`.
    """
    positions = _checked(frames, positions, (2, 2))
    radii, speeds = np.asarray(radii, float), np.asarray(speeds, float)
    used = _evaluated((positions[:, 0, 0] - radii[0] >= 0) & (positions[:, 1, 0] + radii[1] <= WORLD_SIZE))
    seen = [track_ball(frames[used], colour=c, fixed=fixed) for c in ("red", "blue")]
    lost = np.isnan([t.radius for t in seen]).T
    shown = seen if fixed else [filled(t, edge=e) for t, e in zip(seen, (0.0, WORLD_SIZE), strict=True)]
    xy, truth = np.stack([t.xy for t in shown], axis=1), positions[used]
    velocity, true_velocity = np.diff(xy, axis=0) / DT_S, np.diff(truth, axis=0) / DT_S
    impact = _impact(true_velocity[..., 0])
    before, after = slice(None, impact), slice(impact + 1, None)
    until, since = slice(None, impact + 1), slice(impact + 1, None)
    errors = _fixed_collision if fixed else _published_collision
    x_error, x_velocity_error = np.abs(xy - truth)[..., 0], np.abs(velocity - true_velocity)[..., 0]

    def rate(part: slice) -> float:
        return float(mean(x_velocity_error[part].ravel(), skip_missing=fixed))

    def place(part: slice) -> float:
        return float(mean(x_error[part].ravel(), skip_missing=fixed))

    radius = np.stack([t.radius for t in shown], axis=1)
    if not fixed:
        radius = radius[:RADIUS_FRAMES]
    conserved = errors(velocity, true_velocity, xy, truth, used * DT_S, impact, radii**2, speeds)
    return CollisionErrors(
        **conserved,
        speed_error=(rate(before), rate(after)),
        position_error=(place(until), place(since)),
        radius_change=_largest_change(radius, skip_missing=fixed),
        missing=float(lost.mean()),
        extra=float(np.mean([t.blobs > 1 for t in seen])),
        impact=impact,
        frames=used,
        velocities=velocity[..., 0],
    )


def relative_to_floor(error: float, floor: float) -> float:
    """An error in units of what rendering and tracking alone cost: 1 is as good as the truth seen the same way.

    Args:
        error: Of the video.
        floor: The same measure on the rendered truth.

    Raises:
        MeasureError: If the floor is not positive (nothing moved), so that no ratio exists.
    """
    if not floor > 0:
        raise MeasureError(expected="a positive floor", got=floor, remedy="Average the floor over more cases.")
    return error / floor


def _published_collision(
    velocity: np.ndarray,
    true_velocity: np.ndarray,
    _xy: np.ndarray,
    _truth: np.ndarray,
    _times_s: np.ndarray,
    impact: int,
    masses: np.ndarray,
    speeds: np.ndarray,
) -> dict[str, tuple[float, float]]:
    v, true_v = velocity[..., 0], true_velocity[..., 0]
    signed = speeds * [1, -1]
    momentum_error = np.abs(v @ masses - signed @ masses)
    energy_error = np.abs(v**2 @ masses - signed**2 @ masses) / 2
    parts = slice(None, impact), slice(impact + 1, None)
    with np.errstate(invalid="ignore"):
        means = [np.abs(mean(v[s]) - mean(true_v[s])).mean() for s in parts]
    return {
        "velocity_error": (float(means[0]), float(means[1])),
        "momentum_error": (float(mean(momentum_error[parts[0]])), float(mean(momentum_error[parts[1]]))),
        "energy_error": (float(mean(energy_error[parts[0]])), float(mean(energy_error[parts[1]]))),
    }


def _fixed_collision(
    velocity: np.ndarray,
    true_velocity: np.ndarray,
    xy: np.ndarray,
    truth: np.ndarray,
    times_s: np.ndarray,
    impact: int,
    masses: np.ndarray,
    _speeds: np.ndarray,
) -> dict[str, tuple[float, float]]:
    found: dict[str, list[float]] = {"velocity_error": [], "momentum_error": [], "energy_error": []}
    # Positions impact and impact + 1 span the velocity that straddles the impact.
    for pairs, points in (
        (slice(None, impact), slice(None, impact + 1)),
        (slice(impact + 1, None), slice(impact + 1, None)),
    ):
        found["velocity_error"].append(charged(velocity[pairs], true_velocity[pairs]))
        true_v = fitted_velocity(truth[points, :, 0], times_s[points])
        v = fitted_velocity(xy[points, :, 0], times_s[points])
        # A ball that is not there has no momentum: it is charged as standing still.
        v = np.where(np.isnan(v), 0.0, v)
        scale, energy = masses @ np.abs(true_v), masses @ true_v**2
        found["momentum_error"].append(float(np.abs(masses @ (v - true_v)) / scale) if scale > 0 else np.nan)
        found["energy_error"].append(float(np.abs(masses @ (v**2 - true_v**2)) / energy) if energy > 0 else np.nan)
    return {name: (values[0], values[1]) for name, values in found.items()}


def _checked(frames: np.ndarray, positions: np.ndarray, tail: tuple[int, ...]) -> np.ndarray:
    positions = np.asarray(positions, float)
    if positions.shape != (len(frames), *tail) or not np.isfinite(positions).all():
        raise MeasureError(
            expected=f"finite positions of shape {(len(frames), *tail)}, one for each frame",
            got=f"{positions.shape}, {np.count_nonzero(~np.isfinite(positions))} not finite",
            remedy="Cut frames and truth to the same length.",
        )
    return positions


def _evaluated(inside: np.ndarray) -> np.ndarray:
    used = np.flatnonzero(inside)
    used = used[used >= CONDITION_FRAMES - 1]
    if len(used) < 2:
        raise MeasureError(
            expected="at least two predicted frames with the true ball wholly inside the world",
            got=len(used),
            remedy="Leave this case out and count it.",
        )
    return used


def _impact(x_velocity: np.ndarray) -> int:
    jumps = (np.abs(np.diff(x_velocity, axis=0)) > IMPACT_JUMP).any(axis=1)
    return int(np.argmax(jumps)) + 1 if jumps.any() else len(x_velocity) - 1


def _largest_change(radius: np.ndarray, *, skip_missing: bool) -> float:
    changes = []
    for values in radius.T:
        known = values[~np.isnan(values)] if skip_missing else values
        changes.append(np.ptp(known) if len(known) else np.nan)
    return float(np.max(changes))
