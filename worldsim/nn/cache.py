"""The ring key/value cache of temporal attention.

Keys are stored rotated by absolute frame positions; attention depends on position differences only, so the order of
slots does not matter and nothing moves when the window slides.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class RingCache:
    """Keys and values of the last `window` frames, the current one included, of a batch of sequences.

    Attributes:
        keys: (blocks, B, N, H, window, D).
        values: The same.
        frame: (B,) int64, index of the frame that the current slot belongs to; frames below it are in the past.
        sinks: Slots that keep the first frames for ever; the other window - sinks hold the latest ones.
    """

    keys: Tensor
    values: Tensor
    frame: Tensor
    sinks: int = 0

    @classmethod
    def empty(
        cls,
        batch: int,
        *,
        blocks: int,
        tokens: int,
        window: int,
        heads: int,
        head_dim: int,
        like: Tensor,
        sinks: int = 0,
    ) -> Self:
        """A cache in which no frame has been seen."""
        shape = (blocks, batch, tokens, heads, window, head_dim)
        frame = torch.zeros(batch, dtype=torch.int64, device=like.device)
        return cls(like.new_zeros(shape), like.new_zeros(shape), frame, sinks)

    @property
    def window(self) -> int:
        """Number of slots."""
        return self.keys.shape[4]

    def clone(self) -> Self:
        """A copy that shares no memory."""
        return replace(self, keys=self.keys.clone(), values=self.values.clone(), frame=self.frame.clone())

    def advanced(self) -> Self:
        """The same memory, with the next frame current."""
        return replace(self, frame=self.frame + 1)

    def rows(self, index: Tensor) -> Self:
        """The sequences at `index`, copied; an index may repeat."""
        return replace(self, keys=self.keys[:, index], values=self.values[:, index], frame=self.frame[index])

    @cached_property
    def _current(self) -> tuple[Any, Any, int, Tensor | None]:
        """Rows and slots to write the current frame to; slots to read, and which of them each sequence has seen."""
        ages, slots = self.frame.tolist(), self.slots(self.frame)
        if len(set(ages)) == 1:  # the usual case, and far quicker to write and to read
            return slice(None), int(slots[0]), min(ages[0] + 1, self.window), None
        mask = None
        if min(ages) < self.window - 1:
            seen = torch.arange(self.window, device=self.frame.device) <= self.frame[:, None]
            mask = seen[:, None].expand(-1, self.keys.shape[2], -1).flatten(0, 1)[:, None, None]
        return torch.arange(len(ages), device=self.frame.device), slots, self.window, mask

    @cached_property
    def past(self) -> Tensor:
        """(B, window) boolean: the slots that hold frames before the current one."""
        held = torch.arange(self.window, device=self.frame.device) < self.frame[:, None]
        return held.scatter(1, self.slots(self.frame)[:, None], False)  # noqa: FBT003 - the value written

    def slots(self, frames: Tensor) -> Tensor:
        """Where frames are kept; int64 of any shape."""
        if not self.sinks:
            return frames % self.window
        return torch.where(
            frames < self.window, frames, self.sinks + (frames - self.sinks) % (self.window - self.sinks)
        )

    def put(self, block: int, k_BNHD: Tensor, v_BNHD: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Writes the current frame's keys and values in place.

        Returns:
            Keys and values of the block, (B, N, M, H, D), in the M slots that any sequence may have seen, and the mask
            (B * N, 1, 1, M) of those that each has, or None if each has seen all.
        """
        keys, values = self.keys[block], self.values[block]
        rows, slot, seen, mask = self._current
        keys[rows, :, :, slot] = k_BNHD.to(keys.dtype)
        values[rows, :, :, slot] = v_BNHD.to(values.dtype)
        keys, values = keys[:, :, :, :seen], values[:, :, :, :seen]
        return keys.transpose(2, 3).to(k_BNHD.dtype), values.transpose(2, 3).to(v_BNHD.dtype), mask

    def fill(self, block: int, k_BFNHD: Tensor, v_BFNHD: Tensor, positions: Tensor) -> None:
        """Writes a run of past frames in place; keeps the last `window` of them.

        Args:
            block: Which block's cache.
            k_BFNHD: Rotated keys (B, F, N, H, D).
            v_BFNHD: Values, like the keys.
            positions: (B, F) consecutive frame indices; negative ones stand for frames that never were. With sinks the
                first is 0, and there are at most `window`.
        """
        k, v, positions = k_BFNHD[:, -self.window :], v_BFNHD[:, -self.window :], positions[:, -self.window :]
        rows = torch.arange(len(positions), device=positions.device)[:, None].expand_as(positions)
        real = positions >= 0
        rows, slots = rows[real], self.slots(positions)[real]
        self.keys[block][rows, :, :, slots] = k[real].to(self.keys.dtype)
        self.values[block][rows, :, :, slots] = v[real].to(self.values.dtype)
