"""`worldsim demo`: from a true world to a graded dream, and a report about it."""

import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval import Report, Suite, score_many
from eval.batch import Failure
from eval.pictures import beside, enlarged
from eval.report import Section, write_report
from eval.score import versions
from eval.suite import load_evaluators, write_json
from worldsim.checkpoint import resolve, shipped
from worldsim.cli.demo_cases import DREAM, FRESH_SEED, GIVEN, TRUTH, World, make_cases, world_of
from worldsim.cli.demo_own import continue_input
from worldsim.cli.demo_report import Graded, card_section, own_section, sections_of
from worldsim.cli.options import Many, flat
from worldsim.cli.output import output_folder
from worldsim.errors import ConfigError
from worldsim.simulator import Simulator, load
from worldsim.video import write_video

SCORES_FORMAT = 1
SIDE_BY_SIDE_PX = 256
MIN_FRAMES = GIVEN + 4
LEAD = "A video diffusion transformer learned a small world from video, actions and captions, and goes on by itself."
LEAD_CASES = (
    " Here it is shown the beginning of episodes it has never seen; what it dreams is graded against the truth, beside "
    "two baselines that a trustworthy measure must rank low."
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to show.

    Attributes:
        checkpoint: Learned worlds: shipped names or directories, one of each true world. By default every shipped one.
        out: Folder for report.html, scores.json and the videos.
        text: Your own text: what the (first) learned world makes of it.
        video: Your own video: how the (first) learned world goes on from it.
        seed: Everything random follows from it.
        cases: Fresh episodes of each world to grade it on; 0 to see only your own input. By default 4 of Bounce, 2 of
            Room.
        frames: Frames of each, the given ones among them.
    """

    checkpoint: Many[str] = ()
    out: Path = Path("out/demo")
    text: str | None = None
    video: Path | None = None
    seed: int = 0
    cases: int | None = None
    frames: int = 48


def run(options: Options) -> None:
    """Rolls out, grades, writes the report, and says where it is."""
    _check(options)
    say = _Clock()
    learned = _load(options, say)
    sections: list[Section] = []
    scores: dict[str, Any] = {}
    with output_folder(options.out) as folder:
        sections += _own(next(iter(learned.values()))[0], options, folder, say)
        for name, (simulator, world) in learned.items():
            if options.cases != 0:
                graded = _grade(world, simulator, options, say)
                _write_videos(folder, graded, say)
                sections += sections_of(graded, simulator)
                scores[world.title] = _plain(graded)
            card = (resolve(name) / "README.md").read_text(encoding="utf-8")
            sections.append(card_section(f"The checkpoint: {name}", card, simulator))
        listed = {"format": SCORES_FORMAT, "options": _options(options), "versions": _versions(), "worlds": scores}
        write_json(folder / "scores.json", listed)
        write_report(
            folder / "report.html",
            title="From a true world to a graded dream",
            lead=LEAD + (LEAD_CASES if options.cases != 0 else ""),
            sections=sections,
            provenance={
                "seed": f"{options.seed}; episodes recorded with seeds from {FRESH_SEED + options.seed:,}",
                **{k: v for k, v in _options(options).items() if v is not None and k != "seed"},
                **_versions(),
            },
        )
    print(f"report: {options.out / 'report.html'}")


class _Clock:
    """Prints progress with the time since the start."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"[{time.monotonic() - self.began:5.1f} s] {text}", flush=True)


def _check(options: Options) -> None:
    alone = options.text is None and options.video is None
    too_few = options.cases is not None and options.cases < (1 if alone else 0)
    if too_few or options.frames < MIN_FRAMES or options.seed < 0:
        raise ConfigError(
            expected=f"at least one case (or your own text or video), {MIN_FRAMES} frames, and a seed from 0",
            got=f"{options.cases} cases, {options.frames} frames, seed {options.seed}",
            remedy="Correct them.",
        )


def _load(options: Options, say: _Clock) -> dict[str, tuple[Simulator, World]]:
    """The learned worlds by name, each with the true one that it learned."""
    names = flat(options.checkpoint) or tuple(shipped())
    if options.cases == 0:
        names = names[:1]  # only the first is shown anything
    found: dict[str, tuple[Simulator, World]] = {}
    for name in names:
        simulator = load(name)
        world = world_of(simulator)
        if any(world is other for _, other in found.values()):
            raise ConfigError(
                expected="one checkpoint of each true world",
                got=f"two of {world.title}: {', '.join(names)}",
                remedy="Run the demo once for each.",
            )
        found[name] = (simulator, world)
        say(f"loaded {name}, a world learned from {world.title} ({simulator.fingerprint})")
    if not found:
        raise ConfigError(expected="a learned world", got="none shipped", remedy="Name one with --checkpoint.")
    return found


def _own(simulator: Simulator, options: Options, folder: Path, say: _Clock) -> list[Section]:
    own = continue_input(simulator, text=options.text, video=options.video, frames=options.frames, seed=options.seed)
    if own is None:
        return []
    for note in own.notes:
        say(note)
    report = _suite(("physics", "quality"), simulator)(own.clip)
    write_video(folder / "yours.mp4", enlarged_video(own.clip.frames), own.clip.fps)
    say(f"generated {len(own.clip) - own.given} frames from your {'text' if options.video is None else 'video'}")
    return [own_section(own, report)]


def _grade(world: World, simulator: Simulator, options: Options, say: _Clock) -> Graded:
    began = time.monotonic()
    count = world.cases if options.cases is None else options.cases
    cases = make_cases(
        world, simulator, cases=count, frames=options.frames, seed=options.seed, acting=world.shown or world.acting
    )
    took = time.monotonic() - began
    say(
        f"recorded {len(cases)} fresh episodes of {world.env_id} and dreamt each from its first {GIVEN} frames "
        f"({took:.1f} s)"
    )
    labels = list(cases[0].clips)
    clips = [case.clips[label] for case in cases for label in labels]

    def progress(count: int, _: Report | Failure) -> None:
        if count % len(labels) == 0:
            say(f"graded case {count // len(labels)} of {len(cases)}: {', '.join(labels)}")

    workers = min(2, os.cpu_count() or 1) if len(clips) > len(labels) else 1
    done = list(score_many(clips, _suite(world.suites, simulator), workers=workers, progress=progress).results)
    results = {label: done[i :: len(labels)] for i, label in enumerate(labels)}
    return Graded(world=world, cases=cases, results=results)


def _suite(names: tuple[str, ...], simulator: Simulator) -> Suite:
    """The suite, told how many frames were given and how far the world remembers."""
    told = {"context": GIVEN, "context_frames": simulator.checkpoint.model.config.window}
    known = {n: e for n, e in load_evaluators().items() if e.suite in names or n in names}
    config = {n: {k: v for k, v in told.items() if k in e.config()} for n, e in known.items()}
    return Suite.of(names, {n: c for n, c in config.items() if c})


def _write_videos(folder: Path, graded: Graded, say: _Clock) -> None:
    for k, case in enumerate(graded.cases, 1):
        stem = f"{graded.world.title.lower()}-{k}"
        truth, dreamt = case.clips[TRUTH], case.clips[DREAM]
        write_video(folder / f"{stem}-truth.mp4", truth.frames, truth.fps)
        write_video(folder / f"{stem}-dream.mp4", dreamt.frames, truth.fps)
        both = [beside([a, b])[..., :3] for a, b in zip(truth.frames, dreamt.frames, strict=True)]
        write_video(folder / f"{stem}-side-by-side.mp4", enlarged_video(both), truth.fps)
    say(f"wrote videos of {len(graded.cases)} cases: truth, dream, side by side")


def enlarged_video(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Small frames enlarged by a whole factor, for people to look at; (T, H', W', 3)."""
    return np.stack([enlarged(frame, SIDE_BY_SIDE_PX) for frame in frames])


def _plain(graded: Graded) -> dict[str, Any]:
    return {
        "env_id": graded.world.env_id,
        "cases": [
            {
                "seed": case.seed,
                "caption": case.caption,
                "policy": case.policy,
                "results": {label: results[k].to_json() for label, results in graded.results.items()},
            }
            for k, case in enumerate(graded.cases)
        ],
    }


def _options(options: Options) -> dict[str, Any]:
    listed = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()}
    return {**listed, "checkpoint": ", ".join(flat(options.checkpoint)) or "every shipped one"}


def _versions() -> dict[str, str]:
    return {**versions(), "torch": torch.__version__}
