"""Data sets of simulated calorimeter events: ROOT files, written once, resumable, in parallel."""

from pathlib import Path

import numpy as np
import uproot
from numpy.typing import NDArray

from hepattn.simulate.shards import claim, whole_file, write_shards
from hepattn.simulate.xec.config import XecConfig
from hepattn.simulate.xec.make import make_events

VERSION = 1
"""Rises when the same config gives other events than before."""
TREE = "tree"
BLOCK = 100
"""Events that are stored together: a reader unpacks as many at least."""


def simulate_xec(
    directory: Path | str,
    num_events: int,
    config: XecConfig | None = None,
    num_workers: int = 1,
    progress: bool = True,
) -> list[Path]:
    """Write simulated events to ROOT files of ``config.shard_size`` events.

    A file that is there is not made again, so an interrupted call is finished by the same call,
    and a later call can ask for more. Only a last file that is too short for it is then replaced,
    by one that begins with the same events: an event depends on the config and on its number, not
    on how many are asked for nor on ``num_workers``.

    Args:
        directory: Where to write; made if absent.
        num_events: How many events.
        config: What to simulate; the defaults if None.
        num_workers: Processes.
        progress: Whether to show a progress bar.

    Returns:
        The files, ``xec_0000.root`` and so on, of at least ``num_events`` events together: a file
        from an earlier call for more is left as it is.

    Raises:
        FileExistsError: If the directory holds events of another config or of unknown origin.
        RuntimeError: If a process is killed.
        ValueError: If a number is out of range.
    """
    if num_events < 0:
        raise ValueError(f"num_events={num_events} must not be negative")
    if num_workers < 1:
        raise ValueError(f"num_workers={num_workers} must be at least 1")
    directory = Path(directory)
    config = config or XecConfig()
    claim(directory, "events", "xec_*", config, VERSION)
    return write_shards(
        lambda number: directory / f"xec_{number:04d}.root",
        num_events,
        config,
        num_workers,
        things="events",
        count=_count_events,
        write=_write_shard,
        progress=progress,
    )


def write_tree(path: Path, blocks: list[dict[str, NDArray]]) -> None:
    """Write events to one file.

    Args:
        path: The file.
        blocks: Columns of the events, some at a time.
    """
    with uproot.recreate(path) as file:
        types = {name: np.dtype((c.dtype, c.shape[1:])) for name, c in blocks[0].items()}
        tree = file.mktree(TREE, types)
        for block in blocks:
            tree.extend(block)


def _count_events(path: Path) -> int:
    with uproot.open(path) as file:
        return int(file[TREE].num_entries)


def _write_shard(config: XecConfig, path: Path, size: int, number: int) -> int:
    first = number * config.shard_size
    with whole_file(path) as part:
        blocks = [
            make_events(config, min(BLOCK, size - start), first + start)
            for start in range(0, size, BLOCK)
        ]
        write_tree(part, blocks)
    return size
