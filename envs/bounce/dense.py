"""Dense captions: every number of a Bounce scene in words, read back exactly by `parse`.

Each clause is one template, used to write and to read, so the two cannot disagree. A clause is left out where the value
is the default; words and order vary with the generator, the order of the objects among themselves does not.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import numpy as np

from envs.bounce.scene import PALETTE, SHAPES, Fixture, Rod, Scene, Solid
from envs.captions import (
    NUMBER,
    article,
    canonical,
    choose,
    listed,
    name_of,
    number,
    point,
    read_point,
    sentence,
    shuffled,
)
from envs.errors import CaptionError

_POINT = rf"\(\s*{NUMBER}\s*,\s*{NUMBER}\s*\)"
_POINTS = rf"{_POINT}(?: to {_POINT})*"

# {n} stands for a number, {p} for a point, {l} for points joined by "to".
CLAUSES: dict[str, tuple[str, ...]] = {
    "radius_m": ("of radius {n} m", "with a radius of {n} m", "{n} m in radius"),
    "position_m": ("at {p} m", "centred at {p} m", "that starts at {p} m"),
    "velocity_m_per_s": ("moving at {p} m/s", "with velocity {p} m/s", "flying at {p} m/s"),
    "angle_rad": ("turned by {n} rad", "at an angle of {n} rad"),
    "angular_velocity_rad_per_s": ("spinning at {n} rad/s", "with a spin of {n} rad/s"),
    "density_kg_per_m2": ("of density {n} kg/m²", "with a density of {n} kg/m²"),
    "friction": ("with friction {n}", "of friction {n}"),
    "restitution": ("with restitution {n}", "that keeps {n} of its rebound speed"),
    "aspect": ("{n} times as long as wide", "with an aspect of {n}"),
}
_ROLES: dict[str, tuple[str, ...]] = {
    "agent": ("the agent", "steered by the agent"),
    "target": ("the target", "to be touched"),
    "hazard": ("the hazard", "to be avoided"),
}
_FIXTURE_CLAUSES: dict[str, tuple[str, ...]] = {
    "vertices_m": ("with corners {l} m", "that spans {l} m"),
    "radius_m": ("rounded by {n} m", "{n} m thick all round"),
}
_VIEW = ("the view measures {n} by {n} m", "the frame shows {n} by {n} m")
_GRAVITY = ("gravity is {p} m/s²", "everything falls with {p} m/s²")
_NO_GRAVITY = ("there is no gravity", "nothing pulls")
_WALLS = ("elastic walls stand all around", "four elastic walls enclose the view")
_NO_WALLS = ("there are no walls", "the borders are open")
_ROD = ("a rod ties object {n} to {p} m", "object {n} hangs on a rod from {p} m")
_MEANT = {"n": f"({NUMBER})", "p": f"({_POINT})", "l": f"({_POINTS})"}


def write(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """The dense caption of a scene; `parse` reads it back."""
    things = [_solid_text(s, rng) for s in scene.solids]
    things += [_thing(article(name_of(f.colour, f.kind, rng)), f, _FIXTURE_CLAUSES, rng) for f in scene.fixtures]
    things += [_fill(choose(_ROD, rng), [rod.solid + 1, rod.pivot_m]) for rod in scene.rods]
    laws = [
        _fill(choose(_VIEW, rng), list(scene.view_m)),
        _fill(choose(_GRAVITY, rng), [scene.gravity_m_per_s2])
        if any(scene.gravity_m_per_s2)
        else choose(_NO_GRAVITY, rng),
        choose(_WALLS if scene.walls else _NO_WALLS, rng),
    ]
    laws = shuffled(laws, rng)
    parts = things + laws if rng is not None and rng.random() < 0.5 else laws + things
    return " ".join(sentence(p) for p in parts)


def _solid_text(solid: Solid, rng: np.random.Generator | None) -> str:
    extra = [choose(_ROLES[solid.role], rng)] if solid.role in _ROLES else []
    return _thing(article(name_of(solid.colour, solid.shape, rng)), solid, CLAUSES, rng, extra)


def _thing(
    head: str,
    thing: Solid | Fixture,
    templates: dict[str, tuple[str, ...]],
    rng: np.random.Generator | None,
    extra: list[str] | None = None,
) -> str:
    defaults = {f.name: f.default for f in fields(thing)}
    clauses = extra or []
    for key, wordings in templates.items():
        value = getattr(thing, key)
        if defaults[key] is MISSING or value != defaults[key]:
            clauses.append(_fill(choose(wordings, rng), [value]))
    return ", ".join([head, *shuffled(clauses, rng)])


def _fill(template: str, values: list) -> str:
    for value in values:
        if isinstance(value, tuple) and value and isinstance(value[0], tuple):
            text = " to ".join(point(v) for v in value)
        else:
            text = point(value) if isinstance(value, tuple) else number(value)
        template = re.sub(r"\{[npl]\}", lambda _, text=text: text, template, count=1)
    return template


def _compile(templates: tuple[str, ...]) -> list[re.Pattern[str]]:
    made = []
    for template in templates:
        pieces = re.split(r"\{([npl])\}", template)
        made.append("".join(_MEANT[p] if i % 2 else re.escape(p) for i, p in enumerate(pieces)))
    return [re.compile(m, re.IGNORECASE) for m in made]


_READ = {name: _compile(t) for name, t in CLAUSES.items()} | {f"role {r}": _compile(t) for r, t in _ROLES.items()}
_READ_FIXTURE = {name: _compile(t) for name, t in _FIXTURE_CLAUSES.items()}
_READ_LAW = {
    "view": _compile(_VIEW),
    "gravity": _compile(_GRAVITY),
    "still": _compile(_NO_GRAVITY),
    "walls": _compile(_WALLS),
    "open": _compile(_NO_WALLS),
    "rod": _compile(_ROD),
}
_HEAD = re.compile(r"an? (\w+) (\w+)", re.IGNORECASE)
_FIXTURES = ("floor", "ramp", "pin", "occluder")


@dataclass
class _Draft:
    """What has been read so far."""

    solids: list[Solid] = field(default_factory=list)
    fixtures: list[Fixture] = field(default_factory=list)
    rods: list[Rod] = field(default_factory=list)
    laws: dict[str, Any] = field(default_factory=dict)


def parse(text: str) -> Scene:
    """Reads a dense caption back into the scene that it describes, exactly.

    Args:
        text: What `write` wrote, in any of its wordings; more spaces and other capitals do no harm.

    Raises:
        CaptionError: Words that belong to no clause (the message names them), or a sentence that is missing or double.
        SceneError: The caption describes a scene that cannot exist.
    """
    if not isinstance(text, str):
        raise CaptionError(expected="a dense caption", got=type(text).__name__, remedy="Pass a str.")
    draft = _Draft()
    for part in re.split(r"\.(?:\s+|$)", " ".join(text.split())):
        if part:
            _read_sentence(part, draft)
    missing = {"view_m", "gravity_m_per_s2", "walls"} - set(draft.laws)
    if missing:
        raise CaptionError(
            expected="sentences that state view, gravity and walls",
            got=f"none about {listed([m.split('_')[0] for m in sorted(missing)])}",
            remedy="Only captions with detail='dense' can be parsed.",
        )
    return Scene(solids=tuple(draft.solids), fixtures=tuple(draft.fixtures), rods=tuple(draft.rods), **draft.laws)


def _read_sentence(part: str, draft: _Draft) -> None:
    for kind, patterns in _READ_LAW.items():
        for match in (p.fullmatch(part) for p in patterns):
            if match:
                _read_law(kind, match.groups(), draft)
                return
    head = _HEAD.match(part)
    if head is None:
        raise _unread(part, part)
    colour, kind = canonical(head[1], tuple(PALETTE)), canonical(head[2], (*SHAPES, *_FIXTURES))
    clauses = part[head.end() :]
    if kind in _FIXTURES:
        values = _read_clauses(part, clauses, _READ_FIXTURE)
        _require(part, values, "vertices_m")
        draft.fixtures.append(Fixture(kind=kind, colour=colour, **values))  # pyright: ignore[reportArgumentType]
    else:
        values = _read_clauses(part, clauses, _READ)
        _require(part, values, "radius_m", "position_m")
        draft.solids.append(Solid(shape=kind, colour=colour, **values))  # pyright: ignore[reportArgumentType]


def _read_law(kind: str, groups: tuple[str, ...], draft: _Draft) -> None:
    if kind == "rod":
        draft.rods.append(Rod(solid=int(float(groups[0])) - 1, pivot_m=_pair(groups[1])))
        return
    key, value = {
        "view": lambda: ("view_m", (float(groups[0]), float(groups[1]))),
        "gravity": lambda: ("gravity_m_per_s2", _pair(groups[0])),
        "still": lambda: ("gravity_m_per_s2", (0.0, 0.0)),
        "walls": lambda: ("walls", True),
        "open": lambda: ("walls", False),
    }[kind]()
    if key in draft.laws:
        raise CaptionError(
            expected=f"one sentence about {key.split('_')[0]}", got="two", remedy="Leave one of them out."
        )
    draft.laws[key] = value


def _pair(text: str) -> tuple[float, float]:
    x, y = read_point(text, 2)
    return x, y


def _read_clauses(part: str, text: str, patterns: Mapping[str, list[re.Pattern[str]]]) -> dict[str, Any]:
    """Values of the clauses of a sentence; each begins with a comma."""
    values: dict[str, Any] = {}
    while text:
        comma = re.match(r"\s*,\s*", text)
        found = None
        if comma:
            found = next(
                (
                    (name, match)
                    for name, wordings in patterns.items()
                    for match in (p.match(text, comma.end()) for p in wordings)
                    # A clause ends with the sentence or at the next comma.
                    if match and re.match(r"\s*(,|$)", text[match.end() :])
                ),
                None,
            )
        if found is None:
            raise _unread(re.split(r",\s(?![^(]*\))", text.lstrip(" ,"))[0], part)
        name, match = found
        if name.partition(" ")[0] in values:
            raise CaptionError(
                expected=f"one clause about {name.partition(' ')[0]}", got=f"two in {part!r}", remedy="Leave one out."
            )
        values.update([_value(name, match)])
        text = text[match.end() :]
    return values


def _value(name: str, match: re.Match[str]) -> tuple[str, Any]:
    if name.startswith("role "):
        return "role", name.removeprefix("role ")
    text = match[1]
    if name == "vertices_m":
        return name, tuple(_pair(p) for p in re.findall(_POINT, text))
    return name, _pair(text) if text.startswith("(") else float(text)


def _require(part: str, values: dict[str, Any], *names: str) -> None:
    for name in names:
        if name not in values:
            raise CaptionError(
                expected=f"a clause about the {name.split('_')[0]}",
                got=repr(part),
                remedy="Only captions with detail='dense' can be parsed.",
            )


def _unread(words: str, part: str) -> CaptionError:
    return CaptionError(
        expected="clauses of a dense caption",
        got=f"words that cannot be parsed: {words!r} (in {part!r})",
        remedy="See envs.bounce.dense.CLAUSES for what can be said.",
    )
