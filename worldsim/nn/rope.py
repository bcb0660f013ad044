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
        rotation: (..., R) from `rotation_by`, broadcastable over the leading axes of x; R <= D / 2 pairs are rotated,
            the rest of the axis passes through.
    """
    pairs = rotation.shape[-1] if rotation.is_complex() else rotation.shape[-1] // 2
    head, tail = x[..., : 2 * pairs], x[..., 2 * pairs :]
    if rotation.is_complex():  # one product instead of six
        turned = torch.view_as_real(torch.view_as_complex(head.unflatten(-1, (-1, 2))) * rotation).flatten(-2)
    else:
        cos, sin = rotation.chunk(2, dim=-1)
        even, odd = head[..., 0::2], head[..., 1::2]
        turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
    return turned if tail.shape[-1] == 0 else torch.cat((turned, tail), dim=-1)


def to_halves(x: Tensor) -> Tensor:
    """Reorders the last axis from interleaved pairs to the pairs' first numbers followed by their second ones."""
    return x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)


def rotate_halves(x: Tensor, rotation: Tensor) -> Tensor:
    """As `rotate` with cosines and sines, of a last axis that `to_halves` has reordered.

    Products of queries and keys are the same in either order. Halves are read and written as they lie in memory, where
    every second number would cost more than all the arithmetic.

    Args:
        x: (..., D).
        rotation: (..., D) cosines and sines of all D / 2 pairs, broadcastable.
    """
    cos, sin = rotation.chunk(2, dim=-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def rotation_by(angles: Tensor, dtype: torch.dtype) -> Tensor:
    """(..., R) float64 angles to the rotation that `rotate` applies to tensors of `dtype`.

    Complex (..., R) where there is such a type, otherwise cosines and sines (..., 2 R).
    """
    if dtype in {torch.float32, torch.float64}:
        return torch.polar(torch.ones_like(angles), angles).to(dtype.to_complex())
    return torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype)


def as_real(rotation: Tensor) -> Tensor:
    """The same rotation as cosines and sines, which compilers fuse with what surrounds them."""
    return torch.cat((rotation.real, rotation.imag), dim=-1) if rotation.is_complex() else rotation


def temporal_rotation(positions: Tensor, head_dim: int, *, base: float = 1e4, dtype: torch.dtype) -> Tensor:
    """Rotation of integer frame positions (...), of all head_dim / 2 pairs."""
    frequencies = temporal_frequencies(head_dim, base=base, device=positions.device)
    return rotation_by(positions.double()[..., None] * frequencies, dtype)


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # a constant made while stepping must serve training too
def grid_rotation(
    rows: int, columns: int, head_dim: int, kind: str, dtype: torch.dtype, device: torch.device, *, beside: int = 0
) -> Tensor:
    """Rotation of the tokens of a frame, (rows * columns + beside, ...): patches row by row, then tokens without place.

    Half of the pairs turn with each image axis.

    Kinds:
        "axial": integer patch coordinates with base 100; sizes and aspect ratios may vary at will.
        "pixel": coordinates from -1 to 1 with frequencies from pi to 128 pi (Oasis' transformer).
    """
    if beside:
        patches = grid_rotation(rows, columns, head_dim, kind, dtype, device)
        still = torch.zeros(beside, head_dim // 2, dtype=torch.float64, device=device)
        return torch.cat((patches, rotation_by(still, dtype)))
    if kind == "pixel":
        return pixel_rotation(rows, columns, head_dim // 4, 128.0, dtype, device)
    half = head_dim // 2
    frequencies = 100.0 ** (-torch.arange(0, half, 2, dtype=torch.float64) / half)
    y, x = torch.arange(rows, dtype=torch.float64), torch.arange(columns, dtype=torch.float64)
    return _both_axes(y, x, frequencies, dtype).to(device)


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # a constant made while stepping must serve training too
def pixel_rotation(
    rows: int, columns: int, pairs: int, highest: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Rotation (rows * columns, ...) of patches by coordinates from -1 to 1 on each axis, as Oasis has them.

    Args:
        rows: Patches down.
        columns: Patches across.
        pairs: Pairs for each axis; their frequencies are evenly spaced.
        highest: Highest frequency in units of pi; the lowest is 1.
        dtype: Of the result.
        device: Of the result.
    """
    frequencies = pixel_frequencies(pairs, highest)
    y, x = (torch.linspace(-1.0, 1.0, n, dtype=torch.float64) for n in (rows, columns))
    return _both_axes(y, x, frequencies, dtype).to(device)


def temporal_frequencies(head_dim: int, *, base: float = 1e4, device: torch.device | None = None) -> Tensor:
    """(head_dim / 2,) float64 radians a frame."""
    return base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim)


def pixel_frequencies(pairs: int, highest: float) -> Tensor:
    """(pairs,) float64 radians for coordinates from -1 to 1."""
    return torch.linspace(1.0, highest, pairs, dtype=torch.float64) * torch.pi


def _both_axes(y: Tensor, x: Tensor, frequencies: Tensor, dtype: torch.dtype) -> Tensor:
    shape = (len(y), len(x), len(frequencies))
    angles_y = (y[:, None] * frequencies)[:, None].expand(shape)
    angles_x = (x[:, None] * frequencies)[None].expand(shape)
    return rotation_by(torch.cat((angles_y, angles_x), dim=-1).flatten(0, 1), dtype)
