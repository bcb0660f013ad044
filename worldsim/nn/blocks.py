"""Spacetime transformer blocks with adaptive layer norm.

Shape legend: x is (..., C) tokens in whatever arrangement the layout understands; H heads, D head size, C width.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldsim.nn.attention import Packing, attend, attend_packed, attend_with_sinks
from worldsim.nn.cache import RingCache
from worldsim.nn.rope import rotate, rotate_halves, to_halves

HALVES, PARTS = 2, 6  # a block's spatial and temporal half; shift, scale and gate of attention and MLP


class Layout(Protocol):
    """How tokens of frames and sequences are arranged, and hence who attends to whom.

    Attributes:
        block: Index of the block at work. It is the layout's rather than the block's own, so that all blocks of a
            transformer are one and the same to a compiler.
        halved: Whether it takes queries and keys with their pairs in halves (`worldsim.nn.rope.to_halves`).
    """

    block: int
    halved: bool

    def per_token(self, per_frame: Tensor) -> Tensor:
        """Spreads (frames..., parts, C) over the tokens of each frame: (..., parts, C)."""
        ...

    def spatial(self, qk: Tensor, v: Tensor, text_kv: tuple[Tensor, Tensor] | None) -> Tensor:
        """Attention among the tokens of a frame and the text of its sequence; (..., H, D) out."""
        ...

    def temporal(self, qk: Tensor, v: Tensor) -> Tensor:
        """Attention over time among tokens at the same place; shapes as for `spatial`."""
        ...


class Attention(nn.Module):
    """Query, key, value and output projections of one attention layer."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        head_dim = width // heads
        self.norm_q = nn.RMSNorm(head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.norm_k = nn.RMSNorm(head_dim, eps=1e-6) if qk_norm else nn.Identity()

    def project(self, x: Tensor, *, in_halves: bool = False) -> tuple[Tensor, Tensor]:
        """(..., C) to queries beside keys (..., 2, H, D), and values (..., H, D).

        Args:
            x: Tokens.
            in_halves: Whether queries and keys come with their pairs in halves, by reordering weights rather than them.
        """
        qkv = F.linear(x, self._weight_in_halves() if in_halves else self.qkv.weight)
        qk, v = qkv.unflatten(-1, (3, self.heads, -1)).split((2, 1), dim=-3)
        v = v.squeeze(-3)
        if not (isinstance(self.norm_q, nn.RMSNorm) and isinstance(self.norm_k, nn.RMSNorm)):
            return qk, v
        # Both norms at once; their weights are float32 under autocast too.
        weights = torch.stack((self.norm_q.weight, self.norm_k.weight))[:, None]
        weights = to_halves(weights) if in_halves else weights
        normed = F.rms_norm(qk.float(), qk.shape[-1:], None, self.norm_q.eps) * weights
        return normed.to(v.dtype), v

    def _weight_in_halves(self) -> Tensor:
        qk, v = self.qkv.weight.unflatten(0, (3, self.heads, -1)).split((2, 1))
        return torch.cat((to_halves(qk.transpose(-1, -2)).transpose(-1, -2), v)).flatten(0, 2)

    def merge(self, heads: Tensor) -> Tensor:
        """(..., H, D) to (..., C)."""
        return self.out(heads.flatten(-2))


class TextKeys(nn.Module):
    """Keys and values of the text for one block's spatial attention."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.norm_k = nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()

    def forward(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, C) to keys and values (B, L, H, D)."""
        k, v = self.kv(text).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return self.norm_k(k.float()).to(v.dtype), v


class Mlp(nn.Sequential):
    """Two linear layers with a tanh-GELU between them."""

    def __init__(self, width: int, ratio: float) -> None:
        hidden = int(width * ratio)
        super().__init__(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))


class Block(nn.Module):
    """Attention over a frame's tokens, then over time; each followed by an MLP, each with its own modulation."""

    one: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float,
        qk_norm: bool,
        shared_modulation: bool,
        with_text: bool,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.spatial, self.temporal = (Attention(width, heads, qk_norm=qk_norm) for _ in range(HALVES))
        self.spatial_mlp, self.temporal_mlp = (Mlp(width, mlp_ratio) for _ in range(HALVES))
        self.text_keys = TextKeys(width, heads, qk_norm=qk_norm) if with_text else None
        if shared_modulation:
            self.offsets = nn.Parameter(torch.randn(HALVES * PARTS, width) / width**0.5)
        else:
            self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, HALVES * PARTS * width))
        self.shared_modulation = shared_modulation
        # Turns scales into factors, 1 + scale, once for a frame instead of once for each use.
        one = torch.tensor([0.0, 1.0, 0.0] * (HALVES * PARTS // 3))[:, None]
        self.register_buffer("one", one, persistent=False)

    def modulation_of(self, condition: Tensor) -> Tensor:
        """Shift, factor and gate of each part, (frames..., 12, C).

        Args:
            condition: Per frame: (frames..., C), or with shared modulation (frames..., 12, C).
        """
        if self.shared_modulation:
            return condition + (self.offsets + self.one)
        modulation = self.modulation(condition).unflatten(-1, (HALVES * PARTS, -1))
        return modulation + self.one.to(modulation.dtype)

    def forward(
        self, x: Tensor, condition: Tensor, layout: Layout, text_kv: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Tokens (..., C) to tokens.

        Args:
            x: Tokens as the layout arranges them.
            condition: As for `modulation_of`.
            layout: Who attends to whom.
            text_kv: This block's keys and values of the text.
        """
        return self.modulated(x, self.modulation_of(condition), layout, text_kv)

    def modulated(self, x: Tensor, modulation: Tensor, layout: Layout, text_kv: tuple[Tensor, Tensor] | None) -> Tensor:
        """As `forward`, given what `modulation_of` gives."""
        parts = layout.per_token(modulation).unbind(-2)
        x = self._spatial_half(x, parts, layout, text_kv)
        modulated = modulate(self.norm(x), *parts[PARTS : PARTS + 2])
        mixed = layout.temporal(*self.temporal.project(modulated, in_halves=layout.halved))
        return self._rest(x, mixed, parts[PARTS:], self.temporal, self.temporal_mlp)

    def remember(
        self, x: Tensor, modulation: Tensor, layout: "DenseLayout", text_kv: tuple[Tensor, Tensor] | None
    ) -> None:
        """As `modulated`, but only as far as the keys and values over time, all that a last block leaves behind."""
        parts = layout.per_token(modulation).unbind(-2)
        x = self._spatial_half(x, parts, layout, text_kv)
        layout.remember(*self.temporal.project(modulate(self.norm(x), *parts[PARTS : PARTS + 2])))

    def _spatial_half(
        self, x: Tensor, parts: tuple[Tensor, ...], layout: Layout, text_kv: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        qk, v = self.spatial.project(modulate(self.norm(x), *parts[:2]), in_halves=layout.halved)
        return self._rest(x, layout.spatial(qk, v, text_kv), parts, self.spatial, self.spatial_mlp)

    def _rest(self, x: Tensor, mixed: Tensor, parts: tuple[Tensor, ...], attention: Attention, mlp: Mlp) -> Tensor:
        """A half after its attention."""
        gate_a, shift_m, factor_m, gate_m = parts[2:PARTS]
        x = torch.addcmul(x, gate_a, attention.merge(mixed))
        return torch.addcmul(x, gate_m, mlp(modulate(self.norm(x), shift_m, factor_m)))


def modulate(x: Tensor, shift: Tensor, factor: Tensor) -> Tensor:
    """Adaptive layer norm's affine map, x * factor + shift."""
    return torch.addcmul(shift, x, factor)


class DenseLayout:
    """Sequences of equal shape: tokens (B, F, N, C).

    Args:
        grid: (N, ...) rotation of the tokens within a frame.
        time: (F, ...) or (B, F, ...) rotation of the frames.
        mask: (F, F) boolean, True where a frame (row) may look at a frame (column); None for everywhere.
        record: If given, called with (block, k, v) of temporal attention, (B, F, N, H, D), keys rotated.
        halved: See `Layout`; what is recorded would be so too.
    """

    def __init__(self, grid: Tensor, time: Tensor, mask: Tensor | None, record=None, *, halved: bool = False) -> None:  # noqa: ANN001
        self.grid = grid[:, None, None]  # broadcast over queries beside keys, and over heads
        self.time = (time if time.ndim == 3 else time[None])[:, :, None, None, None]
        self.mask, self.record = mask, record
        self.block, self.halved = 0, halved

    def per_token(self, per_frame: Tensor) -> Tensor:
        """(B, F, parts, C) to (B, F, 1, parts, C)."""
        return per_frame.unsqueeze(-3)

    def spatial(self, qk: Tensor, v: Tensor, text_kv: tuple[Tensor, Tensor] | None) -> Tensor:
        """See `Layout`."""
        b, f = v.shape[:2]
        q, k = _rotated(qk, self.grid, self).unbind(-3)
        if text_kv is not None:
            k, v = (
                torch.cat((x, t[:, None].expand(-1, f, -1, -1, -1)), dim=2)
                for x, t in zip((k, v), _text_of(text_kv, self), strict=True)
            )
        return attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)).unflatten(0, (b, f))

    def temporal(self, qk: Tensor, v: Tensor) -> Tensor:
        """See `Layout`."""
        b = v.shape[0]
        q, k = _rotated(qk, self.time, self).unbind(-3)
        if self.record is not None:
            self.record(self.block, k, v)
        q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
        return attend(q, k, v, self.mask).unflatten(0, (b, -1)).transpose(1, 2)

    def remember(self, qk: Tensor, v: Tensor) -> None:
        """What `temporal` leaves behind for later frames, without attending."""
        if self.record is not None:
            self.record(self.block, rotate(qk[..., 1, :, :], self.time.squeeze(-3)), v)


class StepLayout(DenseLayout):
    """One new frame per sequence against cached frames: tokens (B, 1, N, C).

    Args:
        grid: As in `DenseLayout`.
        time: (B, 1, ...) rotation of the new frame of each sequence.
        cache: The ring cache; the new frame's keys and values go into its current slot.
        sink_time: Like `time`, the rotation of queries to attention sinks; None where the cache has none.
    """

    def __init__(self, grid: Tensor, time: Tensor, cache: RingCache, sink_time: Tensor | None = None) -> None:
        super().__init__(grid, time, None)
        self.cache = cache
        self.sink_time = None if sink_time is None else sink_time[:, :, None, None]

    def temporal(self, qk: Tensor, v: Tensor) -> Tensor:
        """See `Layout`."""
        q, k = rotate(qk, self.time).unbind(-3)
        keys, values, mask = self.cache.put(self.block, k[:, 0], v[:, 0])
        b, n = q.shape[0], q.shape[2]
        keys, values = keys.flatten(0, 1), values.flatten(0, 1)
        if self.sink_time is None:
            out = attend(_one_by_one(q), keys, values, mask)
        else:
            sinks = min(self.cache.sinks, keys.shape[1])
            to_sinks = _one_by_one(rotate(qk[..., 0, :, :], self.sink_time))
            out = attend_with_sinks(_one_by_one(q), to_sinks, keys, values, sinks, mask)
        return out.reshape(b, n, 1, *out.shape[2:]).transpose(1, 2)

    def remember(self, qk: Tensor, v: Tensor) -> None:
        """See `DenseLayout`."""
        self.cache.put(self.block, rotate(qk[..., 1, :, :], self.time.squeeze(-3))[:, 0], v[:, 0])


def _rotated(qk: Tensor, rotation: Tensor, layout: Layout) -> Tensor:
    return rotate_halves(qk, rotation) if layout.halved else rotate(qk, rotation)


def _text_of(text_kv: tuple[Tensor, Tensor], layout: Layout) -> tuple[Tensor, Tensor]:
    """Keys of the text in the order of the layout's own, and their values."""
    k, v = text_kv
    return to_halves(k) if layout.halved else k, v


def _one_by_one(q: Tensor) -> Tensor:
    """(B, 1, N, H, D) to (B N, 1, H, D)."""
    return q.transpose(1, 2).flatten(0, 1)


class PackedLayout:
    """Clips of different sizes and lengths without padding: tokens (T, C), clip by clip, frame by frame.

    Args:
        shapes: (clips, frames, tokens a frame) of each group of clips of one shape.
        grids: (N, ...) rotation of the tokens within a frame of each group.
        times: (F, ...) rotation of the frames of each group.
        window: Frames that attention over time spans; None for bidirectional time.
        streams: With 2, the frames of a clip are a clean stream followed by a noisy one (`two_stream_mask`).
        text_tokens: Text tokens of each clip; 0 for a model without text.
        halved: See `Layout`.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int, int]],
        grids: Sequence[Tensor],
        times: Sequence[Tensor],
        *,
        window: int | None,
        streams: int = 1,
        text_tokens: int = 0,
        halved: bool = False,
    ) -> None:
        self.block, self.halved = 0, halved
        device = times[0].device
        counts = torch.tensor([n for b, f, n in shapes for _ in range(b * f)], device=device)
        self.frame_of_token = torch.repeat_interleave(counts)
        self.grid = torch.cat([g.repeat(b * f, 1) for g, (b, f, _) in zip(grids, shapes, strict=True)])[:, None, None]
        time = torch.cat([t.repeat(b, 1) for t, (b, _, _) in zip(times, shapes, strict=True)])
        self.time = time[self.frame_of_token][:, None, None]
        total, clips = len(self.frame_of_token), [b for b, _, _ in shapes]
        # Rows of each clip's tokens, (clips, frames, tokens a frame), and of its text behind all tokens.
        rows = torch.arange(total, device=device).split([b * f * n for b, f, n in shapes])
        places = [r.view(shape) for r, shape in zip(rows, shapes, strict=True)]
        texts = total + torch.arange(sum(clips) * text_tokens, device=device).view(sum(clips), 1, text_tokens)
        keys = (
            torch.cat((p, t.expand(-1, p.shape[1], -1)), dim=2) for p, t in zip(places, texts.split(clips), strict=True)
        )
        self.within_frames = Packing.of((p.flatten(0, 1), k.flatten(0, 1)) for p, k in zip(places, keys, strict=True))
        over_time = (p.transpose(1, 2).flatten(0, 1) for p in places)
        self.over_time = Packing.of(((p, p) for p in over_time), window, streams)

    def per_token(self, per_frame: Tensor) -> Tensor:
        """(frames, parts, C) to (T, parts, C)."""
        return per_frame.index_select(0, self.frame_of_token)

    def spatial(self, qk: Tensor, v: Tensor, text_kv: tuple[Tensor, Tensor] | None) -> Tensor:
        """See `Layout`; `text_kv` is (clips, L, H, D) each."""
        q, k = _rotated(qk, self.grid, self).unbind(-3)
        if text_kv is not None:
            k, v = (torch.cat((x, t.flatten(0, 1))) for x, t in zip((k, v), _text_of(text_kv, self), strict=True))
        return attend_packed(q, k, v, self.within_frames)

    def temporal(self, qk: Tensor, v: Tensor) -> Tensor:
        """See `Layout`."""
        q, k = _rotated(qk, self.time, self).unbind(-3)
        return attend_packed(q, k, v, self.over_time)
