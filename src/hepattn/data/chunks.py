"""Pieces of a source that are read at once."""

import numpy as np


def chunk_ranges(block_ends: np.ndarray, chunk_size: int) -> list[tuple[int, int]]:
    """Cut rows into chunks that end with stored blocks where a block ends in time.

    Args:
        block_ends: Rows at which blocks end, in order; the last is the number of rows.
        chunk_size: Largest number of rows of a chunk.
    """
    num_rows = int(block_ends[-1])
    ranges, start = [], 0
    while start < num_rows:
        last = int(np.searchsorted(block_ends, start + chunk_size, side="right")) - 1
        end = int(block_ends[last]) if last >= 0 else 0
        stop = end if end > start else min(start + chunk_size, num_rows)
        ranges.append((start, stop))
        start = stop
    return ranges
