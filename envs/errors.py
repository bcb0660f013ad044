"""Named errors. Every message says what was expected, what was got, and the remedy."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any


class WorldError(Exception):
    """Base of every error that a user of `envs` can cause and mend.

    Args:
        expected: What the call needs, in words.
        got: What it received.
        remedy: What to do about it.
    """

    def __init__(self, *, expected: str, got: object, remedy: str) -> None:
        self.expected, self.got, self.remedy = expected, got, remedy
        super().__init__(f"expected {expected}; got {got}. {remedy}")


class SceneError(WorldError, ValueError):
    """A scene that cannot exist (objects that do not fit, parameters out of range)."""


class ActionError(WorldError, ValueError):
    """An action outside the action space, of a wrong shape, or not finite."""


class SeverityError(WorldError, ValueError):
    """A severity outside [0, 1]."""


class CaptionError(WorldError, ValueError):
    """A caption that cannot be parsed back into a scene; the message names the words."""


class UnknownNameError(WorldError, KeyError):
    """A name that is not among the known ones; the message suggests the nearest."""

    def __init__(self, *, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = get_close_matches(name, known, n=1, cutoff=0.4)
        remedy = f"Did you mean {near[0]!r}?" if near else "Choose one of the known names."
        super().__init__(expected=f"a {kind} among {', '.join(known) or '(none)'}", got=repr(name), remedy=remedy)

    def __str__(self) -> str:
        # KeyError would print the repr of the message.
        return str(self.args[0])


def checked_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options of a reset, as a dictionary of the caller's own.

    Raises:
        SceneError: They are no mapping.
    """
    if options is not None and not isinstance(options, Mapping):
        raise SceneError(expected="options as a mapping", got=repr(options), remedy="Pass a dict, or None.")
    return dict(options or {})
