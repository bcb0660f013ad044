"""Options that take several values, and may also be given several times: `--set a=1 b=2 --set c=3`.

A parser that keeps the last occurrence only would drop the others without a word.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")

Many = Annotated[tuple[tuple[T, ...], ...], tyro.conf.UseAppendAction]
"""The values of each occurrence; the default must be empty, as occurrences are appended to it."""


def flat(occurrences: Sequence[Sequence[T]]) -> tuple[T, ...]:
    """The values of all occurrences, in order."""
    return tuple(chain.from_iterable(occurrences))
