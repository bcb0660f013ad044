"""The demo's report: what the learned world made of cases it had never seen, beside the truth and two bad baselines."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from eval import Clip, Report, Unmeasurable
from eval.batch import Failure
from eval.errors import EvalError
from eval.geometry.known_depth import check_pair, views
from eval.geometry.pictures import depth_cloud, residual_heat
from eval.physics.tracks import track
from eval.pictures import beside, enlarged, tracks_picture
from eval.plots import FEWEST_FOR_INTERVAL, evidence_plot, horizon_plot
from eval.report import Block, Comparison, Facts, Note, Picture, Plot, Prose, Scores, Section, Videos
from eval.sections import CLOUD_FRAMES, breaks, clip_section, forgetting_block
from eval.tables import UNEVEN_SHARE, show_value
from worldsim.cli.demo_cases import DREAM, GIVEN, SHUFFLED, STILL, TRUTH, Case, World
from worldsim.cli.demo_own import OwnInput
from worldsim.simulator import Simulator

Result = Report | Failure
_CURVES_CAPTION = (
    f"Mean over cases with its 95 % interval; of fewer than {FEWEST_FOR_INTERVAL}, each case, thin. Grey: the frames "
    "that were given; what lies beyond the axes is cut off."
)
_CURVES_EXPLAINED = {
    "divergence_horizon": " Agreement with the truth: anomaly concordance, 1 the same, 0 no better than the scene "
    "without its moving things.",
    "residual_flow": " Not explained by the camera: share of the picture that still moves when the commanded camera "
    "carries one frame to the next; gaps where nothing could be tested.",
}


@dataclass(frozen=True, kw_only=True)
class Graded:
    """Cases of one world with their scores: `results[label][k]` belongs to `cases[k].clips[label]`."""

    world: World
    cases: Sequence[Case]
    results: Mapping[str, Sequence[Result]]


def sections_of(graded: Graded, simulator: Simulator) -> list[Section]:
    """Overview, cases and instruments of one world."""
    world = graded.world
    shown = [_videos(graded, k) for k in range(len(graded.cases))]
    overview: list[Block] = [
        Facts(items=_headline(graded, simulator)),
        shown[0],
        Plot(
            svg=_curves(graded), caption=_CURVES_CAPTION + "".join(_CURVES_EXPLAINED.get(c, "") for c in world.curves)
        ),
        Comparison(
            groups=graded.results,
            truth=TRUTH,
            caption="Every video is measured in the same way, from its pixels and actions"
            + (", with the camera and depth that the dream was asked to show." if world.known else "."),
        ),
    ]
    more = [Section(title=f"{world.title}: the other cases", blocks=shown[1:])] if len(shown) > 1 else []
    return [
        Section(title=f"{world.title}: how far the dream can be trusted", text=_HOW_MADE, blocks=overview),
        *more,
        Section(title=f"{world.title}: what the instruments saw in case 1", blocks=_instruments(graded)),
    ]


def _videos(graded: Graded, k: int) -> Videos:
    case = graded.cases[k]
    return Videos(
        panels={label: clip.frames for label, clip in case.clips.items()},
        fps=case.clips[TRUTH].fps,
        given=GIVEN,
        marked={label: _breaks(results[k]) for label, results in graded.results.items()},
        caption=f"Case {k + 1}, seed {case.seed}, {case.policy}: “{case.caption}”",
    )


_HOW_MADE = (
    f"The learned world gets the first {GIVEN} frames, the caption and the actions of a fresh episode, and goes on "
    f"alone. “{STILL.capitalize()}” and “{SHUFFLED}” are what a measure must not like: one never moves wrongly, "
    "the other has every right picture at the wrong time. Red bars: frames that a measure of physics or geometry "
    "names, those with a passing validity card where any has one."
)


def own_section(own: OwnInput, report: Report) -> Section:
    """A person's text or video, what the world made of it, and its scores."""
    prompt = "" if own.clip.text is None else f"“{own.clip.text}”\n"
    shown = clip_section(own.clip, report, given=own.given, text=prompt + " ".join(own.notes))
    return Section(title=f"Yours: {own.clip.name}", text=shown.text, blocks=shown.blocks)


def card_section(title: str, card: str, simulator: Simulator) -> Section:
    """What a checkpoint says about itself."""
    # The section has a heading of its own.
    text = re.sub(r"^# .*\n", "", card.strip())
    facts = {"fingerprint": simulator.fingerprint, **simulator.checkpoint.meta.get("data", {})}
    return Section(title=title, blocks=[Prose(text=text), Facts(items=facts)])


def _headline(graded: Graded, simulator: Simulator) -> dict[str, object]:
    model, tokenizer = simulator.checkpoint.model, simulator.checkpoint.tokenizer
    size = sum(p.numel() for m in (model, tokenizer) for p in m.parameters())
    height, width = simulator.frame_size
    steps = "one denoising step" if simulator.sampling.steps == 1 else f"{simulator.sampling.steps} denoising steps"
    facts: dict[str, object] = {
        "learned world": f"{size / 1e6:.2f} million weights, {height}×{width} at {simulator.fps:g} frames/s, sees the "
        f"last {model.config.window} frames, {steps} a frame",
        "cases": f"{len(graded.cases)} fresh episodes of {graded.world.env_id}, "
        f"{len(graded.cases[0].clips[TRUTH])} frames each, {GIVEN} given",
    }
    for name, text in graded.world.headline.items():
        shares = {label: _coverage(results, name) for label, results in graded.results.items()}
        # What dissolves leaves little to test: its value alone would flatter it.
        known = [share for share in shares.values() if share is not None]
        uneven = bool(known) and max(known) - min(known) > UNEVEN_SHARE
        values = {
            label: _mean(results, name, f" (tests {shares[label]:.0%})" if uneven and shares[label] is not None else "")
            for label, results in graded.results.items()
        }
        # The truth has no score against itself.
        if values[TRUTH] is None:
            del values[TRUTH]
        if any(values.values()):
            facts[text] = "; ".join(f"{label} {value or 'not measurable'}" for label, value in values.items())
    return facts


def _mean(results: Sequence[Result], name: str, after: str) -> str | None:
    scores = [r[name] for r in results if isinstance(r, Report) and name in r]
    values = [s.value for s in scores if s.value is not None]
    if not values:
        return None
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return show_value(float(np.mean(values)), error, scores[0].unit) + after


def _coverage(results: Sequence[Result], name: str) -> float | None:
    """Mean share of the clips that a measure's values rest on; None without a value."""
    scores = [r[name] for r in results if isinstance(r, Report) and name in r]
    shares = [s.coverage for s in scores if s.value is not None]
    return float(np.mean(shares)) if shares else None


def _curves(graded: Graded) -> str:
    frames = len(graded.cases[0].clips[TRUTH])
    panels: dict[str, dict[str, np.ndarray]] = {}
    for name, title in graded.world.curves.items():
        curves = {
            label: np.stack([_per_frame(r, name, frames) for r in results]) for label, results in graded.results.items()
        }
        panels[title] = {label: c for label, c in curves.items() if label != TRUTH or np.isfinite(c).any()}
    return horizon_plot(panels, graded.cases[0].clips[TRUTH].fps, given=GIVEN)


def _per_frame(result: Result, name: str, frames: int) -> np.ndarray:
    found = result[name].per_frame if isinstance(result, Report) and name in result else None
    return np.full(frames, np.nan) if found is None else found


def _breaks(result: Result) -> tuple[int, ...]:
    return breaks(result) if isinstance(result, Report) else ()


def _instruments(graded: Graded) -> list[Block]:
    case, blocks = graded.cases[0], []
    blocks += [*_heat(case), *_clouds(case)] if graded.world.known else _tracks(case)
    result = graded.results[DREAM][0]
    if isinstance(result, Failure):
        return [*blocks, Note(text=f"The dream could not be scored: {result.error}", tone="warning")]
    evidence = evidence_plot(list(result.values()), len(case.clips[DREAM]))
    if evidence is not None:
        blocks.append(Plot(svg=evidence, caption="The dream, frame by frame; red: frames that a measure names."))
    return [*blocks, *forgetting_block(result), Scores(report=result)]


def _tracks(case: Case) -> list[Block]:
    pictures, notes = [], []
    for label in (TRUTH, DREAM):
        clip = case.clips[label]
        try:
            pictures.append(tracks_picture(clip.frames, track(clip)))
        except Unmeasurable as none:
            notes.append(Note(text=f"No objects could be tracked in the {label}: {none.reason}."))
    if not pictures:
        return list(notes)
    caption = "Paths of the objects as tracked from pixels alone: the truth, then the dream; ring: start, disc: end."
    return [Picture(image=beside(pictures), caption=caption), *notes]


def _heat(case: Case) -> list[Block]:
    """Residual flow between two frames of every video, at the pair that lets most of truth and dream be tested."""
    reach = 4
    pictures = []
    try:
        start = _testable(case, reach)
        for clip in case.clips.values():
            seen, K = views(clip)
            check = check_pair(seen[start + reach], seen[start], K)
            if check is None:
                return [Note(text="No two frames of case 1 see enough of the same place for a map of residual flow.")]
            pictures.append(enlarged(residual_heat(clip.frames[start + reach], check), 256))
    except EvalError as error:
        return [Note(text=f"No map of residual flow: {error}")]
    labels = ", ".join(case.clips)
    caption = (
        f"What still moves after frame {start} is carried to frame {start + reach} by the commanded camera and depth: "
        "blue nothing, red 2 px and more at 256 px a side, bare: not testable. From the left: "
        f"{labels}. Of the pairs in which the camera moves at least as much as in most, the one of which most can be "
        "tested in both truth and dream."
    )
    return [Picture(image=beside(pictures), caption=caption)]


def _testable(case: Case, reach: int) -> int:
    """The first frame of the pair, `reach` frames apart, of which most can be tested in both truth and dream."""
    moved = _camera_steps(case.clips[TRUTH], reach)[GIVEN:]
    starts = GIVEN + np.flatnonzero(moved >= np.median(moved))
    shares = np.ones(len(starts))
    for label in (TRUTH, DREAM):
        seen, K = views(case.clips[label])
        checks = [check_pair(seen[start + reach], seen[start], K) for start in starts]
        shares = np.minimum(shares, [0.0 if c is None else float(c.tested.mean()) for c in checks])
    return int(starts[shares.argmax()])


def _clouds(case: Case) -> list[Block]:
    """Truth and dream put into the room by the commanded camera and depth."""
    pictures = []
    for label in (TRUTH, DREAM):
        frames, truth = case.clips[label].frames, case.clips[label].truth
        chosen = np.linspace(0, len(frames) - 1, CLOUD_FRAMES).round().astype(int)
        depth_m, poses = truth["depth_m"][chosen], truth["world_from_camera"][chosen]
        pictures.append(depth_cloud(frames[chosen], depth_m, poses, truth["K"][0]))
    caption = (
        f"The pixels of {CLOUD_FRAMES} frames where the commanded camera and depth put them, from above, with the "
        "cameras (blue): the truth, then the dream. Where a video shows one room, its walls have their colours."
    )
    return [Picture(image=beside(pictures), caption=caption)]


def _camera_steps(clip: Clip, reach: int) -> np.ndarray:
    """Angle and distance, added up, that the camera moves from frame t to t + reach."""
    poses = clip.truth["world_from_camera"]
    steps = []
    for a, b in pairwise(poses):
        turn = np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1)
        steps.append(float(np.arccos(turn) + np.linalg.norm(b[:3, 3] - a[:3, 3])))
    return np.convolve(steps, np.ones(reach), "valid")
