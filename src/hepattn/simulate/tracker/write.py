"""Data sets of simulated events: TrackML files, written once, resumable, in parallel."""

import gzip
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from hepattn.simulate.shards import claim, progress_bar, run_tasks, whole_file
from hepattn.simulate.tracker.config import TrackerConfig
from hepattn.simulate.tracker.event import event_name, simulate_event
from hepattn.simulate.tracker.geometry import Columns, detector_table
from hepattn.simulate.tracker.pythia import load_pythia

TABLES = ("hits", "cells", "particles", "truth")
VERSION = 1
"""Rises when the same config gives other events than before."""


def simulate_events(
    directory: Path | str,
    num_events: int,
    config: TrackerConfig | None = None,
    first: int = 0,
    num_workers: int = 1,
    progress: bool = True,
) -> list[str]:
    """Write simulated events in the TrackML file format.

    Events whose files are all there are not made again, so an interrupted call is finished by the
    same call. The files do not depend on ``num_workers`` or on the order of calls.

    Args:
        directory: Where to write; made if absent.
        num_events: How many events.
        config: What to simulate; the defaults if None.
        first: Number of the first event.
        num_workers: Processes.
        progress: Whether to show a progress bar.

    Returns:
        The names of the events, ``event000000000`` and so on.

    Raises:
        FileExistsError: If the directory holds events of another config or of unknown origin.
        ImportError: If the config asks for Pythia 8 and the extra is not installed.
        RuntimeError: If a process is killed.
        ValueError: If a number is out of range.
    """
    if num_events < 0 or first < 0:
        raise ValueError(f"num_events={num_events} and first={first} must not be negative")
    if num_workers < 1:
        raise ValueError(f"num_workers={num_workers} must be at least 1")
    directory = Path(directory)
    config = config or TrackerConfig()
    if config.generator == "pythia8":
        load_pythia()  # a missing extra shows before anything is written
    claim(directory, "events", "event*", config, VERSION)
    if not (directory / "detectors.csv.gz").exists():
        _write_table(directory / "detectors.csv.gz", detector_table())
    numbers = range(first, first + num_events)
    missing = [n for n in numbers if not all(p.exists() for p in _paths(directory, n))]
    with progress_bar(enabled=progress) as bar:
        task = bar.add_task("simulating", total=num_events, completed=num_events - len(missing))
        tasks = [(directory, config, number) for number in missing]
        for _ in run_tasks(_write_event, tasks, num_workers):
            bar.advance(task)
    return [event_name(number) for number in numbers]


def _write_event(directory: Path, config: TrackerConfig, number: int) -> None:
    event = simulate_event(config, number)
    tables = (event.hits, event.cells, event.particles, event.truth)
    for path, table in zip(_paths(directory, number), tables, strict=True):
        _write_table(path, table)


def _paths(directory: Path, number: int) -> list[Path]:
    return [directory / f"{event_name(number)}-{table}.csv.gz" for table in TABLES]


def _write_table(path: Path, columns: Columns) -> None:
    """Write a table; floats get as many digits as single precision needs to be restored."""
    text = BytesIO()
    text.write((",".join(columns) + "\n").encode())
    options = pa.csv.WriteOptions(include_header=False)
    pa.csv.write_csv(pa.table(columns), text, options)
    # No time and no name in the header, so that equal tables give equal files.
    with whole_file(path) as part:
        part.write_bytes(gzip.compress(text.getvalue(), compresslevel=1, mtime=0))
