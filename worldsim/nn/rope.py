"""Rotary positions (Su et al. 2021), applied to interleaved pairs.

Angles are computed in float64, so that a frame's position may grow without limit.
"""

from functools import lru_cache

import torch
from torch import Tensor


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotates the leading pairs of the last axis.

    Args:
        x: (..., D).
        rotation: (..., 2, R), cosines and sines, broadcastable over the leading axes of x; R <= D / 2 pairs are
            rotated, the rest of the axis passes through.
    """
    cos, sin = rotation.unbind(-2)
    pairs = cos.shape[-1]
    head, tail = x[..., : 2 * pairs], x[..., 2 * pairs :]
    even, odd = head[..., 0::2], head[..., 1::2]
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
    return turned if tail.shape[-1] == 0 else torch.cat((turned, tail), dim=-1)


def cos_sin(angles: Tensor, dtype: torch.dtype) -> Tensor:
    """(..., R) float64 angles to the (..., 2, R) rotation that `rotate` takes."""
    return torch.stack((angles.cos(), angles.sin()), dim=-2).to(dtype)


def temporal_rotation(positions: Tensor, head_dim: int, *, base: float = 1e4, dtype: torch.dtype) -> Tensor:
    """(..., 2, head_dim/2) rotation of integer frame positions (...)."""
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / head_dim)
    return cos_sin(positions.double()[..., None] * frequencies, dtype)


@lru_cache(maxsize=64)
def grid_rotation(
    rows: int, columns: int, head_dim: int, kind: str, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(rows * columns, 2, pairs) rotation of the patches of a frame, row by row; half of the pairs for each axis.

    Kinds:
        "axial": integer patch coordinates with base 100; sizes and aspect ratios may vary at will.
        "pixel": coordinates from -1 to 1 with frequencies from pi to 128 pi (Oasis' transformer).
    """
    if kind == "pixel":
        return pixel_rotation(rows, columns, head_dim // 4, 128.0, dtype, device)
    half = head_dim // 2
    frequencies = 100.0 ** (-torch.arange(0, half, 2, dtype=torch.float64) / half)
    y, x = torch.arange(rows, dtype=torch.float64), torch.arange(columns, dtype=torch.float64)
    return _both_axes(y, x, frequencies, dtype).to(device)


@lru_cache(maxsize=64)
def pixel_rotation(
    rows: int, columns: int, pairs: int, highest: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(rows * columns, 2, 2 * pairs) rotation for coordinates from -1 to 1 on each axis, as Oasis uses.

    Args:
        rows: Patches down.
        columns: Patches across.
        pairs: Pairs for each axis; their frequencies are evenly spaced.
        highest: Highest frequency in units of pi; the lowest is 1.
        dtype: Of the result.
        device: Of the result.
    """
    frequencies = torch.linspace(1.0, highest, pairs, dtype=torch.float64) * torch.pi
    y, x = (torch.linspace(-1.0, 1.0, n, dtype=torch.float64) for n in (rows, columns))
    return _both_axes(y, x, frequencies, dtype).to(device)


def no_rotation(grid: Tensor) -> Tensor:
    """(1, 2, R): the rotation by zero, for a token that has no place in the frame."""
    still = torch.zeros_like(grid[:1])
    still[:, 0] = 1.0
    return still


def _both_axes(y: Tensor, x: Tensor, frequencies: Tensor, dtype: torch.dtype) -> Tensor:
    shape = (len(y), len(x), len(frequencies))
    angles_y = (y[:, None] * frequencies)[:, None].expand(shape)
    angles_x = (x[:, None] * frequencies)[None].expand(shape)
    return cos_sin(torch.cat((angles_y, angles_x), dim=-1).flatten(0, 1), dtype)
