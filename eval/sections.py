"""Ready-made parts of a report: one clip in full, and the pictures that belong to what was measured on it."""

import numpy as np

from eval.clip import Clip
from eval.physics.tracks import track
from eval.pictures import tracks_picture
from eval.plots import evidence_plot
from eval.report import Block, Picture, Plot, Scores, Section, Videos
from eval.score import Score, Unmeasurable
from eval.suite import Report, is_validated, load_evaluators


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
        Scores(report=report),
    ]
    evidence = evidence_plot(list(report.values()), len(clip))
    if evidence is not None:
        caption = "What each measure saw, frame by frame; red: frames that it names as offending."
        blocks.append(Plot(svg=evidence, caption=caption))
    blocks += tracks_block(clip, report)
    return Section(title=clip.name, text=text, blocks=blocks)


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
