"""Other projects' checkpoints as ours."""

from worldsim.compat.open_oasis import import_open_oasis

__all__ = ["import_open_oasis"]
