"""Cached steps through torch.compile: one block is compiled for each kind of batch, and serves for all.

Compilers and CUDA graphs want tensors of fixed shapes and no writing to what is given. So the whole ring is read,
whatever it holds, under a mask; the new frame's keys and values stand beside it, and are written to it afterwards.
"""

import os
import shutil
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from worldsim.errors import ConfigError
from worldsim.nn.attention import attend_past
from worldsim.nn.blocks import Block, DenseLayout
from worldsim.nn.cache import RingCache
from worldsim.nn.passes import Plan
from worldsim.nn.rope import as_real, rotate


def require_compiler(device: torch.device) -> None:
    """Makes sure that torch.compile finds what it builds CPU code with.

    Raises:
        ConfigError: If there is no C++ compiler.
    """
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and shutil.which(name) is None:
        raise ConfigError(
            expected=f"the C++ compiler {name}, which torch.compile needs on CPUs",
            got="none",
            remedy="Install one, name it in the environment variable CXX, or do without compiling.",
        )


class BesideLayout(DenseLayout):
    """One new frame per sequence beside cached frames, which are only read: tokens (B, 1, N, C).

    Args:
        grid: As in `DenseLayout`.
        time: (B, 1, ...) rotation of the new frame of each sequence.
        keys: One block's cached keys (B, N, H, M, D).
        values: The same of values.
        past: (B, M) boolean, which of them belong to frames before the new one.

    Attributes:
        new: Keys and values of the new frame, (B, N, H, D) each, once `temporal` has run.
    """

    new: tuple[Tensor, Tensor]

    def __init__(self, grid: Tensor, time: Tensor, keys: Tensor, values: Tensor, past: Tensor) -> None:
        super().__init__(grid, time, None)
        self.keys, self.values, self.past = keys, values, past[:, None, None]

    def temporal(self, qk: Tensor, v: Tensor) -> Tensor:
        """See `Layout`."""
        q, k = rotate(qk, self.time)[:, 0].unbind(-3)
        self.new = (k, v[:, 0])
        return attend_past(q, k, v[:, 0], self.keys, self.values, self.past)[:, None]


class CompiledSteps:
    """Runs a transformer's blocks over one new frame, compiled.

    On CUDA they are captured as CUDA graphs ("reduce-overhead").

    Args:
        device: Where they run.

    Raises:
        ConfigError: If there is no C++ compiler to compile with.
    """

    def __init__(self, device: torch.device) -> None:
        require_compiler(device)
        self._graphs = device.type == "cuda"
        mode = "reduce-overhead" if self._graphs else "default"
        self._block = torch.compile(_run_block, fullgraph=True, mode=mode)

    def __call__(
        self, blocks: Sequence[Block], x: Tensor, grid: Tensor, plan: Plan, index: int, cache: RingCache, *, keep: bool
    ) -> Tensor:
        """Tokens (B, 1, N, C) to hidden tokens.

        Args:
            blocks: The transformer's.
            x: Tokens of the new frame.
            grid: Rotation of their places.
            plan: The passes over this frame.
            index: Which of them this is.
            cache: Keys and values of the past.
            keep: Whether to write the new frame's keys and values to the cache.

        Raises:
            ConfigError: If the cache has sinks, whose queries are others.
        """
        if cache.sinks:
            raise ConfigError(expected="no sinks when compiled", got=cache.sinks, remedy="Step without compiling.")
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()
        places, time, past, new = as_real(grid), as_real(plan.time), cache.past, []
        for i, (block, modulation) in enumerate(zip(blocks, plan.modulations_of(index), strict=True)):
            ring = cache.keys[i], cache.values[i]
            x, k, v = self._block(block, x, modulation, places, time, *ring, past, plan.text_keys[i])
            new.append((k, v))
        if keep:
            for i, (k, v) in enumerate(new):
                cache.put(i, k, v)
        return x.clone() if self._graphs else x  # the next pass overwrites what a graph gives


def _run_block(
    block: Block,
    x: Tensor,
    modulation: Tensor,
    grid: Tensor,
    time: Tensor,
    keys: Tensor,
    values: Tensor,
    past: Tensor,
    text_kv: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    layout = BesideLayout(grid, time, keys, values, past)
    x = block.modulated(x, modulation, layout, text_kv)
    return x, *layout.new
