"""Rows of an episode that wait to be written."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from worldsim.camera import MOTION_DIM
from worldsim.data.layout import CAMERA, flatten_actions
from worldsim.errors import DatasetError
from worldsim.spaces import stack_actions


@dataclass(frozen=True)
class Row:
    """A frame and what is known about it."""

    frame: np.ndarray
    truth: dict[str, np.ndarray]


@dataclass(frozen=True)
class Step:
    """What carries a frame to the next: an action, what it led to, and the camera's motion, (6,), or None."""

    action: Any
    reward: float
    terminated: bool
    truncated: bool
    motion: np.ndarray | None


class Block:
    """Rows of one episode, of bounded size.

    Args:
        space: Space of single actions.
        camera: Whether steps have motions of the camera.

    Attributes:
        bytes: What the rows take, about.
    """

    def __init__(self, space: spaces.Space, *, camera: bool) -> None:
        self._space, self._camera = space, camera
        self._rows: list[Row] = []
        self._steps: list[Step] = []
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self.bytes = 0

    def add(self, row: Row, step: Step) -> None:
        """Adds a frame and the step that leads on from it.

        Raises:
            DatasetError: If the truth, or a shape, is another than before.
        """
        self.add_last(row)
        self._steps.append(step)

    def add_last(self, row: Row) -> None:
        """Adds an episode's last frame, from which no step leads on."""
        shapes = {"frame": row.frame.shape, **{key: value.shape for key, value in row.truth.items()}}
        if self._shapes is None:
            self._shapes = shapes
        if shapes != self._shapes:
            changed = dict(shapes.items() ^ self._shapes.items())
            raise DatasetError(
                expected="the same truth, of the same shapes, and the same frame size at every step",
                got=f"a change in {', '.join(sorted(changed))}",
                remedy="Mend the environment, or leave these keys out with `truth=`.",
            )
        self._rows.append(row)
        self.bytes += row.frame.nbytes + sum(value.nbytes for value in row.truth.values())

    def take(self) -> dict[str, np.ndarray]:
        """The rows as columns for `DatasetWriter.add_rows`; the block is empty afterwards."""
        rows, steps = self._rows, self._steps
        columns: dict[str, np.ndarray] = {
            "rewards": np.array([s.reward for s in steps], np.float32),
            "terminated": np.array([s.terminated for s in steps], bool),
            "truncated": np.array([s.truncated for s in steps], bool),
        }
        if self._camera:
            columns[CAMERA] = np.array([s.motion for s in steps], np.float32).reshape(-1, MOTION_DIM)
        if steps:
            columns |= flatten_actions(self._space, stack_actions(self._space, [s.action for s in steps]))
        else:  # the last frame fell into a block of its own
            zeros = stack_actions(self._space, [self._space.sample()])
            columns |= {name: value[:0] for name, value in flatten_actions(self._space, zeros).items()}
        if len(rows) > len(steps):
            columns = {name: np.concatenate([c, np.zeros((1, *c.shape[1:]), c.dtype)]) for name, c in columns.items()}
        columns["frames"] = np.stack([row.frame for row in rows])
        columns |= {f"truth/{key}": np.stack([row.truth[key] for row in rows]) for key in rows[0].truth}
        self._rows, self._steps, self.bytes = [], [], 0
        return columns
