"""What a shipped world is to reach, beside what it reaches: the table that a card begins with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from worldsim.cli.card_rows import Figure


@dataclass(frozen=True, kw_only=True)
class Aim:
    """An aim.

    Attributes:
        figure: How the name of the figure that it is judged by begins, its only one of that beginning.
        bound: Whether the figure is to lie above or below the target.
        target: Which it may reach.
    """

    figure: str
    bound: Literal["at least", "at most"]
    target: float

    def find(self, figures: Sequence[Figure]) -> Figure | None:
        """The figure, or None where it could not be measured."""
        found = [f for f in figures if f.name.startswith(self.figure)]
        assert len(found) <= 1, f"{self.figure!r} begins the names of {len(found)} figures"
        return found[0] if found else None

    def verdict(self, figure: Figure) -> str:
        """Whether it is reached, and whether the interval leaves that open."""
        above = self.bound == "at least"
        reached = figure.value >= self.target if above else figure.value <= self.target
        certain = figure.low < self.target <= figure.high if above else figure.low <= self.target < figure.high
        return ("yes" if reached else "no") + (", within the interval" if certain else "")


AIMS: Mapping[str, Sequence[Aim]] = {
    "Bounce": (
        Aim(figure="velocity error over 16 frames, dream as a multiple of the floor", bound="at most", target=2.0),
        Aim(figure="bodies present after 64 frames, none lost or doubled, dream", bound="at least", target=0.98),
        Aim(figure="bodies present after 600 frames, none lost or doubled, dream", bound="at least", target=0.95),
        Aim(figure="action following", bound="at least", target=0.97),
        Aim(figure="text-following, as many bodies as asked for, dream", bound="at least", target=0.95),
        Aim(figure="text-following, colours as asked for, dream", bound="at least", target=0.95),
        Aim(figure="text-following, colours and shapes, dream", bound="at least", target=0.95),
    ),
    "Room": (
        Aim(
            figure="residual-flow outliers over 32 frames, dream as a multiple of true frames",
            bound="at most",
            target=2.0,
        ),
        Aim(figure="PSNR lost from first visit to return", bound="at most", target=3.0),
        Aim(figure="camera error avoided over 32 frames, dream", bound="at least", target=0.95),
    ),
}
"""By the title of the true world."""


def aims_table(title: str, figures: Sequence[Figure]) -> str:
    """Each aim of that world beside the figure reached, in Markdown."""
    rows = []
    for aim in AIMS[title]:
        figure = aim.find(figures)
        asked = f"{aim.bound} {aim.target:g}"
        if figure is None:
            rows.append(f"| {aim.figure} | {asked} | not measurable | | |")
            continue
        unit = f" {figure.unit}" if figure.unit else ""
        rows.append(
            f"| {figure.name} | {asked}{unit} | {figure.value:.3f}{unit} | {figure.low:.3f} to {figure.high:.3f} | "
            f"{aim.verdict(figure)} |"
        )
    return "\n".join(("| figure | aim | reached | 95 % interval | met |", "|---|---|---|---|---|", *rows))
