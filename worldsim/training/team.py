"""The processes that train together: started by `torchrun`, each computing its share of every batch.

What an update computes does not depend on how many they are: a process takes some rows of the batch that all agree on,
and the noise of a row follows from its place in that batch (`draws.py`).
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from worldsim.errors import TrainingError
from worldsim.nn.blocks import Block
from worldsim.training.config import OptimiserConfig

# The others wait for the first process while it computes latents or evaluates.
_PATIENCE = timedelta(hours=3)


@dataclass(frozen=True, kw_only=True)
class Team:
    """This process among those that train together.

    Attributes:
        rank: Its number; process 0 writes.
        size: How many they are.
        device: Where it computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def parts(self, config: OptimiserConfig) -> list[range]:
        """Rows of the batch that this process computes, one part after another.

        Raises:
            TrainingError: If the batch cannot be divided equally.
        """
        count = self.size * config.accumulate
        rows, left = divmod(config.batch_size, count)
        if left or not rows:
            raise TrainingError(
                expected=f"a batch_size that {self.size} processes with accumulate = {config.accumulate} can share",
                got=config.batch_size,
                remedy=f"Choose a multiple of {count}.",
            )
        first = self.rank * config.accumulate
        return [range((first + i) * rows, (first + i + 1) * rows) for i in range(config.accumulate)]

    def mean(self, numbers: Tensor) -> Tensor:
        """The mean over all processes, in each of them."""
        if self.size > 1:
            dist.all_reduce(numbers)
            numbers = numbers / self.size
        return numbers

    def wait(self) -> None:
        """Returns once every process has come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def team(device: torch.device) -> Iterator[Team]:
    """Joins the processes that `torchrun` started; a single process otherwise.

    Args:
        device: Its kind; on CUDA every process takes the device of its local rank.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Team(rank=dist.get_rank(), size=size, device=device)
    finally:
        dist.destroy_process_group()


class Objective(nn.Module):
    """A loss of a network as one module, whose forward pass DDP and FSDP see as a whole."""

    def __init__(self, network: nn.Module, loss: Callable[..., tuple[Tensor, dict[str, Tensor]]]) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ANN401 - of the loss
        """The loss and its parts."""
        return self.loss(self.network, *args, **kwargs)


def shared_objective(
    network: nn.Module, loss: Callable[..., tuple[Tensor, dict[str, Tensor]]], members: Team, *, shard: bool
) -> nn.Module:
    """The objective, its gradients averaged over the processes.

    Args:
        network: Its parameters become sharded tensors with `shard`, in place.
        loss: Takes the network, then what the objective is called with.
        members: The processes.
        shard: Whether each process holds a share of the weights (FSDP2, Zhao et al. 2023) or a copy of them (DDP).
    """
    objective = Objective(network, loss)
    if members.size == 1:
        return objective
    if not shard:
        return DistributedDataParallel(objective, find_unused_parameters=True)
    # The values of the text are a view of its projection; nothing here writes into them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(members.device.type, (members.size,))
    for block in (m for m in network.modules() if isinstance(m, Block)):
        # The keys of the text are computed before the block itself is called.
        if block.text_keys is not None:
            fully_shard(block.text_keys, mesh=mesh)
        fully_shard(block, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    return objective


def part_of_update(objective: nn.Module, *, last: bool) -> AbstractContextManager[object]:
    """Within it, gradients of one part of the batch are computed; they are averaged with the last one only."""
    if isinstance(objective, DistributedDataParallel):
        return nullcontext() if last else objective.no_sync()
    if isinstance(objective, FSDPModule):
        objective.set_requires_gradient_sync(last)
    return nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, gathered; every process must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor that may be sharded, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shared_like(full: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same in every process, sharded as another one is."""
    full = full.to(like.device)
    if not isinstance(like, DTensor):
        return full
    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)
