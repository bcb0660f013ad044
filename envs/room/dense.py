"""Dense captions: every number of a room in words, read back exactly by `parse`.

Each statement is one template, used to write and to read, so the two cannot disagree. Words, and the order of sentences
and clauses, vary with the generator; the order of the solids among themselves does not, as it gives their slots.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from envs.captions import (
    COLOURS,
    NUMBER,
    article,
    canonical,
    choose,
    listed,
    number,
    point,
    read_point,
    sentence,
    shuffled,
)
from envs.errors import CaptionError
from envs.room.scene import SHAPES, Scene, Solid

SOLID_CLAUSES: dict[str, tuple[str, ...]] = {
    "size_m": ("of half size {} m", "with half sizes of {} m"),
    "position_m": ("at {} m", "centred at {} m"),
    "quaternion": ("turned by the quaternion {}", "with orientation {}"),
    "velocity_m_per_s": ("moving at {} m/s", "with velocity {} m/s"),
    "angular_velocity_rad_per_s": ("spinning at {} rad/s", "with angular velocity {} rad/s"),
    "density_kg_per_m3": ("of density {} kg/m³", "with a density of {} kg/m³"),
}
SCENE_SENTENCES: dict[str, tuple[str, ...]] = {
    "room_m": ("the room measures {} m", "the room is {} m in length, width and height"),
    "lights_m": ("lamps hang at {} m", "light comes from {} m"),
    "light_power": ("the light has power {}", "the lamps give power {}"),
    "texture_seed": ("the textures have seed {}", "seed {} draws the textures"),
    "start_m": ("the walker starts at {} m", "the camera begins at {} m"),
    "yaw_rad": ("it heads {} rad", "its heading is {} rad"),
    "pitch_rad": ("it looks up by {} rad", "its elevation is {} rad"),
    "target": ("it shall walk to object {}", "object {} is to be reached"),
    "gravity_m_per_s2": ("gravity is {} m/s²", "everything falls with {} m/s²"),
}
"""Field -> wordings; {} stands for its value. A statement is left out where the value is the default."""

_POINT = rf"\(\s*{NUMBER}(?:\s*,\s*{NUMBER})*\s*\)"
_VALUE = rf"({NUMBER}|{_POINT}(?: and {_POINT})*)"
_LENGTHS = {"room_m": 3, "lights_m": 3, "start_m": 2, "gravity_m_per_s2": 3, "quaternion": 4}


def write(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """The dense caption of a scene; `parse` reads it back."""
    facts = shuffled(_statements(scene, SCENE_SENTENCES, rng), rng)
    solids = [
        ", ".join([article(s.in_words(rng)), *shuffled(_statements(s, SOLID_CLAUSES, rng), rng)]) for s in scene.solids
    ]
    parts = solids + facts if rng is not None and rng.random() < 0.5 else facts + solids
    return " ".join(sentence(part) for part in parts)


def _statements(
    thing: Scene | Solid, templates: Mapping[str, tuple[str, ...]], rng: np.random.Generator | None
) -> list[str]:
    defaults = {f.name: f.default for f in fields(thing)}
    values = {key: getattr(thing, key) for key in templates}
    return [
        choose(templates[key], rng).format(_text(value))
        for key, value in values.items()
        if defaults[key] is MISSING or value != defaults[key]
    ]


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " and ".join(point(v) for v in value) if isinstance(value[0], tuple) else point(value)
    return number(value) if isinstance(value, float | int) else str(value)


def _compile(templates: Mapping[str, tuple[str, ...]]) -> list[tuple[str, re.Pattern[str]]]:
    return [
        (key, re.compile(_VALUE.join(re.escape(piece) for piece in wording.split("{}")), re.IGNORECASE))
        for key, wordings in templates.items()
        for wording in wordings
    ]


_READ_SOLID, _READ_SCENE = _compile(SOLID_CLAUSES), _compile(SCENE_SENTENCES)
_HEAD = re.compile(r"an? (\w+) (\w+)", re.IGNORECASE)


def parse(text: str) -> Scene:
    """Reads a dense caption back into the scene that it describes, exactly.

    Args:
        text: What `write` wrote, in any of its wordings; more spaces and other capitals do no harm.

    Raises:
        CaptionError: Words that belong to no statement (the message names them), or a statement missing or double.
        SceneError: The caption describes a scene that cannot exist.
    """
    if not isinstance(text, str):
        raise CaptionError(expected="a dense caption", got=type(text).__name__, remedy="Pass a str.")
    values: dict[str, Any] = {}
    solids: list[Solid] = []
    for part in re.split(r"\.(?:\s+|$)", " ".join(text.split())):
        head = _HEAD.match(part)
        if head:
            solids.append(_read_solid(part, head))
        elif part:
            _read_into(values, part, _READ_SCENE, part)
    _require(values, Scene, set(SCENE_SENTENCES), "the caption")
    return Scene(solids=tuple(solids), **values)


def _read_solid(part: str, head: re.Match[str]) -> Solid:
    values: dict[str, Any] = {}
    # Commas inside brackets separate numbers, not clauses.
    for clause in re.split(r",\s*(?![^(]*\))", part[head.end() :].lstrip(", ")):
        _read_into(values, clause, _READ_SOLID, part)
    _require(values, Solid, set(SOLID_CLAUSES), repr(part))
    return Solid(shape=canonical(head[2], SHAPES), colour=canonical(head[1], COLOURS), **values)


def _read_into(values: dict[str, Any], words: str, patterns: list[tuple[str, re.Pattern[str]]], part: str) -> None:
    found = next(((key, match) for key, pattern in patterns if (match := pattern.fullmatch(words.strip()))), None)
    if found is None:
        raise CaptionError(
            expected="statements of a dense caption",
            got=f"words that cannot be parsed: {words!r}" + (f" (in {part!r})" if part != words else ""),
            remedy="See envs.room.dense.SOLID_CLAUSES and SCENE_SENTENCES for what can be said.",
        )
    key, match = found
    if key in values:
        raise CaptionError(
            expected=f"one statement of {_plain(key)}", got=f"a second one: {words!r}", remedy="Leave one of them out."
        )
    values[key] = _value(key, match[1])


def _value(key: str, text: str) -> Any:  # noqa: ANN401 - the type of the field
    bracketed = text.startswith("(")
    if bracketed != (key in _LENGTHS or key in {"size_m", "position_m"} or "velocity" in key):
        raise CaptionError(
            expected=f"{'one number' if bracketed else 'numbers in brackets'} for {_plain(key)}",
            got=repr(text),
            remedy="Only captions with detail='dense' can be parsed.",
        )
    if key == "lights_m":
        return tuple(read_point(p, 3) for p in re.findall(_POINT, text))
    if bracketed:
        return read_point(text, _LENGTHS.get(key, 3))
    return int(text) if key in {"texture_seed", "target"} and text.isdigit() else float(text)


def _require(values: Mapping[str, Any], kind: type, told: set[str], where: str) -> None:
    missing = [f.name for f in fields(kind) if f.name in told and f.default is MISSING and f.name not in values]
    if missing:
        raise CaptionError(
            expected=f"statements of {listed([_plain(name) for name in missing])}",
            got=f"none in {where}",
            remedy="Only captions with detail='dense' can be parsed.",
        )


def _plain(key: str) -> str:
    """A field's name without its unit."""
    return re.sub(r"_(m|rad|kg|m_per_s|rad_per_s|kg_per_m3|m_per_s2)$", "", key).replace("_", " ")
