"""Randomness of an update that does not depend on which process computes which part of the batch."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Generator, Tensor


@dataclass(frozen=True, kw_only=True)
class SampleGenerators:
    """Sources of everything random in one update.

    Attributes:
        shared: For what the whole batch has in common; alike in every process.
        samples: One for each sample at hand. Each follows from (seed, phase, update, place in the whole batch) alone.
    """

    shared: Generator
    samples: Sequence[Generator]


Source = Generator | SampleGenerators


def generators_for(seed: int, phase: str, step: int, samples: range) -> SampleGenerators:
    """The sources of update `step` for these places of its batch."""

    def seeded(name: str) -> Generator:
        digest = hashlib.blake2b(f"{seed}/{phase}/{step}/{name}".encode(), digest_size=8).digest()
        return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)

    return SampleGenerators(shared=seeded("shared"), samples=[seeded(str(i)) for i in samples])


def shared_source(source: Source) -> Generator:
    """The generator of what a batch has in common."""
    return source.shared if isinstance(source, SampleGenerators) else source


def divided(source: Source, sizes: Sequence[int]) -> list[Source]:
    """The sources of each of several groups of samples that lie one after another."""
    if isinstance(source, Generator):
        return [source] * len(sizes)
    ends = list(accumulate(sizes, initial=0))
    return [SampleGenerators(shared=source.shared, samples=source.samples[a:b]) for a, b in pairwise(ends)]


def uniform(shape: Sequence[int], source: Source) -> Tensor:
    """Uniform numbers in [0, 1) on the CPU; the first axis is that of the samples."""
    return _draw(torch.rand, shape, source)


def normal(shape: Sequence[int], source: Source) -> Tensor:
    """Unit Gaussian numbers on the CPU; the first axis is that of the samples."""
    return _draw(torch.randn, shape, source)


def _draw(function: Callable[..., Tensor], shape: Sequence[int], source: Source) -> Tensor:
    if isinstance(source, Generator):
        return function(tuple(shape), generator=source)
    assert len(source.samples) == shape[0], "one generator for each sample"
    return torch.stack([function(tuple(shape[1:]), generator=g) for g in source.samples])


class Draw:
    """Random numbers drawn on the CPU, so that every device sees the same ones."""

    def __init__(self, generator: Source, device: torch.device) -> None:
        self.generator, self.device = generator, device

    def one(self) -> float:
        """A uniform number that the whole batch has in common."""
        return float(torch.rand((), generator=shared_source(self.generator)))

    def uniform(self, *shape: int) -> Tensor:
        """See the function of that name."""
        return uniform(shape, self.generator).to(self.device)

    def normal_of(self, *shape: int) -> Tensor:
        """Unit Gaussian numbers of that shape."""
        return normal(shape, self.generator).to(self.device)

    def normal(self, like: Tensor) -> Tensor:
        """The same, of the shape of a tensor."""
        return self.normal_of(*like.shape)
