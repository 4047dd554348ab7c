"""How the attention of one event is cut into blocks of queries and the keys they need."""

# H heads, N tokens, E head features, G blocks of a tile

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """Neighbouring blocks of queries that one call of a block kernel handles.

    Block g holds the queries ``query + g block`` and the ``width`` keys from ``key + g block`` on,
    which are places on the ring of tokens ``[ring_start, ring_start + ring_size)``, counted from
    ``ring_start`` and taken modulo ``ring_size``.

    Args:
        query: First query of the first block.
        num_blocks: Number of blocks.
        block: Queries of a block.
        key: Place of the first block's first key on the ring; may be negative.
        width: Keys of a block.
        ring_start: First token of the ring.
        ring_size: Tokens of the ring.
        column: First column of the band mask that belongs to these keys; None without a mask.
        merges: Whether the queries were seen by an earlier tile.
    """

    query: int
    num_blocks: int
    block: int
    key: int
    width: int
    ring_start: int
    ring_size: int
    column: int | None = None
    merges: bool = False

    def of_queries(self, x: Tensor) -> Tensor:
        """View a per-query tensor of an event, (H, N, ...), as blocks (G, H, block, ...)."""
        x = x[:, self.query : self.query + self.num_blocks * self.block]
        return x.unflatten(1, (self.num_blocks, self.block)).transpose(0, 1)

    def of_keys(self, x: Tensor) -> Tensor:
        """View keys or values of an event, (H, N, E), as overlapping blocks (G, H, width, E).

        Copies only if the keys cross the end of the ring.
        """
        stop = self.key + (self.num_blocks - 1) * self.block + self.width
        pieces = [x[:, piece] for _, piece in self._pieces(self.key, stop)]
        keys = pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
        return keys.unfold(1, self.width, self.block).permute(1, 0, 3, 2)

    def add_to_keys(self, total: Tensor, x: Tensor) -> None:
        """Add what belongs to each block's keys, (G, H, width, E), to an event (H, N, E)."""
        # Columns s to s + block of all blocks together are consecutive tokens.
        num_columns = -(-self.width // self.block)
        walk = x.new_zeros(x.shape[1], self.num_blocks + num_columns - 1, self.block, x.shape[3])
        for column in range(num_columns):
            part = x[:, :, column * self.block : (column + 1) * self.block]  # (G, H, <= block, E)
            walk[:, column : column + self.num_blocks, : part.shape[2]] += part.transpose(0, 1)
        walk = walk.flatten(1, 2)  # (H, tokens of the walk, E)
        stop = self.key + (self.num_blocks - 1) * self.block + self.width
        for mine, theirs in self._pieces(self.key, stop):
            total[:, theirs] += walk[:, mine]

    def mask(self, band: Tensor) -> Tensor | None:
        """Cut this tile's mask out of the band mask."""
        if self.column is None:
            return None
        return band[: self.block, self.column : self.column + self.width]

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Walk along the ring: slices of the walk and of the event."""
        place = start
        while place < stop:
            lap = place % self.ring_size
            step = min(stop - place, self.ring_size - lap)
            token = self.ring_start + lap
            yield slice(place - start, place - start + step), slice(token, token + step)
            place += step


def tiles(
    length: int,
    *,
    half: int,
    wrap: bool,
    covers: bool,
    num_registers: int,
    block: int,
    max_pairs: int,
) -> Iterator[Tile]:
    """Cut an event into tiles; together they hold every visible pair exactly once.

    Args:
        length: Real tokens of the event, registers included.
        half: Largest visible distance, in tokens.
        wrap: Whether the ends of the event are neighbours.
        covers: Whether every token lies in every other token's window.
        num_registers: Leading tokens that see and are seen by all.
        block: Queries of a block.
        max_pairs: Most query-key pairs of a tile, where one block allows it.
    """
    num_real = length - num_registers
    if num_registers:
        yield from _everything(0, num_registers, 0, length, max_pairs)
    if not num_real:
        return
    if covers:
        yield from _everything(num_registers, num_real, 0, length, max_pairs)
        return
    yield from _band(num_registers, num_real, half, wrap, block, max_pairs)
    if num_registers:
        yield from _everything(num_registers, num_real, 0, num_registers, max_pairs, merges=True)


def _everything(
    query: int, num_queries: int, key: int, num_keys: int, max_pairs: int, merges: bool = False
) -> Iterator[Tile]:
    """Let a range of queries see a range of keys."""
    rows = max(1, max_pairs // num_keys)
    for start in range(query, query + num_queries, rows):
        block = min(rows, query + num_queries - start)
        yield Tile(start, 1, block, 0, num_keys, key, num_keys, merges=merges)


def _band(
    first: int, num_tokens: int, half: int, wrap: bool, block: int, max_pairs: int
) -> Iterator[Tile]:
    """Let each of the tokens from ``first`` on see its neighbours."""
    group = max(1, max_pairs // (block * (block + 2 * half)))
    start = 0
    while start < num_tokens:
        size = min(block, num_tokens - start)
        low, high = start - half, start + size + half
        num_blocks = 1
        if wrap:
            num_blocks = min(group, (num_tokens - start) // size)
        elif low >= 0 and high <= num_tokens:
            num_blocks = min(group, (num_tokens - half - start) // size)
        if not wrap:
            low, high = max(low, 0), min(high, num_tokens)
        yield Tile(
            first + start,
            num_blocks,
            size,
            low,
            high - low,
            first,
            num_tokens,
            column=low - (start - half),
        )
        start += num_blocks * size
