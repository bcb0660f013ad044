"""A plain vision transformer over the patches of one frame (Dosovitskiy et al. 2021), with rotary positions.

Shape legend: B frames, N patches, C width.
"""

import torch
from torch import Tensor, nn

from worldsim.nn.attention import attend
from worldsim.nn.rope import pixel_rotation, rotate

_EPSILON = 1e-6  # of layer norms, as the published vision transformers have it


class VisionTransformer(nn.Module):
    """Blocks of attention and MLP, then a layer norm.

    Args:
        width: Channels of a token.
        heads: Attention heads; a quarter of each head's pairs turn with each image axis, half of them stay.
        depth: Blocks.
        grid: (rows, columns) of patches.
    """

    def __init__(self, width: int, heads: int, depth: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(VitBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.grid, self.pairs = grid, width // heads // 8

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same."""
        turn = self.rotation(x.dtype, x.device)
        for block in self.blocks:
            x = block(x, turn)
        return self.norm(x)

    def rotation(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """(N, 1, ...), to broadcast over heads."""
        rows, columns = self.grid
        return pixel_rotation(rows, columns, self.pairs, rows * columns / 2, dtype, device)[:, None]


class VitBlock(nn.Module):
    """Attention and MLP, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = (nn.LayerNorm(width, eps=_EPSILON) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """(B, N, C) to the same."""
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        x = x + self.out(attend(rotate(q, rotation), rotate(k, rotation), v).flatten(-2))
        return x + self.mlp(self.norm_mlp(x))
