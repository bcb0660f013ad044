"""Reports: what is shown equals what was measured, and the page needs nothing beside it."""

import base64
import io
import math
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eval.batch import Failure
from eval.errors import EvalError, MeasureError
from eval.pictures import GIVEN_RGB, MARKED_RGB, beside, every_kth, heat, preview, strip
from eval.plots import evidence_plot, horizon_plot
from eval.report import Comparison, Facts, Note, Picture, Plot, Prose, Scores, Section, Videos, write_report
from eval.score import Score
from eval.suite import Report
from eval.tables import comparison_rows, measured_rows, show_frames, show_value, unmeasured_groups

VOID = {"meta", "img", "source", "br", "path", "use", "circle", "rect"}


def a_score(name="psnr", value=30.0, **changes):
    base = Score(
        name=name,
        unit="dB",
        better="higher",
        status="ok",
        value=value,
        normalised=0.75,
        uncertainty=0.5,
        coverage=0.9,
        per_frame=np.array([np.nan, 31.0, 29.0, 30.0]),
        offending=(2,),
        details={},
        reason=None,
        provenance={"evaluator": f"{name}@1"},
    )
    return replace(base, **changes)


def no_score(name, status="missing", reason="needs reference"):
    nothing = {"value": None, "normalised": None, "uncertainty": None, "per_frame": None}
    return a_score(name, **nothing, coverage=0.0, offending=(), status=status, reason=reason)


def a_report(*scores, clip="clip"):
    return Report(clip=clip, suite="test", input="0" * 16, scores={s.name: s for s in scores})


def video(count=4, size=(16, 24), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def animation(uri):
    image = decode(uri)
    frames, durations = [], []
    for t in range(image.n_frames):
        image.seek(t)
        frames.append(np.asarray(image.convert("RGBA")))
        durations.append(image.info["duration"])
    return np.stack(frames), durations


class Page(HTMLParser):
    """Reads a page; fails where tags do not close in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def full_section():
    scored = a_report(a_score(), no_score("tsed"), no_score("revisit"), no_score("sfm", "failed", "cv2 said no"))
    blocks = [
        Videos(panels={"truth": video(), "dream": video(seed=1)}, fps=10, given=2, marked={"dream": [3]}),
        Picture(image=video()[0], caption="A frame"),
        Plot(svg=horizon_plot({"PSNR / dB": {"dream": np.arange(8.0).reshape(2, 4)}}, 10, given=1), caption="Horizon"),
        Plot(svg=evidence_plot(list(scored.values()), 4), caption="Evidence"),
        Scores(report=scored),
        Comparison(groups={"truth": [scored, scored], "dream": [scored, Failure(clip="b", error="broken", trace="")]}),
        Facts(items={"seed": 3}),
        Note(text="Mind the gap", tone="warning"),
    ]
    return Section(title="A title", text="Some text", blocks=blocks)


def write(path, *sections, **changes):
    given = {"title": "T", "lead": "L", "provenance": {"seed": 0}, **changes}
    return write_report(path, sections=sections, **given)


# ---------------------------------------------------------------------------------------------- the page


def test_page_is_whole_and_needs_nothing_beside_it(tmp_path):
    html = write(tmp_path / "deep" / "report.html", full_section()).read_text()
    page = Page(html)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on")
        if name in {"src", "srcset", "href", "xlink:href"} and tag != "svg":
            assert value.startswith(("data:image/", "#")), (tag, value[:60])
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    text = " ".join(page.text)
    for wanted in ("A title", "psnr", "30.00 ± 0.50 dB", "needs reference", "cv2 said no", "Mind the gap", "broken"):
        assert wanted in text, wanted


def test_same_input_gives_the_same_bytes(tmp_path):
    a, b = (write(tmp_path / name, full_section()).read_bytes() for name in ("a.html", "b.html"))
    assert a == b


@settings(max_examples=20)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40))
def test_foreign_text_stays_text(tmp_path_factory, text):
    hostile = f"<script>alert('{text}')</script>&amp;"
    scored = a_report(a_score(), no_score("tsed", reason=hostile), clip=hostile)
    section = Section(title=hostile, text=hostile, blocks=[Scores(report=scored), Facts(items={hostile: hostile})])
    path = write(tmp_path_factory.mktemp("r") / "r.html", section, title=hostile, provenance={"name": hostile})
    html = path.read_text(encoding="utf-8")
    assert "<script" not in html
    assert unescape(html).count(hostile) >= 6


def test_a_failed_write_keeps_the_old_page_and_leaves_nothing(tmp_path):
    path = write(tmp_path / "r.html", Section(title="old"))
    before = path.read_bytes()
    uneven = Videos(panels={"a": video(4), "b": video(5)}, fps=10)
    with pytest.raises(MeasureError, match="one shape"):
        write(path, Section(title="new", blocks=[uneven]))
    with pytest.raises(EvalError, match="at least one section"):
        write(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    with pytest.raises(EvalError, match="to write"):
        write(path / "below_a_file.html", Section(title="x"))


# ---------------------------------------------------------------------------------------------- pictures


def test_preview_holds_every_pixel_in_step_and_keeps_the_pace():
    a, b = video(7), video(7, seed=1)
    shown = preview([a, b], fps=30)
    frames, durations = animation(shown.moving)
    assert shown.every == 1
    for t in range(7):
        assert np.array_equal(frames[t][:, :24, :3], a[t])
        assert np.array_equal(frames[t][:, -24:, :3], b[t])
    # 33, 34, 33, ... ms: no drift.
    assert abs(sum(durations) - 7 * 1000 / 30) <= 0.5
    assert np.array_equal(np.asarray(decode(shown.still).convert("RGBA")), beside([a[0], b[0]]))


def test_long_previews_are_thinned_out_and_say_so():
    still = np.zeros((200, 8, 8, 3), np.uint8)
    still[np.arange(200), 0, 0, 0] = np.arange(200)
    shown = preview([still], fps=10)
    frames, durations = animation(shown.moving)
    assert shown.every == 3
    assert frames[:, 0, 0, 0].tolist() == list(range(0, 200, 3))
    assert set(durations) == {300}


def test_strip_marks_what_was_given_and_what_broke():
    frames = video(9)
    row = np.asarray(decode(strip(frames, [0, 3, 6], given=2, marked=[4])))
    step = 24 + 4
    for i, t in enumerate([0, 3, 6]):
        assert np.array_equal(row[:16, i * step : i * step + 24, :3], frames[t])
    bars = [tuple(row[-1, i * step]) for i in range(3)]
    assert bars[0] == (*GIVEN_RGB, 255)
    # Frame 4 is not shown; the frame before it, 3, carries the mark.
    assert bars[1] == (*MARKED_RGB, 255)
    assert bars[2][3] == 0


@given(count=st.integers(1, 500), columns=st.integers(1, 20))
def test_every_kth_is_even_and_bounded(count, columns):
    picked = every_kth(count, columns)
    assert picked[0] == 0
    assert 1 <= len(picked) <= columns
    assert picked[-1] < count
    assert len(set(np.diff(picked))) <= 1


def test_heat_is_ordered_and_grey_where_unknown():
    values = np.array([[0.0, 0.5, 1.0, 5.0, np.nan]])
    row = heat(values, high=1.0, side_px=5)[0].astype(int)
    brightness = row.sum(axis=1)
    assert brightness[0] < brightness[1] < brightness[2] == brightness[3]
    assert row[4].tolist() == [128, 128, 128]


# ---------------------------------------------------------------------------------------------- plots


def polyline(svg, colour):
    """Data points of the first line of a colour, in SVG units."""
    path = re.search(rf'<path d="([^"]*)"[^>]*stroke: {colour}', svg)
    return np.array([[float(v) for v in p] for p in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path[1])])


def test_horizon_plot_draws_the_mean_over_cases_to_scale():
    curves = np.array([[0.0, 2.0, 8.0, 1.0], [2.0, 4.0, 10.0, np.nan]])
    line = polyline(horizon_plot({"x": {"dream": curves}}, fps=10), "#0072b2")
    mean = np.array([1.0, 3.0, 9.0, 1.0])
    fit = np.polyfit(mean, line[:, 1], 1)
    assert np.allclose(np.polyval(fit, mean), line[:, 1], atol=0.01)
    assert fit[0] < 0  # SVG's y axis points down
    assert np.allclose(np.diff(line[:, 0], n=2), 0, atol=0.01)


def test_plots_take_the_colour_of_the_page():
    svg = horizon_plot({"x": {"dream": np.ones((2, 3))}}, fps=10)
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert svg.startswith("<svg viewBox")


def test_no_evidence_no_plot():
    assert evidence_plot([no_score("tsed"), a_score(per_frame=np.full(4, np.nan))], 4) is None


# ---------------------------------------------------------------------------------------------- tables


def test_comparison_gives_mean_and_standard_error_over_cases():
    values = [29.0, 31.0, 36.0]
    reports = [a_report(a_score(value=v, normalised=n)) for v, n in zip(values, (0.2, 0.4, 0.9), strict=True)]
    broken = Failure(clip="d", error="VideoError: cut", trace="")
    (row,) = comparison_rows({"dream": [*reports, broken]})
    (cell,) = row.cells
    mean, error = np.mean(values), np.std(values, ddof=1) / math.sqrt(3)
    assert cell.value == f"{mean:.1f} ± {error:.1f}"
    assert (cell.measured, cell.total) == (3, 4)
    assert cell.normalised == pytest.approx((0.2 + 0.4 + 0.9 + 0.0) / 4)  # the failure counts as 0
    assert "VideoError: cut" in cell.reason
    assert row.has_gaps


def test_what_the_truth_allows_and_a_video_fails_counts_as_zero():
    truth = [a_report(a_score("rigidity")), a_report(no_score("rigidity", "inapplicable", "no object"))]
    dissolved = a_report(no_score("rigidity", "inapplicable", "no object"))
    (row,) = comparison_rows({"truth": truth, "dream": [dissolved, dissolved]}, truth="truth")
    assert row.cells[0].normalised == 0.75  # the second case has nothing to measure: not held against the truth
    assert row.cells[1].normalised == 0.0
    (row,) = comparison_rows({"dream": [dissolved, dissolved]})
    assert row.cells[0].normalised is None
    with pytest.raises(EvalError, match="as many results"):
        comparison_rows({"truth": truth, "dream": [dissolved]}, truth="truth")


def test_comparison_of_nothing_is_refused():
    with pytest.raises(EvalError, match="at least one scored clip"):
        comparison_rows({"dream": [Failure(clip="d", error="e", trace="")]})


def test_every_score_of_a_clip_is_shown_once():
    scored = a_report(a_score("psnr"), a_score("ssim"), no_score("tsed"), no_score("sfm"), no_score("flow", reason="x"))
    names = [r.name for r in measured_rows(scored)] + [n for g in unmeasured_groups(scored) for n in g.names]
    assert sorted(names) == sorted(scored)
    assert len(unmeasured_groups(scored)) == 2


@given(value=st.floats(-1e4, 1e4), relative=st.floats(1e-3, 1.0))
def test_shown_values_are_right_to_a_tenth_of_their_error(value, relative):
    error = max(abs(value) * relative, 1e-4)
    shown, after = show_value(value, error, "dB").split(" ± ")
    assert abs(float(shown) - value) <= 0.1 * error
    assert float(after.removesuffix(" dB")) == pytest.approx(error, rel=0.06)


def test_tiny_errors_are_not_shown_as_none():
    assert show_value(0.334253, 2e-9) == "0.334253 ± 2e-09"


@given(st.sets(st.integers(0, 60), max_size=8))
def test_shown_frames_read_back(frames):
    found = set()
    for part in filter(None, show_frames(sorted(frames)).split(", ")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    assert found == frames


def test_long_lists_of_frames_are_counted_not_dropped():
    assert show_frames(range(0, 40, 2)).endswith("and 12 more")


def test_prose_is_rendered_and_carries_nothing_in(tmp_path):
    text = (
        "# A card\n\nFor **some** `frames`.\n\n| figure | value |\n|---|---|\n| PSNR | 31.3 dB |\n\n"
        "<script>alert(1)</script>\n\n![far](https://example.org/a.png)\n\n[bad](javascript:alert(1))\n"
    )
    path = write_report(
        tmp_path / "r.html",
        title="t",
        lead="l",
        sections=[Section(title="s", blocks=[Prose(text=text)])],
        provenance={},
    )
    html = path.read_text()
    for wanted in ("<h2>A card</h2>", "<strong>some</strong>", "<code>frames</code>", "<td>31.3 dB</td>"):
        assert wanted in html
    for unwanted in ("<script>", "<img", 'href="javascript', "**some**", "|---|"):
        assert unwanted not in html
