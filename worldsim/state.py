"""State: everything a simulator needs to go on, as a value."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from worldsim.config import ModelConfig
from worldsim.controls import Controls
from worldsim.errors import StateError
from worldsim.nn.cache import RingCache

_FORMAT = "worldsim-state"
_CACHE = ("keys", "values", "frame")


@dataclass(frozen=True)
class State:
    """The state of a batch of environments.

    Attributes:
        cache: Keys and values of the past; its rows are the environments, once per guidance variant.
        seeds: (B,) int64 on the CPU; the noise of frame t of environment k follows from (seeds[k], t).
        captions: The text of each environment, or None where there is none.
        text: (B, L, D) memory of them, or None for a model without text.
        no_text: (B, L, D) memory of absent texts, or None.
        latents: (B, window, C, h, w) ring of the latest clean latents.
        controls: (B, window, ...) ring of the actions and motions of the camera that led to them.
        fingerprint: Which model it belongs to.
        variants: The evaluations that guidance combines, as in `Sampling.variants`.
    """

    cache: RingCache
    seeds: Tensor
    captions: tuple[str | None, ...]
    text: Tensor | None
    no_text: Tensor | None
    latents: Tensor
    controls: Controls
    fingerprint: str
    variants: tuple[str, ...]

    @classmethod
    def blank(
        cls,
        cache: RingCache,
        *,
        seeds: Tensor,
        captions: tuple[str | None, ...],
        text: Tensor | None,
        no_text: Tensor | None,
        grid: tuple[int, int],
        config: ModelConfig,
        fingerprint: str,
        variants: tuple[str, ...],
    ) -> Self:
        """A state in which no frame, of (h, w) latents, has been seen."""
        b, window = len(seeds), cache.window
        # Latents are float32 beside a cache of lower precision.
        like = cache.keys.new_empty(0, dtype=torch.promote_types(cache.keys.dtype, torch.float32))
        return cls(
            cache=cache,
            seeds=seeds,
            captions=captions,
            text=text,
            no_text=no_text,
            latents=like.new_zeros(b, window, config.latent_channels, *grid),
            controls=Controls.unknown(b, window, config, like),
            fingerprint=fingerprint,
            variants=variants,
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
            controls=self.controls.map(torch.clone),
        )

    def take(self, index: Sequence[int] | Tensor) -> Self:
        """The environments at `index`, which may repeat: branch one into many, or reorder and drop.

        Raises:
            StateError: If an index is out of range.
        """
        try:
            rows = torch.as_tensor(index)
        except (TypeError, ValueError) as error:
            raise StateError(
                expected="a list of environment numbers", got=repr(index)[:80], remedy="Correct the list."
            ) from error
        whole = not rows.is_floating_point() and rows.dtype != torch.bool
        if rows.ndim != 1 or not len(rows) or not whole or int(rows.min()) < 0 or int(rows.max()) >= self.num_envs:
            raise StateError(
                expected=f"a list of environment numbers from 0 to {self.num_envs - 1}",
                got=rows.tolist(),
                remedy="Correct the list.",
            )
        rows, at = rows.to("cpu", torch.int64), rows.to(self.latents.device, torch.int64)
        return replace(
            self,
            cache=self.cache.rows(torch.cat([at + v * self.num_envs for v in range(len(self.variants))])),
            seeds=self.seeds[rows],
            captions=tuple(self.captions[row] for row in rows.tolist()),
            text=None if self.text is None else self.text[at],
            no_text=None if self.no_text is None else self.no_text[at],
            latents=self.latents[at],
            controls=self.controls.map(lambda part: part[at]),
        )

    def branch(self, count: int, *, seeds: Sequence[int] | None = None) -> Self:
        """`count` copies of a single environment; with `seeds` their futures differ.

        Raises:
            StateError: If the state holds more than one environment, or the seeds are not `count`.
        """
        if self.num_envs != 1 or not isinstance(count, int) or count < 1 or (seeds is not None and len(seeds) != count):
            raise StateError(
                expected=f"one environment, at least one copy, and as many seeds as copies ({count})",
                got=f"{self.num_envs} environments and {None if seeds is None else len(seeds)} seeds",
                remedy="Use state.take([k]) first.",
            )
        many = self.take([0] * count)
        return many if seeds is None else replace(many, seeds=torch.tensor(list(seeds), dtype=torch.int64))

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """One batch from several.

        Raises:
            StateError: If there is none, or they belong to different models, frame sizes or guidance.
        """
        strangers = [type(s).__name__ for s in states if not isinstance(s, State)]
        if strangers:
            raise StateError(expected="states", got=strangers, remedy="Pass what `reset` or `step` gave.")
        kinds = {(s.fingerprint, tuple(s.latents.shape[1:]), s.variants, s.cache.sinks) for s in states}
        if len(kinds) != 1:
            raise StateError(
                expected="states of one model, frame size and guidance",
                got="none" if not kinds else sorted(map(str, kinds)),
                remedy="Join them apart.",
            )
        first = states[0]

        def rows(of: list[Tensor], axis: int) -> Tensor:
            # Rows of a cache are ordered by variant, then environment; so must the joined ones be.
            parts = [t.chunk(len(first.variants), dim=axis) for t in of]
            return torch.cat([p[v] for v in range(len(first.variants)) for p in parts], dim=axis)

        cache = replace(
            first.cache,
            keys=rows([s.cache.keys for s in states], 1),
            values=rows([s.cache.values for s in states], 1),
            frame=rows([s.cache.frame for s in states], 0),
        )
        own = {}
        for name in ("seeds", "text", "no_text", "latents"):
            values = [getattr(s, name) for s in states]
            own[name] = None if values[0] is None else torch.cat(values)
        parts = [s.controls.tensors() for s in states]
        controls = Controls(**{name: torch.cat([p[name] for p in parts]) for name in parts[0]})
        captions = tuple(c for s in states for c in s.captions)
        return replace(first, cache=cache, captions=captions, controls=controls, **own)

    def scatter(self, index: Sequence[int], other: Self) -> Self:
        """This batch with the environments at `index` replaced by those of `other`, in that order.

        Raises:
            StateError: If the numbers do not fit this batch or `other`, or the states do not go together.
        """
        if not isinstance(other, State):
            raise StateError(expected="a state", got=type(other).__name__, remedy="Pass what `reset` or `step` gave.")
        rows = list(index)
        if len(rows) != other.num_envs or len(set(rows)) != len(rows) or not set(rows) <= set(range(self.num_envs)):
            raise StateError(
                expected=f"{other.num_envs} different environment numbers from 0 to {self.num_envs - 1}",
                got=rows,
                remedy="Give one for each environment of the other state.",
            )
        order = list(range(self.num_envs))
        for place, row in enumerate(rows):
            order[row] = self.num_envs + place
        return type(self).join([self, other]).take(order)

    def extended(self, latent: Tensor, controls: Controls) -> Self:
        """After a step: the new latent (B, C, h, w) and what led to it remembered, the next frame current.

        Writes in place.
        """
        return replace(self.remembered(latent, controls, self.frame), cache=self.cache.advanced())

    def remembered(self, latent: Tensor, controls: Controls, frame: Tensor) -> Self:
        """Puts frame number `frame` (B,) of each environment into the rings, in place."""
        rows = torch.arange(self.num_envs, device=self.latents.device)
        slots = frame % self.cache.window
        self.latents[rows, slots] = latent.to(self.latents.dtype)
        self.controls.put(rows, slots, controls)
        return self

    def at(self, frame: int) -> Self:
        """The same memory, with frame number `frame` current in every environment."""
        return replace(self, cache=replace(self.cache, frame=torch.full_like(self.cache.frame, frame)))

    def recent(self, count: int) -> tuple[Tensor, Controls]:
        """Latents (B, count, C, h, w) of the last `count` frames in order, and what led to them."""
        offsets = torch.arange(count, device=self.latents.device) - count
        slots = (self.frame[:, None] + offsets) % self.cache.window
        rows = torch.arange(self.num_envs, device=self.latents.device)[:, None]
        return self.latents[rows, slots], self.controls.map(lambda part: part[rows, slots])

    def save(self, path: str | Path) -> Path:
        """Writes the state to a safetensors file, whole or not at all.

        Raises:
            StateError: If the place cannot be written.
        """
        path = Path(path)
        work = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        meta = {
            "format": _FORMAT,
            "fingerprint": self.fingerprint,
            "variants": json.dumps(self.variants),
            "sinks": str(self.cache.sinks),
            "captions": json.dumps(self.captions),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                save_file(self._tensors(), work, metadata=meta)
                work.replace(path)
            finally:
                work.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            raise StateError(expected=f"to write {path}", got=error, remedy="Check the place and its space.") from error
        return path

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Reads a saved state.

        Raises:
            StateError: If the file is missing, truncated, altered or of another kind.
        """
        try:
            with safe_open(path, "pt", device=str(device)) as stored:
                meta = stored.metadata() or {}
                tensors = {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118 - not a dictionary
        except (OSError, SafetensorError) as error:
            raise _not_a_state(path, error) from error
        if meta.get("format") != _FORMAT:
            raise _not_a_state(path, "another kind of file")
        try:
            cache = RingCache(*(tensors.pop(f"cache.{k}") for k in _CACHE), sinks=int(meta.get("sinks", 0)))
            # States that were saved before there was a camera lack it: nothing was known of it.
            blank = {"camera": tensors["actions"][..., :0], "has_camera": torch.zeros_like(tensors["has_action"])}
            # Nor did they have the words of their texts.
            captions = json.loads(meta.get("captions", "null")) or [None] * len(tensors["seeds"])
            state = cls(
                cache=cache,
                captions=tuple(captions),
                controls=Controls(**{f.name: tensors.pop(f.name, blank.get(f.name)) for f in fields(Controls)}),
                text=tensors.pop("text", None),
                no_text=tensors.pop("no_text", None),
                fingerprint=meta["fingerprint"],
                variants=tuple(json.loads(meta["variants"])),
                **{**tensors, "seeds": tensors["seeds"].cpu()},
            )
            state._check_shapes()
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise _not_a_state(path, f"{type(error).__name__}: {error}") from error
        return state

    def _tensors(self) -> dict[str, Tensor]:
        own = {k: getattr(self, k) for k in ("seeds", "text", "no_text", "latents")} | self.controls.tensors()
        own |= {f"cache.{k}": getattr(self.cache, k) for k in _CACHE}
        return {k: v.contiguous() for k, v in own.items() if v is not None}

    def _check_shapes(self) -> None:
        """Raises ValueError if the parts do not belong together."""
        b, window, cache = self.num_envs, self.cache.window, self.cache
        parts = {"latents": self.latents, **self.controls.tensors()}
        leading = {name: tuple(part.shape[:2]) for name, part in parts.items()}
        rows = (b * len(self.variants), tuple(cache.values.shape))
        if len(self.captions) != b or not all(c is None or isinstance(c, str) for c in self.captions):
            raise ValueError(f"captions that are not those of {b} environments")
        if (
            any(shape != (b, window) for shape in leading.values())
            or (len(cache.frame), tuple(cache.keys.shape)) != rows
        ):
            raise ValueError(f"parts of different batches: {leading}, cache {tuple(cache.keys.shape)}")
        if not all(bool(torch.isfinite(t).all()) for t in self._tensors().values()):
            raise ValueError("NaN or infinity")


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


def _not_a_state(path: str | Path, got: object) -> StateError:
    return StateError(expected=f"a saved state at {path}", got=got, remedy="Pass a file that `State.save` wrote.")
