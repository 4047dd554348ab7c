"""How the attention of one event is cut into blocks of queries and the keys they need."""

# M queries, N keys

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import torch
from torch import Tensor

from hepattn.ops.attention.layout import cyclic
from hepattn.ops.attention.local_sight import Sight
from hepattn.ops.attention.tile import Tile


def tiles(
    num_queries: int,
    num_keys: int,
    sight: Sight,
    *,
    centres: Tensor | None,
    num_registers: int,
    max_pairs: int,
    fused: bool = False,
) -> Iterator[Tile]:
    """Cut an event into tiles; together they hold every visible pair exactly once.

    Args:
        num_queries: Queries of the event; in self-attention they are its keys.
        num_keys: Keys of the event, registers included.
        sight: What the queries see.
        centres: Place of each query among the keys that are no registers (M,); ascending, and of
            a wrapped event's own keys, unless everything is visible. None in self-attention.
        num_registers: Leading keys that are seen by all, and in self-attention see all.
        max_pairs: Most query-key pairs of a tile, where one block allows it.
        fused: Whether the block kernel stores no scores: what needs no mask is then one tile, which
            the kernel cuts up better.
    """
    unmasked_pairs = num_queries * num_keys if fused else max_pairs
    queries, ring = range(num_queries), range(num_registers, num_keys)
    is_cross = centres is not None
    if not is_cross:
        queries = ring
        yield from _everything(range(num_registers), range(num_keys), unmasked_pairs)
    covers = sight.covers(len(ring), is_cross=is_cross)
    if covers and sight.table is None:
        yield from _everything(queries, range(num_keys), unmasked_pairs)
        return
    yield from _everything(queries, range(num_registers), unmasked_pairs)
    merges = num_registers > 0
    if covers:
        if not is_cross:
            centres = torch.arange(len(ring), device=sight.device)
        yield from _everything(queries, ring, max_pairs, merges, centres, sight.wrap)
    elif is_cross:
        yield from _around(centres, ring, sight, merges)
    else:
        yield from _band(ring, sight, max_pairs, merges)


def _everything(
    queries: range,
    keys: range,
    max_pairs: int,
    merges: bool = False,
    centres: Tensor | None = None,
    wrap: bool = False,
) -> Iterator[Tile]:
    """Let a range of queries see a range of keys, with the offsets from the centres if given."""
    rows = max(1, max_pairs // max(len(keys), 1))
    for start in range(0, len(queries) if keys else 0, rows):
        block, offset = min(rows, len(queries) - start), None
        if centres is not None:
            offset = _offset(0, len(keys), centres[start : start + block])
            if wrap:
                offset = cyclic(offset, len(keys))
        yield Tile(
            query=queries.start + start,
            num_blocks=1,
            block=block,
            key=0,
            width=len(keys),
            ring_start=keys.start,
            ring_size=len(keys),
            merges=merges,
            offset=offset,
        )


def _band(ring: range, sight: Sight, max_pairs: int, merges: bool) -> Iterator[Tile]:
    """Let each token of the ring see its neighbours."""
    num_tokens, block, half = len(ring), sight.block, sight.half
    group = max(1, max_pairs // (block * (block + 2 * half)))
    start = 0
    while start < num_tokens:
        size = min(block, num_tokens - start)
        low, high = start - half, start + size + half
        num_blocks = 1
        if sight.wrap:
            num_blocks = min(group, (num_tokens - start) // size)
        elif low >= 0 and high <= num_tokens:
            num_blocks = min(group, (num_tokens - half - start) // size)
        if not sight.wrap:
            low, high = max(low, 0), min(high, num_tokens)
        yield Tile(
            query=ring.start + start,
            num_blocks=num_blocks,
            block=size,
            key=low,
            width=high - low,
            ring_start=ring.start,
            ring_size=num_tokens,
            merges=merges,
            column=low - (start - half),
        )
        start += num_blocks * size


def _around(centres: Tensor, ring: range, sight: Sight, merges: bool) -> Iterator[Tile]:
    """Let queries see the keys of the ring around their ascending centres."""
    places, half = centres.tolist(), sight.half
    start, stop = 0, len(places)
    if not sight.wrap:  # Those at either end may be too far away to see anything.
        start, stop = bisect_left(places, -half), bisect_left(places, len(ring) + half)
    while start < stop:
        # Far-off centres in one block would waste the keys between them.
        end = min(start + sight.block, bisect_right(places, places[start] + half, start, stop))
        low, high = places[start] - half, places[end - 1] + half + 1
        if not sight.wrap:
            low, high = max(low, 0), min(high, len(ring))
        yield Tile(
            query=start,
            num_blocks=1,
            block=end - start,
            key=low,
            width=high - low,
            ring_start=ring.start,
            ring_size=len(ring),
            merges=merges,
            offset=_offset(low, high, centres[start:end]),
        )
        start = end


def _offset(low: int, high: int, centres: Tensor) -> Tensor:
    """Tokens from each centre to the keys ``low`` to ``high``, (M, high - low)."""
    return torch.arange(low, high, device=centres.device) - centres[:, None]
