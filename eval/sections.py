"""Ready-made parts of a report: one clip in full, and the pictures that belong to what was measured on it."""

import cv2
import numpy as np

from eval.clip import Clip
from eval.errors import EvalError
from eval.geometry import pictures
from eval.geometry.guards import spread
from eval.geometry.known_depth import check_pair, views
from eval.geometry.matching import matched_points
from eval.geometry.parallax import two_view
from eval.geometry.sfm import reconstruct
from eval.geometry.unknown import pairs_at, working_frames
from eval.physics.tracks import track
from eval.pictures import beside, enlarged, tracks_picture
from eval.plots import evidence_plot, forgetting_plot
from eval.report import Block, Facts, Note, Picture, Plot, Scores, Section, Videos
from eval.score import EVALUATORS, Score, Unmeasurable
from eval.suite import Report, is_validated, load_evaluators
from eval.tables import show_frames

HEAT_PX = 256
CLOUD_FRAMES = 12
LINE_PX = 1.0
LACKING = "for want of what the clip does not come with (camera, depth, masks, a reference, a network)"


def clip_section(clip: Clip, report: Report, *, given: int = 0, text: str = "") -> Section:
    """One clip in full: the video (beside its reference), every score, evidence frame by frame, tracks of objects.

    Args:
        clip: What was scored.
        report: Its scores.
        given: Number of leading frames that were given, not predicted.
        text: A paragraph below the heading.
    """
    panels = {} if clip.reference is None else {"reference": clip.reference.frames}
    label = "video" if clip.reference is None else "clip"
    marked = {label: breaks(report)}
    blocks: list[Block] = [
        Videos(panels={**panels, label: clip.frames}, fps=clip.fps, given=given, marked=marked),
        Facts(items=verdicts(report)),
        Scores(report=report),
    ]
    evidence = evidence_plot(list(report.values()), len(clip))
    if evidence is not None:
        caption = "What each measure saw, frame by frame; red: frames that it names as offending."
        blocks.append(Plot(svg=evidence, caption=caption))
    blocks += [*tracks_block(clip, report), *heat_block(clip, report), *forgetting_block(report)]
    blocks += [*matches_block(clip, report), *cloud_block(clip, report)]
    return Section(title=clip.name, text=text, blocks=blocks)


def verdicts(report: Report) -> dict[str, str]:
    """By suite, in words: what could be measured, where something broke, and why the rest could not be tested."""
    known = load_evaluators()
    suites: dict[str, list[Score]] = {}
    for name, found in report.scores.items():
        suites.setdefault(known[name].suite if name in known else "other", []).append(found)
    return {suite: _verdict(scores) for suite, scores in suites.items()}


def _verdict(scores: list[Score]) -> str:
    given = [s for s in scores if s.value is not None]
    reasons: dict[str, int] = {}
    for s in scores:
        if s.value is None:
            reason = LACKING if s.status == "missing" else f"{s.status}: {s.reason}"
            reasons[reason] = reasons.get(reason, 0) + 1
    without = "; ".join(f"{count} {reason}" for reason, count in reasons.items())
    if not given:
        return f"Nothing could be tested. {without}."
    trusted = {s.name for s in given if is_validated(s)}
    broke = {s.name: f"{s.name} at frames {show_frames(s.offending)}" for s in given if s.offending}
    sure = "; ".join(text for name, text in broke.items() if name in trusted)
    unsure = "; ".join(text for name, text in broke.items() if name not in trusted)
    parts = [
        f"{len(given)} of {len(scores)} measures have a value",
        f"with a passing card: {', '.join(sorted(trusted)) or 'none of them'}",
        *([f"broken: {sure}"] if sure else []),
        *([f"named by measures without a passing card: {unsure}"] if unsure else []),
        *([f"without a value: {without}"] if without else []),
    ]
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def breaks(report: Report) -> tuple[int, ...]:
    """Frames that a measure of physics or geometry names as offending.

    Measures without a passing validity card are not listened to, unless none has one.
    """
    heard = measured(report, "physics", "geometry")
    heard = [s for s in heard if is_validated(s)] or heard
    return tuple(sorted({i for s in heard for i in s.offending}))


def measured(report: Report, *suites: str) -> list[Score]:
    """The scores of these suites that have a value."""
    known = load_evaluators()
    return [s for n, s in report.scores.items() if s.value is not None and n in known and known[n].suite in suites]


def tracks_block(clip: Clip, report: Report) -> list[Block]:
    """The tracks that the laws of physics were tested on, or nothing where none of them was."""
    if not measured(report, "physics"):
        return []
    try:
        tracks = track(clip)
    except Unmeasurable:
        return []
    source = {"segmentation": "the true masks", "tracker": "a given tracker"}.get(tracks.source, "pixels alone")
    noise = float(np.median(tracks.noise_px)) * tracks.scale
    caption = (
        f"{len(tracks)} objects tracked from {source}, to {noise:.2f} px (median); ring: start, disc: end, "
        "thin: not seen in between."
    )
    return [Picture(image=tracks_picture(clip.frames, tracks), caption=caption)]


def heat_block(clip: Clip, report: Report) -> list[Block]:
    """Residual flow of the frame that the commanded camera and depth explain worst, where that could be measured."""
    found = report.scores.get("residual_flow")
    if found is None or found.value is None or found.per_frame is None:
        return []
    worst = int(np.nanargmax(found.per_frame))
    seen, K = views(clip)
    check = check_pair(seen[worst], seen[worst - 1], K)
    if check is None:
        return []
    caption = (
        f"What still moves after frame {worst - 1} is carried to frame {worst} by the commanded camera and depth, at "
        "the frame that is explained worst: blue nothing, red 2 px and more at 256 px a side, bare: not testable."
    )
    picture = enlarged(pictures.residual_heat(clip.frames[worst], check), HEAT_PX)
    return [Picture(image=beside([enlarged(clip.frames[worst], HEAT_PX), picture]), caption=caption)]


def forgetting_block(report: Report) -> list[Block]:
    """What is kept of places by the time that the camera looked elsewhere, where it came back."""
    found = report.scores.get("revisit")
    if found is None or found.value is None:
        return []
    away, share = found.details["curve_away_frames"], found.details["curve_share"]
    true = found.details.get("curve_reference_share")
    caption = "What is the same when the camera looks at a place again: 1 all of it, 0 no more than another place."
    return [Plot(svg=forgetting_plot(away, share, true), caption=caption)]


def matches_block(clip: Clip, report: Report) -> list[Block]:
    """Epipolar lines of the pair of frames that one rigid scene explains worst, where that could be measured."""
    found = report.scores.get("epipolar_magsac")
    if found is None or found.value is None or found.per_frame is None:
        return []
    config = EVALUATORS["epipolar_magsac"].config()
    pairs = {b: a for a, b in pairs_at(clip, float(str(config["gap_s"])), int(str(config["max_pairs"])))}
    shares = {b: float(found.per_frame[b]) for b in pairs if np.isfinite(found.per_frame[b])}
    frames = working_frames(clip)
    for b in sorted(shares, key=shares.__getitem__):
        in_a, in_b = matched_points(frames[pairs[b]], frames[b])
        fit = two_view(in_a, in_b, threshold_px=LINE_PX)
        if fit is None or fit.F is None:
            continue
        size = (frames.shape[2], frames.shape[1])
        view_a, view_b = (cv2.resize(clip.frames[i], size, interpolation=cv2.INTER_AREA) for i in (pairs[b], b))
        within = float((fit.sampson_px < LINE_PX).mean())
        caption = (
            f"Frames {pairs[b]} and {b}, of the frames that match those that a rigid scene and a moving camera explain "
            f"worst: {within:.0%} of {len(fit.inliers)} matches lie within a pixel of their epipolar lines (green)."
        )
        picture = pictures.epipolar_lines(view_a, view_b, in_a, in_b, fit.F, threshold_px=LINE_PX)
        return [Picture(image=picture, caption=caption)]
    return []


def cloud_block(clip: Clip, report: Report) -> list[Block]:
    """The scene and the cameras from above: as structure from motion builds them, or as depth and pose tell them."""
    found = report.scores.get("sfm")
    if found is None or not found.value:
        return _told_cloud(clip, report)
    chosen = spread(len(clip), int(str(EVALUATORS["sfm"].config()["max_frames"])))
    try:
        model = reconstruct(working_frames(clip)[chosen])
    except EvalError as error:
        return [Note(text=f"No picture of the model: {error}")]
    caption = (
        f"Structure from motion, from above: {len(model.points)} points and {int(model.registered.sum())} of "
        f"{len(chosen)} cameras (blue)."
    )
    return [Picture(image=pictures.reconstruction(model), caption=caption)]


def _told_cloud(clip: Clip, report: Report) -> list[Block]:
    found = report.scores.get("residual_flow")
    if found is None or found.value is None:
        return []
    chosen = spread(len(clip), CLOUD_FRAMES)
    poses, K = clip.truth["world_from_camera"], views(clip)[1]
    image = pictures.depth_cloud(clip.frames[chosen], clip.truth["depth_m"][chosen], poses[chosen], K)
    caption = (
        f"The pixels of {len(chosen)} frames where the commanded camera and depth put them, from above, with the "
        "cameras (blue); where frames disagree about a place, colours mix."
    )
    return [Picture(image=image, caption=caption)]
