"""Data sets of simulated events: TrackML files, written once, resumable, in parallel."""

import gzip
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hepattn.simulate.tracker.config import TrackerConfig
from hepattn.simulate.tracker.event import event_name, simulate_event
from hepattn.simulate.tracker.geometry import Columns, detector_table
from hepattn.simulate.tracker.pythia import load_pythia

TABLES = ("hits", "cells", "particles", "truth")
RECORD = "simulation.json"
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
    _claim(directory, config)
    if not (directory / "detectors.csv.gz").exists():
        _write_table(directory / "detectors.csv.gz", detector_table())
    numbers = range(first, first + num_events)
    missing = [n for n in numbers if not all(p.exists() for p in _paths(directory, n))]
    with _progress_bar(enabled=progress) as bar:
        task = bar.add_task("simulating", total=num_events, completed=num_events - len(missing))
        for _ in _make(directory, config, missing, num_workers):
            bar.advance(task)
    return [event_name(number) for number in numbers]


def _make(
    directory: Path, config: TrackerConfig, numbers: list[int], num_workers: int
) -> Iterator[None]:
    if num_workers == 1 or len(numbers) < 2:
        for number in numbers:
            yield _write_event(directory, config, number)
        return
    # Spawned, not forked: a fork of a process with threads (torch, pyarrow) can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_workers, len(numbers)), mp_context=context) as pool:
        tasks = [pool.submit(_write_event, directory, config, number) for number in numbers]
        try:
            for task in as_completed(tasks):
                yield task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
    _replace(path, gzip.compress(text.getvalue(), compresslevel=1, mtime=0))


def _replace(path: Path, content: bytes) -> None:
    """Write a whole file or none: readers and later runs never meet a truncated one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _claim(directory: Path, config: TrackerConfig) -> None:
    """Record the config next to the events, or check that it is the one recorded."""
    record = directory / RECORD
    wanted = {"version": VERSION, "config": asdict(config)}
    if next(directory.glob("event*"), None) is None:
        directory.mkdir(parents=True, exist_ok=True)
        _replace(record, (json.dumps(wanted, indent=2) + "\n").encode())
        return
    if not record.exists():
        raise FileExistsError(
            f"{directory} holds events but no {RECORD}, so their config is not known; "
            "choose an empty directory"
        )
    found = json.loads(record.read_text())
    if found == wanted:
        return
    old, new = found.get("config", {}), wanted["config"]
    changes = [
        f"{name}={old.get(name)!r} there, {new.get(name)!r} asked"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if found.get("version") != VERSION:
        changes.append(f"simulation version {found.get('version')} there, {VERSION} now")
    raise FileExistsError(
        f"{directory} holds events of another config ({'; '.join(changes)}); nothing was written. "
        "Choose another directory, or the config there"
    )


def _progress_bar(*, enabled: bool) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, TimeRemainingColumn(), disable=not enabled)
