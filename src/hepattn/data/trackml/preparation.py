"""From raw CSV files to a store."""

import logging
import multiprocessing
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import jsonargparse
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import track

from hepattn.data.error import DataError
from hepattn.data.trackml.event import event_number
from hepattn.data.trackml.reader import CsvEvents
from hepattn.data.trackml.store import (
    CONTENTS,
    HASH_KEY,
    Contents,
    StoredEvents,
    hits_path,
    particles_path,
    to_parquet,
)

logger = logging.getLogger(__name__)

TEMPORARY = ".temporary-"


@dataclass(frozen=True)
class Outcome:
    """What became of one event: its entry in the contents, or why it was skipped."""

    name: str
    num_hits: int = 0
    particles: bool = False
    fault: str | None = None


def prepare(
    source: str | Path,
    store: str | Path,
    num_workers: int = 1,
    progress: bool = True,
    skip_bad: bool = False,
) -> StoredEvents:
    """Convert raw TrackML events to a store, which reads several times faster.

    A run that was stopped continues where it stopped: complete events are not done again. Every
    file is written aside and then renamed, so a store never holds half a file. One preparation
    at a time may work on a store.

    Args:
        source: Folder or zip of TrackML CSV files.
        store: Folder of the store; made if it does not exist.
        num_workers: Number of processes; 1 works in this one.
        progress: Whether to show a progress bar.
        skip_bad: Whether to leave out events that cannot be read, with a warning and a count,
            instead of stopping.

    Returns:
        The store, opened.

    Raises:
        DataError: If the store's folder holds something else or events of other files, if it
            cannot be written, or if an event cannot be read and ``skip_bad`` is off.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers={num_workers} must be at least 1")
    events, store = CsvEvents(source), Path(store)
    _claim(store, events)
    if num_workers == 1:
        results: Generator[Outcome] = (_convert(i, events, store) for i in range(len(events)))
    else:
        results = _in_processes(events, store, num_workers)
    outcomes = []
    with closing(results):
        for outcome in track(
            results,
            description="preparing events",
            total=len(events),
            console=Console(stderr=True),
            disable=not progress,
        ):
            if outcome.fault is not None:
                if not skip_bad:
                    raise DataError(outcome.fault)
                logger.warning("skipped %s: %s", outcome.name, outcome.fault)
            outcomes.append(outcome)
    outcomes.sort(key=lambda outcome: event_number(outcome.name))
    contents = _contents(events, outcomes)
    if contents.skipped:
        logger.warning("skipped %d of %d events", len(contents.skipped), len(events))
    if not contents.events:
        raise DataError.of(source, "events", found="none readable", expected="at least one")
    _write(store / CONTENTS, lambda path: path.write_text(contents.to_json()))
    return StoredEvents(store)


def main(args: Sequence[str] | None = None) -> None:
    """Run ``prepare`` from the command line: ``SOURCE STORE [--num_workers N] …``.

    Args:
        args: The arguments; those of the process by default.
    """
    try:
        stored = jsonargparse.auto_cli(prepare, args=None if args is None else list(args))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{len(stored)} events in {stored.path}")


def _claim(store: Path, events: CsvEvents) -> None:
    """Make the store's folder, or check that it is an earlier one of the same events."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        present = {entry.name for entry in store.iterdir()}
        for name in {name for name in present if name.startswith(TEMPORARY)}:
            (store / name).unlink(missing_ok=True)  # of a run that was killed
            present.remove(name)
    except OSError as error:
        raise DataError(f"{store}: the store's folder cannot be made: {error}") from error
    if CONTENTS in present:
        Contents.load(store)
        known = {hits_path(store, name).name for name in events.names}
        strangers = {name for name in present if name.endswith("-hits.parquet")} - known
        if strangers:
            raise DataError.of(
                store,
                "events",
                found=f"{len(strangers)} events that {events.path} lacks, as {min(strangers)}",
                expected="a store of the same events",
                remedy="choose another folder",
            )
    elif present:
        raise DataError.of(
            store,
            "store folder",
            found=f"{len(present)} files of something else, as {min(present)}",
            expected="an empty folder, a new one, or an earlier store",
            remedy="choose another folder",
        )
    if CONTENTS not in present:
        unfinished = _contents(events, [])
        unfinished.complete = False
        _write(store / CONTENTS, lambda path: path.write_text(unfinished.to_json()))


def _contents(events: CsvEvents, outcomes: Sequence[Outcome]) -> Contents:
    return Contents(
        source=str(events.path),
        fingerprint=events.fingerprint(),
        complete=True,
        events={
            outcome.name: {"num_hits": outcome.num_hits, "particles": outcome.particles}
            for outcome in outcomes
            if outcome.fault is None
        },
        skipped={outcome.name: outcome.fault for outcome in outcomes if outcome.fault is not None},
    )


def _convert(index: int, events: CsvEvents, store: Path) -> Outcome:
    """Prepare one event, unless that was done before."""
    name, source_hash = events.names[index], events.event_fingerprint(index)
    if (earlier := _earlier(name, store, events, source_hash)) is not None:
        return earlier
    try:
        event = events.read(index)
    except DataError as error:
        return Outcome(name, fault=str(error))
    # The hits come last: once they are there, the event is complete.
    particles = event.particles
    if particles is not None:
        path = particles_path(store, name)
        _write(path, lambda path: to_parquet(particles, path, source_hash))
    _write(hits_path(store, name), lambda path: to_parquet(event.hits, path, source_hash))
    return Outcome(name, event.num_hits, particles is not None)


def _earlier(name: str, store: Path, events: CsvEvents, source_hash: str) -> Outcome | None:
    """The outcome of an earlier run, or None if the event is still to be done."""
    has_particles = "particles" in events.tables[name]
    try:
        metadata = pq.read_metadata(hits_path(store, name))
        if has_particles:
            pq.read_metadata(particles_path(store, name))
    except (OSError, pa.ArrowException):
        return None
    if (metadata.metadata or {}).get(HASH_KEY) != source_hash.encode():
        raise DataError.of(
            hits_path(store, name),
            "source",
            found="an event made from other files",
            expected=f"one of the present files of {events.path}",
            remedy="delete it, or choose another folder",
        )
    return Outcome(name, metadata.num_rows, has_particles)


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write aside and rename, so that the path never holds half a file."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        write(temporary)
        temporary.replace(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: the file cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


_work: tuple[CsvEvents, Path] | None = None  # of a worker process, set once when it starts


def _start_worker(events: CsvEvents, store: Path) -> None:
    global _work
    _work = (events, store)


def _convert_in_worker(index: int) -> Outcome:
    assert _work is not None
    return _convert(index, *_work)


def _in_processes(events: CsvEvents, store: Path, num_workers: int) -> Generator[Outcome]:
    """Convert all events in processes, in the order in which they finish."""
    pool = ProcessPoolExecutor(
        min(num_workers, len(events)),
        mp_context=multiprocessing.get_context("spawn"),  # forking a process with threads hangs
        initializer=_start_worker,
        initargs=(events, store),
    )
    try:
        futures = [pool.submit(_convert_in_worker, index) for index in range(len(events))]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            f"{store}: a worker died, perhaps for lack of memory; run again with fewer than "
            f"num_workers={num_workers}, which continues where this stopped"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
