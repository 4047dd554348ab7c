"""Blocks of queries of one event and the keys they need, as views and sums."""

# H heads, M queries, N keys, E head features, G blocks of a tile

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Tile:
    """Neighbouring blocks of queries that one call of a block kernel handles.

    Block g holds the queries ``query + g block`` and the ``width`` keys from ``key + g block`` on,
    which are places on the ring of keys ``[ring_start, ring_start + ring_size)``, counted from
    ``ring_start`` and taken modulo ``ring_size``. Every query sees at least one of the keys.

    Args:
        query: First query of the first block.
        num_blocks: Number of blocks.
        block: Queries of a block.
        key: Place of the first block's first key on the ring; may be negative.
        width: Keys of a block.
        ring_start: First key of the ring.
        ring_size: Keys of the ring.
        merges: Whether the queries were seen by an earlier tile.
        column: First column of the band (see `Sight`) that belongs to these keys; None outside it.
        offset: Tokens from each query to each key (block, width), outside the band; None if
            neither visibility nor bias depends on it.
    """

    query: int
    num_blocks: int
    block: int
    key: int
    width: int
    ring_start: int
    ring_size: int
    merges: bool = False
    column: int | None = None
    offset: Tensor | None = None

    def of_queries(self, x: Tensor) -> Tensor:
        """View a per-query tensor of an event, (H, M, ...), as blocks (G, H, block, ...)."""
        x = x[:, self.query : self.query + self.num_blocks * self.block]
        return x.unflatten(1, (self.num_blocks, self.block)).transpose(0, 1)

    def of_keys(self, x: Tensor) -> Tensor:
        """View keys or values of an event, (H, N, E), as overlapping blocks (G, H, width, E).

        Copies only if the keys cross the end of the ring.
        """
        pieces = [x[:, piece] for _, piece in self._pieces()]
        keys = pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
        return keys.unfold(1, self.width, self.block).permute(1, 0, 3, 2)

    def add_to_keys(self, total: Tensor, x: Tensor) -> None:
        """Add what belongs to each block's keys, (G, H, width, E), to an event (H, N, E)."""
        walk = x[0] if self.num_blocks == 1 else self._add_blocks(x)  # (H, keys of the walk, E)
        for mine, theirs in self._pieces():
            total[:, theirs] += walk[:, mine]

    def _add_blocks(self, x: Tensor) -> Tensor:
        # Columns s to s + block of all blocks together are consecutive keys.
        num_columns = -(-self.width // self.block)
        walk = x.new_zeros(x.shape[1], self.num_blocks + num_columns - 1, self.block, x.shape[3])
        for column in range(num_columns):
            part = x[:, :, column * self.block : (column + 1) * self.block]  # (G, H, <= block, E)
            walk[:, column : column + self.num_blocks, : part.shape[2]] += part.transpose(0, 1)
        return walk.flatten(1, 2)

    def _pieces(self) -> Iterator[tuple[slice, slice]]:
        """Walk along the ring: slices of the walk and of the event's keys."""
        place, stop = self.key, self.key + (self.num_blocks - 1) * self.block + self.width
        while place < stop:
            lap = place % self.ring_size
            step = min(stop - place, self.ring_size - lap)
            token = self.ring_start + lap
            yield slice(place - self.key, place - self.key + step), slice(token, token + step)
            place += step
