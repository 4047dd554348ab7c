"""What a query sees of the keys around it, by their offset: the window and the bias."""

# H heads, M queries of a block, N keys of a block, K largest offset in the bias table

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from hepattn.ops.attention.band import accumulation_dtype
from hepattn.ops.attention.pattern import Window
from hepattn.ops.attention.tile import Tile


@dataclass(eq=False)
class Sight:
    """What the offset from a query to a key adds to their score.

    In the band of self-attention every block has the same offsets: key column c of a block that
    starts at token s is token s - half + c, so that query row r sees the columns r to r + 2 half.
    Smaller blocks, and blocks whose keys are cut off at the end of an event, take slices.

    Args:
        half: Largest visible distance, in tokens; None if everything is visible.
        wrap: Whether the ends of the event are neighbours.
        block: Queries of a block of the band.
        table: Score bias of each offset (H or 1, 2K + 1); None without a bias.
        dtype: Of the scores' mask.
        device: Of the mask.
    """

    half: int | None
    wrap: bool
    block: int
    table: Tensor | None
    dtype: torch.dtype
    device: torch.device

    def covers(self, num_keys: int, *, is_cross: bool) -> bool:
        """Tell whether every query sees every key of an event, registers not counted."""
        if self.half is None:
            return True
        if is_cross and not self.wrap:  # a centre may be anywhere
            return num_keys == 0
        return Window(2 * self.half, self.wrap).covers(num_keys)

    def mask(self, tile: Tile) -> Tensor | None:
        """Make the additive mask of a tile's blocks, (M, N) or with a bias (1, H or 1, M, N)."""
        if tile.column is not None:
            return self._of_tile(self._band, tile)
        return None if tile.offset is None else self._mask(tile.offset)

    @cached_property
    def _band(self) -> Tensor:
        if self.table is None:
            return band_mask(self.block, self.half, self.dtype, self.device)
        return self._mask(band_offset(self.block, self.half, self.device))

    def _of_tile(self, band: Tensor, tile: Tile) -> Tensor:
        return band[..., : tile.block, tile.column : tile.column + tile.width]

    def _mask(self, offset: Tensor) -> Tensor:
        if self.table is None:
            score = torch.zeros(offset.shape, dtype=self.dtype, device=self.device)
        else:
            score = self.table[:, self._column(offset)].unsqueeze(0)  # (1, H or 1, M, N)
        return score if self.half is None else _hide(score, offset, self.half)

    def _column(self, offset: Tensor) -> Tensor:
        reach = self.table.shape[1] // 2
        return offset.clamp(-reach, reach) + reach

    def collect(self, tile: Tile, gradient: Tensor) -> None:
        """Add the gradient of a tile's mask (1, H or 1, M, N) to that of the table."""
        if tile.column is not None:
            self._of_tile(self._band_gradient, tile).add_(gradient)
        else:
            self._scatter(tile.offset, gradient)

    def table_gradient(self) -> Tensor:
        """Sum up what was collected, (H or 1, 2K + 1), in float32 at least."""
        if "_band_gradient" in vars(self):
            # Once for all blocks: to scatter costs more than to add.
            offset = band_offset(self.block, self.half, self.device)
            self._scatter(offset, vars(self).pop("_band_gradient"))
        return self._collected

    @cached_property
    def _band_gradient(self) -> Tensor:
        return torch.zeros_like(self._band, dtype=self._collected.dtype)

    @cached_property
    def _collected(self) -> Tensor:
        return torch.zeros_like(self.table, dtype=accumulation_dtype(self.dtype))

    def _scatter(self, offset: Tensor, gradient: Tensor) -> None:
        column = self._column(offset).flatten().expand(len(self.table), -1)  # (H or 1, M N)
        self._collected.scatter_add_(1, column, gradient.reshape(column.shape))


@lru_cache(maxsize=32)
def band_offset(block: int, half: int, device: torch.device) -> Tensor:
    """Tokens from each query of a block to each key of the band, (block, block + 2 half)."""
    row = torch.arange(block, device=device)[:, None]
    return torch.arange(block + 2 * half, device=device)[None, :] - row - half


@lru_cache(maxsize=32)
def band_mask(block: int, half: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Additive mask of a block of the band without a bias: 0 where visible, -inf elsewhere."""
    offset = band_offset(block, half, device)
    return _hide(torch.zeros(offset.shape, dtype=dtype, device=device), offset, half)


def _hide(score: Tensor, offset: Tensor, half: int) -> Tensor:
    return score.masked_fill_(offset.abs() > half, float("-inf"))
