"""Plots for reports, as SVG that takes the page's text colour. Matplotlib is imported on first use."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from eval.pictures import MARKED_RGB, SERIES_RGB
from eval.score import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST_FOR_INTERVAL = 4
# Stands for "the page's text colour" until the SVG is written; no series uses it.
_TEXT = "#010203"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "worldsim",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _TEXT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "legend.frameon": False,
}


def horizon_plot(panels: Mapping[str, Mapping[str, np.ndarray]], fps: float, *, given: int = 0) -> str:
    """Curves over video time, one panel a measure: mean over cases with its 95 % interval (Student's t).

    Of fewer than `FEWEST_FOR_INTERVAL` cases each is drawn instead, thin: their interval would fill the panel. The axes
    show 98 % of all values; what lies beyond is cut off.

    Args:
        panels: Title of the panel ("PSNR / dB") to curves by label, each (cases, T) with NaN where there is no value.
        fps: Frames per second.
        given: Number of leading frames that were given; the shaded part.

    Returns:
        SVG.
    """
    figure, axes = _figure(len(panels), columns=3, height=2.5)
    # A label has one colour in all panels, also where a panel lacks some of them.
    labels = dict.fromkeys(label for curves in panels.values() for label in curves)
    colours = {label: _hex(SERIES_RGB[i % len(SERIES_RGB)]) for i, label in enumerate(labels)}
    for ax, (title, curves) in zip(axes, panels.items(), strict=False):
        for label, values in curves.items():
            _band(ax, np.atleast_2d(values), fps, label, colours[label])
        if given:
            ax.axvspan(0, (given - 0.5) / fps, color="#808080", alpha=0.15, lw=0)
        _limit(ax, np.concatenate([np.ravel(v) for v in curves.values()]))
        ax.set_title(title, loc="left", fontsize=9, fontweight="bold")
        ax.set_xlabel("time / s")
    drawn = {label: line for ax in axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    shown = {label: drawn[label] for label in labels if label in drawn}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=len(shown), frameon=False, fontsize=9)
    return _svg(figure)


def evidence_plot(scores: Sequence[Score], num_frames: int) -> str | None:
    """What each measure saw frame by frame, offending frames marked in red.

    Args:
        scores: Scores of one clip.
        num_frames: Its length.

    Returns:
        SVG, or None where no score has evidence per frame.
    """
    shown = [s for s in scores if s.per_frame is not None and np.isfinite(s.per_frame).any()]
    if not shown:
        return None
    figure, axes = _figure(len(shown), columns=3, height=1.5)
    for ax, found in zip(axes, shown, strict=False):
        values = np.asarray(found.per_frame, float)
        ax.plot(values, color=_hex(SERIES_RGB[0]), lw=1.2, marker=".", ms=3)
        bad = np.array([i for i in found.offending if i < len(values)], int)
        for i in bad:
            ax.axvline(i, color=_hex(MARKED_RGB), alpha=0.25, lw=1.5)
        ax.plot(bad, values[bad], "o", color=_hex(MARKED_RGB), ms=4)
        ax.set_title(
            found.name + ("" if found.unit == "1" else f" / {found.unit}"), loc="left", fontsize=9, fontweight="bold"
        )
        ax.set_xlim(-0.5, num_frames - 0.5)
        ax.locator_params(axis="y", nbins=4)
    for ax in axes[max(0, len(shown) - 3) : len(shown)]:
        ax.set_xlabel("frame")
    return _svg(figure)


def interval_plot(panels: Mapping[str, Mapping[str, np.ndarray]], *, across: str, level: float | None = None) -> str:
    """Values with their intervals over a setting, one panel a subject.

    Args:
        panels: Title of the panel to curves by label, each (n, 4): setting, value, lower and upper end of its interval.
        across: Name of the setting.
        level: A horizontal line: what chance gives.

    Returns:
        SVG.
    """
    figure, axes = _figure(len(panels), columns=4, height=1.9)
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for i, (label, points) in enumerate(curves.items()):
            colour, (at, value, low, high) = _hex(SERIES_RGB[i % len(SERIES_RGB)]), np.asarray(points, float).T
            ax.plot(at, value, color=colour, lw=1.5, marker="o", ms=3, label=label)
            ax.fill_between(at, low, high, color=colour, alpha=0.15, lw=0)
        if level is not None:
            ax.axhline(level, color=_TEXT, lw=0.6, ls=":")
        ax.set_ylim(-0.02, 1.02)
        ax.set_title(title, loc="left", fontsize=9, fontweight="bold")
        ax.set_xlabel(across)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return _svg(figure)


def forgetting_plot(
    away_frames: Sequence[float], share: Sequence[float], reference_share: Sequence[float] | None = None
) -> str:
    """What is kept of a place (1 all of it, 0 no more than another place) by frames that the camera looked away.

    Args:
        away_frames: (L,) increasing.
        share: (L,), see `eval.geometry.memory.forgetting_curve`.
        reference_share: (L,) of the true video, or None.

    Returns:
        SVG.
    """
    figure, (ax,) = _figure(1, columns=1, height=2.0)
    ax.plot(away_frames, share, color=_hex(SERIES_RGB[0]), lw=1.5, marker="o", ms=4, label="this video")
    if reference_share is not None:
        colour = _hex(SERIES_RGB[1])
        ax.plot(away_frames, reference_share, color=colour, lw=1.5, marker="o", ms=4, label="the true video")
    for level in (0.0, 1.0):
        ax.axhline(level, color=_TEXT, lw=0.6, ls=":")
    ax.set_ylim(min(0.0, *share, *(reference_share or ())) - 0.05, 1.05)
    ax.set_title("share of a place that is kept", loc="left", fontsize=9, fontweight="bold")
    ax.set_xlabel("frames looked away")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return _svg(figure)


def _limit(ax: "Axes", values: np.ndarray) -> None:
    """Fits the axis to the values: an interval over few cases, or a lone identical frame, would crush the curves."""
    values = values[np.isfinite(values)]
    if len(values):
        low, high = np.quantile(values, [0.01, 0.99])
        margin = 0.08 * (high - low) or 1.0
        ax.set_ylim(low - margin, high + margin)


def _band(ax: "Axes", values: np.ndarray, fps: float, label: str, colour: str) -> None:
    known = np.isfinite(values)
    count = known.sum(axis=0)
    shown = count > 0
    if not shown.any():
        return
    total = np.where(known, values, 0.0).sum(axis=0)
    mean = np.divide(total, count, out=np.full(len(count), np.nan), where=shown)
    time = np.arange(len(mean)) / fps
    ax.plot(time, mean, color=colour, lw=1.5, label=label)
    if len(values) < FEWEST_FOR_INTERVAL:
        ax.plot(time, values.T, color=colour, lw=0.7, alpha=0.5)
        return
    many = count >= FEWEST_FOR_INTERVAL
    if many.any():
        spread = np.where(known, values - mean, 0.0)
        variance = (spread**2).sum(axis=0)[many] / (count[many] - 1)
        half = stats.t.ppf(0.975, count[many] - 1) * np.sqrt(variance / count[many])
        ax.fill_between(time[many], mean[many] - half, mean[many] + half, color=colour, alpha=0.18, lw=0)


def _figure(panels: int, *, columns: int, height: float) -> tuple["Figure", list["Axes"]]:
    """A figure with a grid of axes; those beyond `panels` are left out."""
    from matplotlib import rc_context  # noqa: PLC0415 - only when a plot is drawn
    from matplotlib.figure import Figure  # noqa: PLC0415

    columns = min(columns, panels)
    rows = -(-panels // columns)
    with rc_context(_STYLE):
        figure = Figure(figsize=(10.0, rows * height + 0.5), layout="constrained")
        axes = [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]
    return figure, axes


def _svg(figure: "Figure") -> str:
    from matplotlib import rc_context  # noqa: PLC0415 - only when a plot is drawn

    buffer = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None}
    with rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_TEXT, "currentColor")
    # The page sets the size; the view box keeps the proportions.
    return re.sub(
        r'^<svg[^>]*?(viewBox="[^"]*")[^>]*>',
        r'<svg \1 xmlns="http://www.w3.org/2000/svg" '
        r'xmlns:xlink="http://www.w3.org/1999/xlink" role="img">',
        text,
        count=1,
        flags=re.DOTALL,
    )


def _hex(rgb: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)
