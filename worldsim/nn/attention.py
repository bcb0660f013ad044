"""The one door to attention.

Shape legend: B sequences, H heads, N query tokens, M key tokens, D head size.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from worldsim.nn.masks import causal_mask, two_stream_mask

_fmha = None
if torch.cuda.is_available():  # its kernels run on CUDA only, and its import takes seconds
    try:
        from xformers.ops import fmha as _fmha  # pyright: ignore[reportMissingImports]
    except ImportError:  # an extra; without it CUDA uses PyTorch's own attention too
        _fmha = None


def attend(q_BNHD: Tensor, k_BMHD: Tensor, v_BMHD: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention with scale D**-0.5.

    Args:
        q_BNHD: Queries (B, N, H, D).
        k_BMHD: Keys (B, M, H, D).
        v_BMHD: Values (B, M, H, D).
        mask: Boolean, broadcastable to (B, H, N, M); True where a query may look. None for everywhere.

    Returns:
        (B, N, H, D).
    """
    q, k, v = (x.transpose(1, 2) for x in (q_BNHD, k_BMHD, v_BMHD))
    # On CPUs the fused kernel is several times slower than plain products for a single query, as of a cached step, and
    # for short bfloat16 sequences, backward most.
    if q.device.type == "cpu" and (q.dtype == torch.bfloat16 or q.shape[2] == 1):
        return _attend_by_products(q, k, v, mask).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def attend_with_sinks(
    q_BNHD: Tensor, q_sink_BNHD: Tensor, k_BMHD: Tensor, v_BMHD: Tensor, sinks: int, mask: Tensor | None = None
) -> Tensor:
    """As `attend`, with other queries for the first keys (attention sinks, Xiao et al. 2023).

    Args:
        q_BNHD: Queries (B, N, H, D).
        q_sink_BNHD: Queries to the first `sinks` keys: the same ones, rotated to another position.
        k_BMHD: Keys (B, M, H, D).
        v_BMHD: Values (B, M, H, D).
        sinks: At most M.
        mask: As for `attend`.

    Returns:
        (B, N, H, D).
    """
    q, q_sink, k, v = (x.transpose(1, 2) for x in (q_BNHD, q_sink_BNHD, k_BMHD, v_BMHD))
    keys = k.transpose(-1, -2)
    scores = torch.cat((q_sink @ keys[..., :sinks], q @ keys[..., sinks:]), dim=-1) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return (scores.softmax(dim=-1) @ v).transpose(1, 2)


def attend_past(
    q_BNHD: Tensor, k_BNHD: Tensor, v_BNHD: Tensor, keys_BNHMD: Tensor, values_BNHMD: Tensor, past: Tensor
) -> Tensor:
    """A new frame's attention, at each place, to cached frames and to itself; what is cached is only read.

    Args:
        q_BNHD: Queries of the new frame (B, N, H, D).
        k_BNHD: Its keys.
        v_BNHD: Its values.
        keys_BNHMD: Cached keys (B, N, H, M, D).
        values_BNHMD: Cached values.
        past: Boolean, broadcastable to (B, N, H, M); True where a cached frame may be looked at.

    Returns:
        (B, N, H, D).
    """
    q = q_BNHD * q_BNHD.shape[-1] ** -0.5
    cached = (q[..., None, :] @ keys_BNHMD.transpose(-1, -2)).squeeze(-2)
    cached = cached.masked_fill(~past, torch.finfo(q.dtype).min)
    weights = torch.cat((cached, (q * k_BNHD).sum(dim=-1, keepdim=True)), dim=-1).softmax(dim=-1)
    return (weights[..., None, :-1] @ values_BNHMD).squeeze(-2) + weights[..., -1:] * v_BNHD


def _attend_by_products(q_BHND: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, mask: Tensor | None) -> Tensor:
    scores = (q_BHND * q_BHND.shape[-1] ** -0.5) @ k_BHMD.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1) @ v_BHMD


@dataclass(frozen=True)
class Packing:
    """Sequences of several lengths among the rows of one array, each attending within itself.

    Sequences of equal lengths form a block, which is computed at once where there is no kernel for unequal ones.

    Attributes:
        queries: For each block the rows (S, n) of its S sequences of n query tokens; every row occurs once in all.
        keys: For each block the rows (S, m) of their m key tokens; a row may occur in several sequences.
        window: If given, n = m and token i sees tokens i - window + 1 to i; otherwise every key of its sequence.
        streams: With 2, each sequence is a clean stream followed by a noisy one of as many tokens, which see each other
            as `two_stream_mask` says; it takes a window.
    """

    queries: tuple[Tensor, ...]
    keys: tuple[Tensor, ...]
    window: int | None = None
    streams: int = 1

    @classmethod
    def of(cls, sequences: Iterable[tuple[Tensor, Tensor]], window: int | None = None, streams: int = 1) -> Self:
        """Merges (queries, keys) rows, (S, n) and (S, m) each, into blocks of equal lengths."""
        blocks: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for queries, keys in sequences:
            blocks.setdefault((queries.shape[1], keys.shape[1]), []).append((queries, keys))
        merged = [tuple(map(torch.cat, zip(*block, strict=True))) for block in blocks.values()]
        return cls(tuple(q for q, _ in merged), tuple(k for _, k in merged), window, streams)

    @classmethod
    def of_lengths(
        cls, q_lengths: Sequence[int], k_lengths: Sequence[int] | None = None, window: int | None = None
    ) -> Self:
        """Sequences laid end to end."""
        k_lengths = q_lengths if k_lengths is None else k_lengths
        rows = (torch.arange(sum(lengths)).split(list(lengths)) for lengths in (q_lengths, k_lengths))
        return cls.of(((q[None], k[None]) for q, k in zip(*rows, strict=True)), window)

    @property
    def lengths(self) -> tuple[list[int], list[int]]:
        """Query and key tokens of each sequence, block by block."""
        q, k = ([rows.shape[1] for rows in side for _ in range(len(rows))] for side in (self.queries, self.keys))
        return q, k

    @cached_property
    def order(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the queries and of the keys block by block, and the place of each query row among them."""
        q, k = (torch.cat([rows.flatten() for rows in side]) for side in (self.queries, self.keys))
        return q, k, q.argsort()

    def mask(self) -> Tensor:
        """(N, M) boolean in the order of the blocks: what one dense attention would need, for tests."""
        q_lengths, k_lengths = self.lengths
        within = (self._within(n, m) for n, m in zip(q_lengths, k_lengths, strict=True))
        return torch.block_diag(*(w.float() for w in within)).bool()

    @cached_property
    def bias(self) -> Any:  # noqa: ANN401 - a class of an optional package
        """The same as xformers' mask object."""
        from xformers.ops.fmha.attn_bias import (  # noqa: PLC0415 - an extra, and slow to import  # pyright: ignore[reportMissingImports]
            BlockDiagonalMask,
        )

        whole = BlockDiagonalMask.from_seqlens(*self.lengths)
        return whole if self.window is None else whole.make_local_attention(self.window)

    def block_mask(self, block: int) -> Tensor | None:
        """(n, n) mask of a block, or None for everywhere."""
        n, m = self.queries[block].shape[1], self.keys[block].shape[1]
        return None if self.window is None else self._within(n, m).to(self.queries[block].device)

    def _within(self, n: int, m: int) -> Tensor:
        if self.window is None:
            return torch.ones(n, m, dtype=torch.bool)
        return two_stream_mask(n // 2, self.window) if self.streams == 2 else causal_mask(n, self.window)


def attend_packed(q_NHD: Tensor, k_MHD: Tensor, v_MHD: Tensor, packing: Packing) -> Tensor:
    """Attention within each of several sequences of different lengths, without padding.

    On CUDA with xformers this is one kernel with a block-diagonal mask; elsewhere, and where two streams run side by
    side, sequences of equal lengths are batched together.

    Args:
        q_NHD: Queries of all sequences (N, H, D).
        k_MHD: Keys (M, H, D).
        v_MHD: Values, like the keys.
        packing: Which rows belong together.

    Returns:
        (N, H, D), row by row as the queries.
    """
    q_rows, k_rows, back = packing.order
    if _fmha is not None and q_NHD.is_cuda and packing.streams == 1:
        q, k, v = q_NHD[q_rows][None], k_MHD[k_rows][None], v_MHD[k_rows][None]
        return _fmha.memory_efficient_attention(q, k, v, attn_bias=packing.bias)[0][back]
    out = []
    for i, (rows_q, rows_k) in enumerate(zip(packing.queries, packing.keys, strict=True)):
        q, k, v = _rows(q_NHD, rows_q), _rows(k_MHD, rows_k), _rows(v_MHD, rows_k)
        out.append(attend(q, k, v, packing.block_mask(i)).flatten(0, 1))
    return torch.cat(out).index_select(0, back)


def _rows(x_NHD: Tensor, rows: Tensor) -> Tensor:
    """(N, H, D) and (S, n) to (S, n, H, D); gradients of `index_select` cost less than those of an index."""
    return x_NHD.index_select(0, rows.flatten()).unflatten(0, rows.shape)
