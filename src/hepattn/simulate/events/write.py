"""Data sets of simulated events: files of many events, written once, resumable, in parallel."""

from pathlib import Path

import h5py

from hepattn.data.events.write import write_events
from hepattn.simulate.events.config import EventsConfig
from hepattn.simulate.events.make import make_events
from hepattn.simulate.shards import claim, whole_file, write_shards

VERSION = 1
"""Rises when the same config gives other events than before."""


def simulate_events(
    directory: Path | str,
    num_events: int,
    config: EventsConfig | None = None,
    num_workers: int = 1,
    progress: bool = True,
) -> list[Path]:
    """Write simulated events to files of ``config.shard_size`` events.

    A file that is there is not made again, so an interrupted call is finished by the same call,
    and a later call can ask for more. Only a last file that is too short for it is then replaced,
    by one that begins with the same events: the first events are the same however many are asked
    for, and whatever ``num_workers``.

    Args:
        directory: Where to write; made if absent.
        num_events: How many events.
        config: What to simulate; the defaults if None.
        num_workers: Processes.
        progress: Whether to show a progress bar.

    Returns:
        The files, ``events_0000.h5`` and so on, of at least ``num_events`` events together: a file
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
    config = config or EventsConfig()
    claim(directory, "events", "events_*", config, VERSION)
    return write_shards(
        lambda number: directory / f"events_{number:04d}.h5",
        num_events,
        config,
        num_workers,
        things="events",
        count=_count_events,
        write=_write_shard,
        progress=progress,
    )


def _count_events(path: Path) -> int:
    with h5py.File(path) as file:
        return len(file["events"])


def _write_shard(config: EventsConfig, path: Path, size: int, number: int) -> int:
    with whole_file(path) as part:
        write_events(part, make_events(config, size, number), config.classes)
    return size
