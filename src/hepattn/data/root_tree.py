"""Trees in ROOT files."""

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import uproot

from hepattn.data.error import DataError

MAX_OPEN = 8  # files; to open one takes as long as to read a thousand jets

_open_trees: OrderedDict[tuple[object, ...], tuple[uproot.ReadOnlyFile, uproot.TTree]] = (
    OrderedDict()
)


def open_tree(path: Path, name: str) -> uproot.TTree:
    """Open a tree, or find it among those that were opened last.

    Arrays are not cached and the file is not mapped into memory, which therefore stays flat.

    Args:
        path: The file.
        name: Name of the tree.

    Raises:
        DataError: If the file has no such tree.
    """
    stat = path.stat()
    # A process that was forked off must not share the position in the file.
    key = (os.getpid(), path, name, stat.st_size, stat.st_mtime_ns)
    if key not in _open_trees:
        file = uproot.open(
            path,
            handler=uproot.MultithreadedFileSource,
            num_workers=1,
            use_threads=False,
            array_cache=None,
        )
        if name not in file:
            names = file.keys()
            file.close()
            raise DataError.of(path, "tree", found=f"only {names}"[:200], expected=name)
        while len(_open_trees) >= MAX_OPEN:
            _open_trees.popitem(last=False)[1][0].close()
        _open_trees[key] = (file, file[name])
    _open_trees.move_to_end(key)
    return _open_trees[key][1]


def check_counts(
    path: Path, name: str, own: np.ndarray, counts: np.ndarray, start: int, unit: str = "jet"
) -> None:
    """Refuse a row that has another number of values in one column than in another.

    Args:
        path: The file.
        name: Name of the column.
        own: Number of values of each row in this column.
        counts: The same in the other columns.
        start: Number of the first row.
        unit: What a row is.

    Raises:
        DataError: If the numbers differ.
    """
    if len(own) != len(counts) or (own != counts).any():
        row = int(np.argmax(own != counts)) if len(own) == len(counts) else 0
        raise DataError.of(
            f"{path}, {unit} {start + row}",
            name,
            found=f"{own[row]} values",
            expected=f"{counts[row]}, as in the other columns",
        )
