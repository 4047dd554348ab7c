"""Data sets of simulated events: files of many events, written once, resumable, in parallel."""

from pathlib import Path

import h5py

from hepattn.data.events.write import write_events
from hepattn.simulate.events.config import EventsConfig
from hepattn.simulate.events.make import make_events
from hepattn.simulate.shards import claim, progress_bar, run_tasks, whole_file

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
    sizes = [
        min(config.shard_size, num_events - first)
        for first in range(0, num_events, config.shard_size)
    ]
    paths = [directory / f"events_{number:04d}.h5" for number in range(len(sizes))]
    missing = [
        (config, path, size, number)
        for number, (path, size) in enumerate(zip(paths, sizes, strict=True))
        if not path.exists() or _count_events(path) < size
    ]
    with progress_bar(enabled=progress) as bar:
        done = num_events - sum(size for _, _, size, _ in missing)
        task = bar.add_task("simulating events", total=num_events, completed=done)
        for size in run_tasks(_write_shard, missing, num_workers):
            bar.advance(task, size)
    return paths


def _count_events(path: Path) -> int:
    with h5py.File(path) as file:
        return len(file["events"])


def _write_shard(config: EventsConfig, path: Path, size: int, number: int) -> int:
    with whole_file(path) as part:
        write_events(part, make_events(config, size, number), config.classes)
    return size
