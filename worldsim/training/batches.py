"""Windows of latents as a batch, and means over them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LatentBatch:
    """A batch of windows.

    Attributes:
        latents: (B, F, C, h, w) standardised.
        actions: (B, F, A), `actions[:, i]` led to frame i; row 0 is unused.
        rewards: (B, F), reward on arriving at frame i, in units of the dataset's spread.
        terminated: (B, F) boolean.
        known: (B, F) boolean, whether reward and termination of frame i are known (not for the first frame).
        texts: Captions, None for none: B of them, or B * F where frames are lone.
        camera: (B, F, M), `camera[:, i]` is the camera's motion to frame i in units of the largest; row 0 is unused.
            None where it is not known.
        lone: Whether every frame is of another scene, with nothing before it; the axis F is then a second one of
            samples.
    """

    latents: Tensor
    actions: Tensor | None
    rewards: Tensor
    terminated: Tensor
    known: Tensor
    texts: list[str | None]
    camera: Tensor | None = None
    lone: bool = False


def mean_over_windows(
    found: Sequence[tuple[Tensor, dict[str, Tensor]]], groups: Sequence[LatentBatch]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean of the groups' losses and of their parts, each counted as often as it has windows."""
    total = sum(len(g.latents) for g in groups)
    shares = [len(g.latents) / total for g in groups]

    def mean(numbers: Iterable[Tensor]) -> Tensor:
        return torch.stack([s * x for s, x in zip(shares, numbers, strict=True)]).sum()

    return mean(loss for loss, _ in found), {k: mean(parts[k] for _, parts in found) for k in found[0][1]}
