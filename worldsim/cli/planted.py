"""Cases for `worldsim validate`: matched pairs, nuisances and degenerate clips from worlds whose truth is known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from envs.bounce import violations as bounce
from envs.bounce.env import BounceEnv
from envs.bounce.film import run, shoot
from envs.bounce.render import view_m
from envs.bounce.scenarios import SCENARIOS, make_scene
from envs.bounce.scene import Fixture, Scene, Solid
from envs.bounce.world import World
from envs.violations import NUISANCES, Record, makers, nuisance, pair
from eval import Clip
from eval.validity import Case, Variant, degenerate
from worldsim.video import read_video, write_video

SEVERITIES = (0.1, 0.3, 1.0)
NUISANCE_LEVEL = 0.5
# The nuisance of size: the same scenes drawn so many times larger.
LARGER = 2
LAWFUL_FRAMES = 48
TURN_FRAMES = 6
SLIDE_FRICTION = 0.3
# Seeds below were seen while the evaluators were made.
FIRST_HELD_OUT_SEED = 200_000
# Between what a disc fills of the circle about it, less a pixelated rim, and what a box does.
DISC_SHARE = 0.75
# Energy gains where a disc meets a wall alone are a quarter of all.
ENERGY_GAIN_SEEDS = 4
# For so many frame intervals after a gain nothing else may be met, and before and after it no other object may be
# nearer than this share of the side: otherwise the speed is never seen, or what changed it cannot be known.
SEEN_INTERVALS = 2
NEAR_SHARE = 0.05
# Violations that change the picture's brightness at once, and the severity at which they are also shown beside a lawful
# clip in which light does the same.
POPS = ("vanish", "appear", "duplicate", "colour_swap", "pass_through")
MATCHED_SEVERITY = 0.3


@dataclass(frozen=True)
class Job:
    """One seed of one kind of trial.

    Attributes:
        world: "bounce" or "room".
        kind: "violation", "matched" (its brightness matched), "nuisance" (with degenerate clips) or "lawful".
        name: Of the violation, or of the scenario.
        seed: Of the scene.
        size: Side of the square frames in pixels.
    """

    world: str
    kind: str
    name: str
    seed: int
    size: int


def jobs(world: str, *, pairs: int, lawful: int, size: int, first_seed: int) -> list[Job]:
    """All jobs of a world: `pairs` seeds of each violation and of nuisances, and at least `lawful` lawful clips."""
    names = [*makers(world), *(EXTRA if world == "bounce" else ())]
    seeds = {"energy_gain": ENERGY_GAIN_SEEDS * pairs}
    planned = [Job(world, "violation", n, first_seed + s, size) for n in names for s in range(seeds.get(n, pairs))]
    planned += [Job(world, "nuisance", "", first_seed + s, size) for s in range(pairs)]
    if world == "bounce":
        planned += [Job(world, "matched", n, first_seed + s, size) for n in POPS for s in range(pairs)]
        each = -(-lawful // len(SCENARIOS))
        planned += [Job(world, "lawful", n, first_seed + s, size) for n in SCENARIOS for s in range(each)]
    return planned


def build(job: Job) -> list[Case]:
    """The cases of a job: in Bounce from pixels alone and with masks, in Room with all truth."""
    rng = np.random.default_rng(job.seed)
    if job.kind == "violation":
        made = [(s, *_pair(job, s)) for s in SEVERITIES]
        return [_violation_case(job, made, mode) for mode in _modes(job.world)]
    if job.kind == "matched":
        lawful, violated = _lit_alike(*_pair(job, MATCHED_SEVERITY), rng)
        return [_matched_case(job, lawful, violated, mode) for mode in _modes(job.world)]
    if job.kind == "nuisance":
        record = _pair(job, SEVERITIES[-1])[0]
        changed = [(n, nuisance(n, record, NUISANCE_LEVEL, rng)) for n in NUISANCES]
        changed += [("codec", coded(record)), ("size", _pair(replace(job, size=LARGER * job.size), SEVERITIES[-1])[0])]
        return [_nuisance_case(job, record, changed, mode) for mode in _modes(job.world)]
    lawful = _recorded(job.name, job.seed, job.size)
    return [Case(mode=m, seed=job.seed, lawful=_clip(lawful, m), variants=()) for m in _modes(job.world)]


def _modes(world: str) -> tuple[str, ...]:
    return ("pixels", "masks") if world == "bounce" else ("truth",)


def _pair(job: Job, severity: float) -> tuple[Record, Record]:
    size = (job.size, job.size)
    if job.name in EXTRA:
        return EXTRA[job.name](np.random.default_rng(job.seed), severity, size)
    names = list(makers(job.world))
    return pair(job.name or names[job.seed % len(names)], job.seed, severity, size=size)


def _violation_case(job: Job, made: Sequence[tuple[float, Record, Record]], mode: str) -> Case:
    first = made[0][1]
    variants = []
    for severity, lawful, violated in made:
        own_twin = None if np.array_equal(lawful.frames, first.frames) else _clip(lawful, mode)
        clip = _clip(violated, mode)
        variants += [
            Variant(kind="violation", name=name, severity=severity, clip=clip, lawful=own_twin)
            for name in _labels(job.name, violated)
        ]
    return Case(mode=mode, seed=job.seed, lawful=_clip(first, mode), variants=tuple(variants))


def _matched_case(job: Job, lawful: Record, violated: Record, mode: str) -> Case:
    clip = _clip(violated, mode)
    variant = Variant(kind="violation", name=f"{job.name}_matched", severity=MATCHED_SEVERITY, clip=clip)
    return Case(mode=mode, seed=job.seed, lawful=_clip(lawful, mode), variants=(variant,))


def _lit_alike(lawful: Record, violated: Record, rng: np.random.Generator) -> tuple[Record, Record]:
    """The pair with the lawful clip under a light that makes it, frame by frame, as bright as the violated one.

    A thing that vanishes changes the mean brightness at once; so does a cloud, lawfully. Both clips are rounded after
    the same dither, for the light's steps may be smaller than a grey level.
    """
    gain = violated.frames.mean(axis=(1, 2, 3)) / lawful.frames.mean(axis=(1, 2, 3))
    dither = rng.uniform(-0.5, 0.5, lawful.frames.shape)
    lit = lawful.frames * gain[:, None, None, None], violated.frames
    shown = [np.clip(np.rint(frames + dither), 0, 255).astype(np.uint8) for frames in lit]
    return replace(lawful, frames=shown[0]), replace(violated, frames=shown[1])


def _labels(name: str, violated: Record) -> Iterator[str]:
    """The violation's name, and the name of the special case that it is."""
    yield name
    if name == "energy_gain" and _disc_meets_wall(violated):
        yield "energy_gain_at_wall"


def _disc_meets_wall(violated: Record) -> bool:
    """Whether the object that gains energy is a disc that meets nothing but a wall, in full view."""
    assert violated.onset is not None
    partners = _partners(violated, violated.onset - 1)
    hit = violated.onset - 1
    if any(_partners(violated, hit + i) for i in range(1, SEEN_INTERVALS + 1)):
        return False
    seen = range(max(hit - SEEN_INTERVALS, 0), hit + SEEN_INTERVALS + 1)
    if min(_clearance_px(violated, t) for t in seen) < NEAR_SHARE * violated.frames.shape[1]:
        return False
    rows, columns = np.nonzero(violated.truth["full_masks"][0, 0])
    reach = np.hypot(rows - rows.mean(), columns - columns.mean()).max() + 0.5
    # A disc fills the circle about it; the next best shape, a box, fills 64 % of it.
    is_disc = len(rows) > DISC_SHARE * np.pi * reach**2
    return is_disc and bool(partners) and max(partners) < 0


def _partners(record: Record, frame: int) -> list[int]:
    """What the first object has touched since the frame before: slots, or negative numbers for walls."""
    rows = record.truth["contacts"][frame][:, :2]
    return [int(b) for a, b in rows if a == 0] + [int(a) for a, b in rows if b == 0 and a > 0]


def _clearance_px(record: Record, frame: int) -> float:
    """Pixels between the outlines of the first object and of the nearest other one."""
    own, *others = record.truth["full_masks"][frame].astype(np.uint8)
    away = cv2.distanceTransform(1 - own, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return min((float(away[m > 0].min()) - 1.0 for m in others if m.any()), default=np.inf)


def coded(record: Record) -> Record:
    """The recording as it comes back from an mp4 file: H.264, chroma at half size."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, record.frames, record.fps)
        return replace(record, frames=read_video(path).frames)


def _nuisance_case(job: Job, record: Record, changed: Sequence[tuple[str, Record]], mode: str) -> Case:
    lawful = _clip(record, mode)
    variants = [
        Variant(kind="nuisance", name=name, severity=NUISANCE_LEVEL, clip=_clip(found, mode)) for name, found in changed
    ]
    variants += degenerate(lawful, np.random.default_rng(job.seed))
    return Case(mode=mode, seed=job.seed, lawful=lawful, variants=tuple(variants))


def _clip(record: Record, mode: str) -> Clip:
    truth = {k: np.asarray(v) for k, v in record.truth.items()}
    if mode == "pixels":
        truth = {}
    if mode == "masks":
        truth = {"segmentation": truth["segmentation"]}
    varied = np.ptp(record.actions, axis=0).any()
    actions = np.asarray(record.actions) if varied else None
    return Clip(frames=record.frames, fps=record.fps, truth=truth, actions=actions, text=record.text)


def _recorded(scenario: str, seed: int, size: int) -> Record:
    """A lawful episode of a scenario; an agent pushes at random, each action held for `TURN_FRAMES`."""
    world = BounceEnv(scenario=scenario, size=(size, size))
    rng = np.random.default_rng(seed)
    frame, info = world.reset(seed=seed)
    frames, truth, actions = [frame], [info["truth"]], []
    action = np.int64(0)
    for t in range(LAWFUL_FRAMES - 1):
        if t % TURN_FRAMES == 0:
            action = rng.integers(world.action_space.n)  # pyright: ignore[reportAttributeAccessIssue]
        frame, *_, info = world.step(action)
        frames.append(frame)
        truth.append(info["truth"])
        actions.append(action)
    return Record(
        frames=np.array(frames),
        actions=np.array(actions),
        truth={k: np.array([row[k] for row in truth]) for k in truth[0]},
        fps=10.0,
        text=info["caption"],
    )


# --- violations beyond those of the world, for laws that those hardly touch -----------------------------------------


def collision_gain(rng: np.random.Generator, severity: float, size: tuple[int, int]) -> tuple[Record, Record]:
    """Of two discs that collide in free space, one leaves 1 + severity times as fast: momentum from nowhere."""
    options = {"count": 2, "shape": "disc"}
    for _ in range(400):
        scene = make_scene("collision", rng=rng, options=options, view_m=view_m(size))
        lawful = run(scene, bounce.FRAMES)
        touched = [t for t, _ in lawful.touched(0)]
        if touched and 8 <= touched[0] <= 16:
            break
    else:
        raise RuntimeError("no collision in 400 draws")
    onset = touched[0]

    def push(t: int, world: World) -> None:
        if t == onset:
            state = world.state.copy()
            state.velocity_m_per_s[0] *= 1.0 + severity
            world.state = state

    return shoot(lawful, size), shoot(run(scene, bounce.FRAMES, change=push), size, onset=onset + 1)


def sliding_reversal(rng: np.random.Generator, severity: float, size: tuple[int, int]) -> tuple[Record, Record]:
    """A box slides on level ground and friction slows it; shown backwards, it speeds up by itself.

    The coefficient of friction is 0.3 severity.
    """
    w, _ = view_m(size)
    side = float(rng.uniform(0.7, 1.0))
    floor = Fixture(kind="floor", vertices_m=((0.0, 0.0), (w, 0.0), (w, 1.0), (0.0, 1.0)))
    box = Solid(
        shape="box",
        colour=("orange", "yellow", "cyan", "pink")[int(rng.integers(4))],
        radius_m=side,
        position_m=(1.2 * side + 0.1, 1.0 + side * np.sqrt(np.pi) / 2 + 1e-3),
        velocity_m_per_s=(float(rng.uniform(2.0, 2.6)), 0.0),
        friction=SLIDE_FRICTION * severity,
        restitution=0.0,
    )
    scene = Scene(solids=(box,), fixtures=(floor,), gravity_m_per_s2=(0.0, -4.0), view_m=view_m(size))
    lawful = shoot(run(scene, 24), size)
    backwards = {k: v[::-1].copy() for k, v in lawful.truth.items()}
    return lawful, replace(lawful, frames=lawful.frames[::-1].copy(), truth=backwards, onset=1)


EXTRA = {"collision_gain": collision_gain, "sliding_reversal": sliding_reversal}
