"""The one door to attention.

Shape legend: B sequences, H heads, N query tokens, M key tokens, D head size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_fmha = None
if torch.cuda.is_available():  # its kernels run on CUDA only, and its import takes seconds
    try:
        from xformers.ops import fmha as _fmha
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
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return _attend_by_products(q, k, v, mask).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def _attend_by_products(q_BHND: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, mask: Tensor | None) -> Tensor:
    # On CPUs the fused kernel is several times slower than plain products for short bfloat16 sequences, backward most.
    scores = (q_BHND * q_BHND.shape[-1] ** -0.5) @ k_BHMD.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1) @ v_BHMD


def attend_packed(
    q_NHD: Tensor, k_MHD: Tensor, v_MHD: Tensor, q_lengths: Sequence[int], k_lengths: Sequence[int] | None = None
) -> Tensor:
    """Attention within each of several sequences laid end to end, without padding.

    On CUDA with xformers this is one kernel with a block-diagonal mask; elsewhere sequences of equal lengths are
    batched together.

    Args:
        q_NHD: Queries of all sequences (sum of `q_lengths`, H, D).
        k_MHD: Keys (sum of `k_lengths`, H, D).
        v_MHD: Values, like the keys.
        q_lengths: Query tokens of each sequence.
        k_lengths: Key tokens of each sequence; `q_lengths` by default.

    Returns:
        (N, H, D).
    """
    k_lengths = q_lengths if k_lengths is None else k_lengths
    if _fmha is not None and q_NHD.is_cuda:
        bias = _fmha.attn_bias.BlockDiagonalMask.from_seqlens(list(q_lengths), list(k_lengths))
        return _fmha.memory_efficient_attention(q_NHD[None], k_MHD[None], v_MHD[None], attn_bias=bias)[0]
    return _attend_by_length(q_NHD, k_MHD, v_MHD, q_lengths, k_lengths)


def _attend_by_length(
    q_NHD: Tensor, k_MHD: Tensor, v_MHD: Tensor, q_lengths: Sequence[int], k_lengths: Sequence[int]
) -> Tensor:
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    q_start = k_start = 0
    for n, m in zip(q_lengths, k_lengths, strict=True):
        groups.setdefault((n, m), []).append((q_start, k_start))
        q_start, k_start = q_start + n, k_start + m
    out = torch.empty_like(q_NHD)
    for (n, m), starts in groups.items():
        rows_q = torch.tensor([s for s, _ in starts], device=q_NHD.device)[:, None] + torch.arange(
            n, device=q_NHD.device
        )
        rows_k = torch.tensor([s for _, s in starts], device=q_NHD.device)[:, None] + torch.arange(
            m, device=q_NHD.device
        )
        out[rows_q] = attend(q_NHD[rows_q], k_MHD[rows_k], v_MHD[rows_k])
    return out
