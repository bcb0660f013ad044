"""Chipmunk's calls that Bounce makes fifty times a frame, without the bookkeeping around them.

`pymunk.Space.step` and `pymunk.batch` also serve callbacks that add and remove bodies, and allocate at every call: two
thirds of the time of a small scene. Bounce's only callback raises a flag, so the library below pymunk is called as
pymunk itself calls it. Scenes are built, and everything rare is done, with pymunk's public names.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pymunk
from pymunk import _chipmunk_cffi, batch

_lib: Any = _chipmunk_cffi.lib
_ffi: Any = _chipmunk_cffi.ffi


class Reader:
    """Reads fields of all bodies, or of all touching pairs, of a space into arrays.

    Args:
        space: The space.
        fields: `batch.BodyFields` or `batch.ArbiterFields`.
    """

    def __init__(self, space: pymunk.Space, fields: batch.BodyFields | batch.ArbiterFields) -> None:
        bodies = isinstance(fields, batch.BodyFields)
        self._each = _lib.cpSpaceEachBody if bodies else _lib.cpSpaceEachCachedArbiter
        name = "pmSpaceBodyGetIteratorFuncBatched" if bodies else "pmSpaceArbiterIteratorFuncBatched"
        self._visit = _ffi.addressof(_lib, name)
        # Chipmunk's structures hold bare pointers: this object keeps what they point to.
        self._space, self._buffer, self._data = space, batch.Buffer(), _ffi.new("pmBatchedData *")
        self._pointer: Any = space._space  # noqa: SLF001 - what pymunk's own batch functions are given
        self._ints: Any = self._buffer._int_arr  # noqa: SLF001
        self._floats: Any = self._buffer._float_arr  # noqa: SLF001
        self._data.fields, self._data.intArray, self._data.floatArray = fields.value, self._ints, self._floats

    def clear(self) -> None:
        """Forgets what was read."""
        self._ints.num = self._floats.num = 0

    def read(self) -> int:
        """Appends the fields as they are now; the number of integers read since `clear`."""
        self._each(self._pointer, self._visit, self._data)
        return self._ints.num

    def ints(self) -> np.ndarray:
        """All integers read since `clear`: a view, valid until the next `read` or `clear`."""
        return np.frombuffer(self._buffer.int_buf(), np.uintp)

    def floats(self) -> np.ndarray:
        """All floating-point numbers read since `clear`: a view, valid until the next `read` or `clear`."""
        return np.frombuffer(self._buffer.float_buf(), np.float64)


class Engine:
    """Steps a space whose callbacks neither add nor remove anything.

    Args:
        space: The space.
        shapes: Its shapes that move, for `take_out` and `put_back`.
        dt_s: Length of a step.
    """

    def __init__(self, space: pymunk.Space, shapes: Sequence[pymunk.Shape], dt_s: float) -> None:
        # Chipmunk's structures live as long as pymunk's objects.
        self._owners, self._dt_s = (space, tuple(shapes)), dt_s
        self._space: Any = space._space  # noqa: SLF001 - what pymunk's own methods pass on
        self._shapes: list[Any] = [shape._shape for shape in shapes]  # noqa: SLF001
        self._forces: list[tuple[Any, tuple[float, float]]] = []
        self._iterations = space.iterations

    def step(self) -> None:
        """Advances one step."""
        for body, force in self._forces:
            _lib.cpBodySetForce(body, force)
        _lib.cpSpaceStep(self._space, self._dt_s)

    def push(self, body: pymunk.Body, force_n: tuple[float, float]) -> None:
        """Lets a force (x, y) act on a body at every step from now on."""
        self._forces.append((body._body, force_n))  # noqa: SLF001

    def release(self) -> None:
        """Ends all pushes."""
        self._forces.clear()

    def take_out(self) -> None:
        """Takes the shapes out of the space, which forgets all their contacts."""
        for shape in self._shapes:
            _lib.cpSpaceRemoveShape(self._space, shape)

    def put_back(self) -> None:
        """Puts them back, where their bodies are now."""
        for shape in self._shapes:
            _lib.cpSpaceAddShape(self._space, shape)

    @property
    def iterations(self) -> int:
        """Iterations of the solver; those set by a callback within a step count in that step."""
        return self._iterations

    @iterations.setter
    def iterations(self, number: int) -> None:
        if number != self._iterations:
            self._iterations = number
            _lib.cpSpaceSetIterations(self._space, number)
