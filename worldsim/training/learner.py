"""What one phase of training updates and saves: a network, its optimiser, and the moving average of its weights."""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worldsim.errors import TrainingError
from worldsim.training.config import OptimiserConfig
from worldsim.training.team import Team, local, shared_like, shared_objective, whole

# What each of the optimisers' own names is called in a saved state.
_MOMENTS = {"step": "updates", "exp_avg": "first", "exp_avg_sq": "second", "momentum_buffer": "first"}


class Learner:
    """A network with its optimiser and moving average, shared with other processes if there are any.

    States on disk do not tell how many processes wrote them: weights that are sharded are gathered, and a run may be
    resumed by another number.

    Args:
        network: What is trained; made by `type(network)(network.config)` where the processes share its weights.
        loss: Takes the network and what `objective` is called with; returns the loss and its parts.
        config: The optimiser.
        folder: Where states are saved.
        members: The processes that train together.
        shard: Whether they share the weights rather than hold copies.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[..., tuple[Tensor, dict[str, Tensor]]],
        config: OptimiserConfig,
        folder: Path,
        members: Team,
        *,
        shard: bool = False,
    ) -> None:
        self.network, self.config, self.folder, self.members = network, config, folder, members
        self.sharded = shard and members.size > 1
        self.objective = shared_objective(network, loss, members, shard=shard)
        self.names = [n for n, p in network.named_parameters() if p.requires_grad]
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimisers = _optimisers(network, config)
        self.average = {n: p.detach().clone() for n, p in zip(self.names, self.parameters, strict=True)}
        self.step = 0

    def update(self) -> float:
        """One step of the optimiser and the moving average by the gradients at hand; returns their norm.

        Raises:
            TrainingError: If the norm is not finite; nothing is changed.
        """
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.config.rate_at(self.step)
        norm = float(whole(nn.utils.clip_grad_norm_(self.parameters, self.config.clip)))
        if not math.isfinite(norm):
            raise TrainingError(
                expected="finite gradients",
                got=f"a norm of {norm} at update {self.step}",
                remedy="The last good state is kept; resume with a lower rate.",
            )
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        # A young average would remember the initial weights for too long.
        decay = min(self.config.ema, (1.0 + self.step) / (10.0 + self.step))
        with torch.no_grad():
            for average, parameter in zip(self.average.values(), self.parameters, strict=True):
                local(average).lerp_(local(parameter), 1.0 - decay)
        self.step += 1
        return norm

    @contextmanager
    def averaged(self) -> Iterator[nn.Module | None]:
        """A whole network with the averaged weights, ready for evaluation, for as long as the context lasts.

        Every process must enter; all but the leading one get None.
        """
        if self.sharded:
            yield self._plain_average()
            return
        if not self.members.leads:
            yield None
            return
        kept, mode = [p.detach().clone() for p in self.parameters], self.network.training
        self._assign(self.average)
        self.network.eval()
        try:
            yield self.network
        finally:
            self._assign(dict(zip(self.names, kept, strict=True)))
            self.network.train(mode)

    def finish(self) -> nn.Module:
        """The network with the averaged weights for good, at the end of a phase; whole in the leading process."""
        if not self.sharded:
            self._assign(self.average)
            return self.network.eval()
        plain = self._plain_average()
        return self.network if plain is None else plain

    def save(self, extra: Mapping[str, Tensor] | None = None) -> None:
        """Writes the state atomically and removes the older ones; every process must call it."""
        state = self._state()
        if not self.members.leads:
            return
        target = self.folder / f"step-{self.step:08d}"
        self.folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".state.", suffix=".tmp", dir=self.folder))
        try:
            save_file(state | dict(extra or {}), work / "state.safetensors")
            if not target.exists():
                os.replace(work, target)  # noqa: PTH105
        finally:
            shutil.rmtree(work, ignore_errors=True)
        for old in self.folder.glob("step-*"):
            if old.name < target.name:
                shutil.rmtree(old, ignore_errors=True)

    def restore(self) -> dict[str, Tensor] | None:
        """Reads the latest state, if there is one, and returns what `save` was given beside it."""
        states = sorted(self.folder.glob("step-*/state.safetensors"))
        if not states:
            return None
        tensors = _load(states[-1])
        self.step = int(tensors.pop("step"))
        with torch.no_grad():
            for name, parameter in zip(self.names, self.parameters, strict=True):
                parameter.copy_(shared_like(tensors.pop(f"weight.{name}"), parameter))
                self.average[name].copy_(shared_like(tensors.pop(f"average.{name}"), parameter))
                self._restore_moments(name, parameter, tensors)
        return tensors

    def _state(self) -> dict[str, Tensor]:
        """Everything on the CPU, whole; in a process that does not lead, the sharded tensors are only gathered."""
        state = {"step": torch.tensor(self.step)}

        def put(name: str, tensor: Tensor) -> None:
            gathered = whole(tensor.detach())
            if self.members.leads:
                state[name] = gathered.cpu().contiguous()

        for name, parameter in zip(self.names, self.parameters, strict=True):
            put(f"weight.{name}", parameter)
            put(f"average.{name}", self.average[name])
            for key, value in self._moments(parameter).items():
                put(f"{_MOMENTS[key]}.{name}", value)
        return state

    def _moments(self, parameter: Tensor) -> dict[str, Tensor]:
        """What an optimiser remembers of a parameter; nothing before its first update."""
        return next((dict(o.state[parameter]) for o in self.optimisers if parameter in o.state), {})

    def _restore_moments(self, name: str, parameter: Tensor, tensors: dict[str, Tensor]) -> None:
        optimiser = next(o for o in self.optimisers if any(p is parameter for g in o.param_groups for p in g["params"]))
        muon = isinstance(optimiser, torch.optim.Muon)
        for key in ("momentum_buffer",) if muon else ("step", "exp_avg", "exp_avg_sq"):
            saved = tensors.pop(f"{_MOMENTS[key]}.{name}", None)
            if saved is not None:
                # A count is no tensor of the weight's shape, which would be divided among processes.
                placed = saved.to(parameter.device) if key == "step" else shared_like(saved, parameter)
                optimiser.state[parameter][key] = placed

    @torch.no_grad()
    def _plain_average(self) -> nn.Module | None:
        """A copy of the sharded network with the averaged weights, gathered; None where this process does not lead."""
        with torch.device("meta"):
            plain = type(self.network)(self.network.config)
        plain = plain.to_empty(device=self.members.device) if self.members.leads else None
        targets = dict(plain.named_parameters()) if plain is not None else {}
        if plain is not None:
            for buffer, value in zip(plain.buffers(), self.network.buffers(), strict=True):
                buffer.copy_(value)
        for name, weight in self.network.named_parameters():
            gathered = whole(self.average.get(name, weight))
            if plain is not None:
                targets[name].copy_(gathered)
        return plain.eval() if plain is not None else None

    @torch.no_grad()
    def _assign(self, values: Mapping[str, Tensor]) -> None:
        for parameter, value in zip(self.parameters, values.values(), strict=True):
            parameter.copy_(value)


def _optimisers(network: nn.Module, config: OptimiserConfig) -> list[torch.optim.Optimizer]:
    """AdamW, or Muon for the matrices of the blocks and AdamW for everything else."""
    trained = [p for p in network.parameters() if p.requires_grad]
    hidden: list[nn.Parameter] = []
    if config.method == "muon":
        blocks = getattr(network, "blocks", nn.ModuleList())
        layers = [m for m in blocks.modules() if isinstance(m, nn.Linear)]
        hidden = [p for layer in layers for p in layer.parameters() if p.ndim == 2 and p.requires_grad]
    taken = {id(p) for p in hidden}
    others = [p for p in trained if id(p) not in taken]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.rate, betas=(0.9, 0.95), fused=True)]
    if hidden:
        # Steps of the size of AdamW's, so that one rate does for both (Liu et al. 2025).
        optimisers.append(
            torch.optim.Muon(hidden, lr=config.rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    return optimisers


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise TrainingError(
            expected=f"a saved state in {file}",
            got=f"a damaged file ({error})",
            remedy=f"Remove {file.parent} to go on from before it.",
        ) from error
