"""Named errors. Every message says what was expected, what was got, and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches


class WorldsimError(Exception):
    """Base of every error that a user of worldsim can cause and mend.

    Args:
        expected: What the call needs, in words.
        got: What it received.
        remedy: What to do about it.
    """

    def __init__(self, *, expected: str, got: object, remedy: str) -> None:
        self.expected, self.got, self.remedy = expected, got, remedy
        super().__init__(f"expected {expected}; got {got}. {remedy}")


class FramesError(WorldsimError, ValueError):
    """Video frames of a wrong shape, type, size or count."""


class ActionError(WorldsimError, ValueError):
    """An action outside the action space, of a wrong shape, or not finite."""


class CameraError(WorldsimError, ValueError):
    """Camera motion of a wrong shape, not finite, or for a model that takes none."""


class ConfigError(WorldsimError, ValueError):
    """A configuration that is inconsistent, unknown or of another version."""


class CheckpointError(WorldsimError):
    """A checkpoint that is missing, truncated, foreign or of another version."""


class DatasetError(WorldsimError):
    """A dataset that is missing, empty, mixed-up, incompatible or being written by another process."""


class StateError(WorldsimError, ValueError):
    """A simulator state that belongs to another model or whose batch does not fit."""


class TextError(WorldsimError, ValueError):
    """Text that a model cannot be conditioned on."""


class VideoError(WorldsimError):
    """A video file that cannot be read or written."""


class TrainingError(WorldsimError):
    """A training run that cannot start, go on, or be resumed."""


class UnknownNameError(WorldsimError, KeyError):
    """A name that is not among the known ones; the message suggests the nearest."""

    def __init__(self, *, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = get_close_matches(name, known, n=1, cutoff=0.4)
        remedy = f"Did you mean {near[0]!r}?" if near else "Choose one of the known names."
        super().__init__(expected=f"a {kind} among {', '.join(known) or '(none)'}", got=repr(name), remedy=remedy)

    def __str__(self) -> str:
        # KeyError would print the repr of the message.
        return str(self.args[0])
