"""What the captions of every world share: vocabulary, wording and exact numbers.

A caption is generated from the state of a world, so it is true by construction. Words vary (synonyms, order) with an
explicit generator; `canonical` maps every variant back to the one name that states and options use.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np

from envs.errors import CaptionError, UnknownNameError

Detail = Literal["short", "medium", "dense"]
DETAILS: tuple[Detail, ...] = ("short", "medium", "dense")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "orange": (255, 140, 20),
    "yellow": (240, 210, 40),
    "green": (44, 160, 60),
    "cyan": (40, 195, 215),
    "blue": (40, 80, 210),
    "purple": (135, 60, 175),
    "pink": (245, 130, 195),
}
"""Colours that objects may have, by name: sRGB, 0 to 255. Any two differ by at least 70 in Euclidean distance."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    # shapes in the plane
    "disc": ("disc", "ball", "circle"),
    "box": ("box", "square", "block"),
    "triangle": ("triangle", "wedge"),
    "capsule": ("capsule", "pill"),
    # solids in space
    "sphere": ("sphere", "orb"),
    "cylinder": ("cylinder", "drum"),
    "ellipsoid": ("ellipsoid", "egg"),
    "cube": ("cube",),
    # things that do not move
    "floor": ("floor", "ground"),
    "ramp": ("ramp", "slope"),
    "pin": ("pin", "peg"),
    "occluder": ("screen", "occluder"),
    # colours
    "red": ("red", "crimson"),
    "orange": ("orange", "amber"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue", "azure"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "black": ("black",),
    "grey": ("grey", "gray"),
}
"""Canonical word -> the words a caption may use for it (the plainest first). No word belongs to two entries."""

_CANONICAL = {word: name for name, words in SYNONYMS.items() for word in words}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_T = TypeVar("_T")


def choose(options: Sequence[_T], rng: np.random.Generator | None) -> _T:
    """One of the options: the first without a generator, a random one with it."""
    return options[0] if rng is None else options[int(rng.integers(len(options)))]


def wording(name: str, rng: np.random.Generator | None) -> str:
    """A word for the canonical `name`.

    Raises:
        UnknownNameError: `name` is not a key of `SYNONYMS`.
    """
    if name not in SYNONYMS:
        raise UnknownNameError(kind="caption word", name=name, known=SYNONYMS)
    return choose(SYNONYMS[name], rng)


def name_of(colour: str, noun: str, rng: np.random.Generator | None) -> str:
    """Colour and noun in words, both given by their canonical names.

    Raises:
        UnknownNameError: One of them is not a key of `SYNONYMS`.
    """
    return f"{wording(colour, rng)} {wording(noun, rng)}"


def shuffled(parts: Sequence[_T], rng: np.random.Generator | None) -> list[_T]:
    """The parts as they are without a generator, in random order with it."""
    return list(parts) if rng is None else [parts[i] for i in rng.permutation(len(parts))]


def canonical(word: str, among: Mapping[str, object] | Sequence[str] | None = None) -> str:
    """The canonical name of a word of a caption, in any case, singular or plural.

    Args:
        word: As it stands in the caption.
        among: Canonical names that are allowed here; all without it.

    Raises:
        CaptionError: The word is unknown, or names something that is not allowed here.
    """
    key = word.lower()
    candidates = [key, key.removesuffix("s"), key.removesuffix("es")]
    names = [_CANONICAL[c] for c in candidates if c in _CANONICAL]
    names = [name for name in names if among is None or name in among]
    if not names:
        allowed = SYNONYMS if among is None else [w for n in among for w in SYNONYMS[n]]
        raise CaptionError(
            expected=f"one of the words {', '.join(allowed)}",
            got=repr(word),
            remedy="Use the vocabulary of envs.captions.SYNONYMS.",
        )
    return names[0]


def article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def plural(noun: str) -> str:
    """The plural of a noun of this vocabulary."""
    return noun + ("es" if noun.endswith(("x", "s", "ch", "sh")) else "s")


def counted(number: int, noun: str) -> str:
    """Number and noun in agreement: "one disc", "two boxes"."""
    word = _NUMBERS[number] if number < len(_NUMBERS) else str(number)
    return f"{word} {noun if number == 1 else plural(noun)}"


def listed(phrases: Sequence[str]) -> str:
    """Phrases joined as English lists are: "a", "a and b", "a, b and c"."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def sentence(text: str) -> str:
    """The text with a capital at its start and a full stop at its end."""
    text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."


def number(value: float) -> str:
    """The shortest decimal text that reads back as exactly the same float (no exponent for common magnitudes)."""
    text = repr(float(value))
    return text.removesuffix(".0") if "e" not in text else text


NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
"""Regular expression of a number written by `number`."""


def point(values: Sequence[float] | np.ndarray) -> str:
    """A vector as text: "(1.5, -2)"."""
    return "(" + ", ".join(number(v) for v in values) + ")"


def read_point(text: str, length: int) -> tuple[float, ...]:
    """The numbers of a vector written by `point`.

    Raises:
        CaptionError: The text is not a bracket of `length` numbers.
    """
    match = re.fullmatch(rf"\(\s*({NUMBER}(?:\s*,\s*{NUMBER})*)\s*\)", text.strip())
    values = tuple(float(v) for v in match.group(1).split(",")) if match else ()
    if len(values) != length:
        raise CaptionError(
            expected=f"{length} numbers in brackets, as in {point(np.arange(length) / 2)}",
            got=repr(text),
            remedy="Write the vector as numbers between brackets, separated by commas.",
        )
    return values


def check_detail(detail: str) -> Detail:
    """The level of detail, checked.

    Raises:
        UnknownNameError: Not one of `DETAILS`.
    """
    for known in DETAILS:
        if detail == known:
            return known
    raise UnknownNameError(kind="caption detail", name=detail, known=DETAILS)
