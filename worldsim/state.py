"""State: everything a simulator needs to go on, as a value."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from worldsim.errors import StateError
from worldsim.nn.cache import RingCache


@dataclass(frozen=True)
class State:
    """The state of a batch of environments.

    Attributes:
        cache: Keys and values of the past; its rows are the environments, once per guidance variant.
        seeds: (B,) int64 on the CPU; the noise of frame t of environment k follows from (seeds[k], t).
        text: (B, L, D) memory of the texts, or None for a model without text.
        no_text: (B, L, D) memory of absent texts, or None.
        latents: (B, window, C, h, w) ring of the latest clean latents.
        actions: (B, window, A) ring of the actions that led to them.
        has_action: (B, window) boolean, whether those actions are known.
        fingerprint: Which model it belongs to.
    """

    cache: RingCache
    seeds: Tensor
    text: Tensor | None
    no_text: Tensor | None
    latents: Tensor
    actions: Tensor
    has_action: Tensor
    fingerprint: str

    @classmethod
    def blank(
        cls,
        cache: RingCache,
        *,
        seeds: Tensor,
        text: Tensor | None,
        no_text: Tensor | None,
        latent_shape: tuple[int, int, int],
        action_dim: int,
        fingerprint: str,
    ) -> Self:
        """A state in which no frame has been seen."""
        b, window, like = len(seeds), cache.window, cache.keys
        return cls(
            cache=cache,
            seeds=seeds,
            text=text,
            no_text=no_text,
            latents=like.new_zeros(b, window, *latent_shape),
            actions=like.new_zeros(b, window, action_dim),
            has_action=torch.zeros(b, window, dtype=torch.bool, device=like.device),
            fingerprint=fingerprint,
        )

    @property
    def num_envs(self) -> int:
        """Number of environments."""
        return len(self.seeds)

    @property
    def frame(self) -> Tensor:
        """(B,) latent frames seen so far."""
        return self.cache.frame[: self.num_envs]

    def clone(self) -> Self:
        """A copy that shares no memory that a step writes to."""
        return replace(
            self,
            cache=self.cache.clone(),
            latents=self.latents.clone(),
            actions=self.actions.clone(),
            has_action=self.has_action.clone(),
        )

    def take(self, index: list[int] | Tensor) -> Self:
        """The environments at `index`, which may repeat: branch one into many, or reorder and drop.

        Raises:
            StateError: If an index is out of range.
        """
        rows = torch.as_tensor(index, dtype=torch.int64)
        if rows.ndim != 1 or not len(rows) or int(rows.min()) < 0 or int(rows.max()) >= self.num_envs:
            raise StateError(
                expected=f"a list of environment numbers from 0 to {self.num_envs - 1}",
                got=rows.tolist(),
                remedy="Correct the list.",
            )
        variants = self.cache.keys.shape[1] // self.num_envs
        at = rows.to(self.latents.device)
        cache_rows = torch.cat([at + v * self.num_envs for v in range(variants)])
        return replace(
            self,
            cache=self.cache.rows(cache_rows),
            seeds=self.seeds[rows],
            text=None if self.text is None else self.text[at],
            no_text=None if self.no_text is None else self.no_text[at],
            latents=self.latents[at],
            actions=self.actions[at],
            has_action=self.has_action[at],
        )

    def branch(self, count: int, *, seeds: list[int] | None = None) -> Self:
        """`count` copies of a single environment; with `seeds` their futures differ.

        Raises:
            StateError: If the state holds more than one environment, or the seeds are not `count`.
        """
        if self.num_envs != 1 or (seeds is not None and len(seeds) != count):
            raise StateError(
                expected=f"one environment and {count} seeds",
                got=f"{self.num_envs} and {None if seeds is None else len(seeds)}",
                remedy="Use state.take([k]) first.",
            )
        many = self.take([0] * count)
        return many if seeds is None else replace(many, seeds=torch.tensor(seeds, dtype=torch.int64))

    @classmethod
    def join(cls, states: list[Self]) -> Self:
        """One batch from several.

        Raises:
            StateError: If they belong to different models or frame sizes.
        """
        first = states[0]
        if len({(s.fingerprint, s.latents.shape[2:], s.cache.keys.shape[1] // s.num_envs) for s in states}) != 1:
            raise StateError(
                expected="states of one model, frame size and guidance", got="several", remedy="Join them apart."
            )
        variants = first.cache.keys.shape[1] // first.num_envs

        def rows(of: list[Tensor], axis: int) -> Tensor:
            parts = [t.chunk(variants, dim=axis) for t in of]
            return torch.cat([p[v] for v in range(variants) for p in parts], dim=axis)

        cache = RingCache(
            keys=rows([s.cache.keys for s in states], 1),
            values=rows([s.cache.values for s in states], 1),
            frame=rows([s.cache.frame for s in states], 0),
        )
        fields = {}
        for name in ("seeds", "text", "no_text", "latents", "actions", "has_action"):
            values = [getattr(s, name) for s in states]
            fields[name] = None if values[0] is None else torch.cat(values)
        return replace(first, cache=cache, **fields)

    def scatter(self, index: list[int], other: Self) -> Self:
        """This batch with the environments at `index` replaced by those of `other`."""
        order = list(range(self.num_envs))
        for place, row in enumerate(index):
            order[row] = self.num_envs + place
        return type(self).join([self, other]).take(order)

    def extended(self, latent: Tensor, action: Tensor | None) -> Self:
        """After a step: the new latent (B, C, h, w) remembered, the next frame current. Writes in place."""
        given = self.actions.new_zeros(self.actions[:, 0].shape) if action is None else action
        has = torch.full_like(self.has_action[:, 0], action is not None)
        rows = torch.arange(self.num_envs, device=self.latents.device)
        slot = self.frame % self.cache.window
        self.latents[rows, slot] = latent.to(self.latents.dtype)
        self.actions[rows, slot] = given.to(self.actions.dtype)
        self.has_action[rows, slot] = has
        return replace(self, cache=self.cache.advanced())

    def remembered(self, latent: Tensor, action: Tensor, has_action: Tensor, *, frame: int) -> Self:
        """Puts a given past frame into the rings, in place."""
        slot = frame % self.cache.window
        self.latents[:, slot], self.actions[:, slot], self.has_action[:, slot] = latent, action, has_action
        return self

    def at(self, frame: int) -> Self:
        """The same memory, with frame number `frame` current in every environment."""
        return replace(self, cache=replace(self.cache, frame=torch.full_like(self.cache.frame, frame)))

    def recent(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, actions and their presence of the last `count` frames in order, each (B, count, ...)."""
        offsets = torch.arange(count, device=self.latents.device) - count
        slots = (self.frame[:, None] + offsets) % self.cache.window
        rows = torch.arange(self.num_envs, device=self.latents.device)[:, None]
        return self.latents[rows, slots], self.actions[rows, slots], self.has_action[rows, slots]

    def save(self, path: str | Path) -> Path:
        """Writes the state to a safetensors file, atomically."""
        path = Path(path)
        work = path.with_name(f".{path.name}.tmp")
        save_file(self._tensors(), work, metadata={"format": "worldsim-state", "fingerprint": self.fingerprint})
        work.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Reads a saved state.

        Raises:
            StateError: If the file is missing, truncated or of another kind.
        """
        try:
            with safe_open(path, "pt", device=str(device)) as stored:
                meta = stored.metadata() or {}
                tensors = {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118 - not a dictionary
        except (OSError, SafetensorError) as error:
            raise StateError(expected=f"a saved state at {path}", got=error, remedy="Save it again.") from error
        if meta.get("format") != "worldsim-state":
            raise StateError(expected=f"a saved state at {path}", got="another file", remedy="Pass a saved state.")
        cache = RingCache(*(tensors.pop(f"cache.{k}") for k in ("keys", "values", "frame")))
        tensors["seeds"] = tensors["seeds"].cpu()
        return cls(
            cache=cache,
            text=tensors.pop("text", None),
            no_text=tensors.pop("no_text", None),
            fingerprint=meta["fingerprint"],
            **tensors,
        )

    def _tensors(self) -> dict[str, Tensor]:
        own = {k: getattr(self, k) for k in ("seeds", "text", "no_text", "latents", "actions", "has_action")}
        own |= {f"cache.{k}": getattr(self.cache, k) for k in ("keys", "values", "frame")}
        return {k: v.contiguous() for k, v in own.items() if v is not None}


def frame_noise(seeds: Tensor, frames: Tensor, shape: torch.Size, *, stream: int = 0) -> Tensor:
    """(B, *shape) unit Gaussian noise that follows from (seed, frame, stream) alone, drawn on the CPU.

    Environment k of a batch thus gets the noise that it would get alone, on every device.
    """
    rows = []
    for seed, frame in zip(seeds.tolist(), frames.tolist(), strict=True):
        digest = hashlib.blake2b(f"{seed}/{frame}/{stream}".encode(), digest_size=4).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
        rows.append(torch.randn(shape, generator=generator))
    return torch.stack(rows)
