"""What the simulations share: a directory of one config, whole files, several processes."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

RECORD = "simulation.json"
Result = TypeVar("Result")


def claim(directory: Path, things: str, pattern: str, config: Any, version: int) -> None:
    """Record the config in a directory, or check that it is the one recorded.

    Args:
        directory: Where the files are or will be; made if absent.
        things: What messages call the contents.
        pattern: Names of their files.
        config: Dataclass of the options that the files depend on.
        version: Version of the simulation.

    Raises:
        FileExistsError: If the directory holds files of another config, or no record of it.
    """
    record = directory / RECORD
    # As JSON gives it back: lists where there were tuples.
    wanted = json.loads(json.dumps({"version": version, "config": asdict(config)}))
    if next(directory.glob(pattern), None) is None:
        directory.mkdir(parents=True, exist_ok=True)
        with whole_file(record) as part:
            part.write_bytes((json.dumps(wanted, indent=2) + "\n").encode())
        return
    if not record.exists():
        raise FileExistsError(
            f"{directory} holds {things} but no {RECORD}, so their config is not known; "
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
    if found.get("version") != version:
        changes.append(f"simulation version {found.get('version')} there, {version} now")
    raise FileExistsError(
        f"{directory} holds {things} of another config ({'; '.join(changes)}); nothing was "
        "written. Choose another directory, or the config there"
    )


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a whole file or none: readers and later runs never meet a truncated one.

    Args:
        path: The file.

    Yields:
        Where to write it; it is renamed at the end, or removed after an error.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def run_tasks(
    work: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], num_workers: int
) -> Iterator[Result]:
    """Do tasks, in several processes if there are several.

    Args:
        work: What to do; with several processes it must be a function of a module.
        tasks: Arguments of each call.
        num_workers: Processes.

    Yields:
        The results as they come.

    Raises:
        RuntimeError: If a process ends before its task does.
    """
    if num_workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield work(*task)
        return
    # Spawned, not forked: a fork of a process with threads (torch, pyarrow) can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_workers, len(tasks)), mp_context=context) as pool:
        try:
            futures = [pool.submit(work, *task) for task in tasks]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"one of num_workers={num_workers} processes ended before its task did: it was "
                "killed, perhaps for want of memory (take fewer), or a script that starts them "
                'lacks if __name__ == "__main__"; files that were written are whole, and the same '
                "call goes on from them"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def write_shards(
    paths: Callable[[int], Path],
    num_rows: int,
    config: Any,
    num_workers: int,
    *,
    things: str,
    count: Callable[[Path], int],
    write: Callable[[Any, Path, int, int], int],
    progress: bool,
) -> list[Path]:
    """Write the files of a data set that are missing or too short, ``shard_size`` rows each.

    Args:
        paths: Name of each file by its number.
        num_rows: Rows of all files together.
        config: Options of the simulation.
        num_workers: Processes.
        things: What the progress bar calls the rows.
        count: Number of rows of a file that is there.
        write: Writes a file, given config, path, number of rows and number of the file, and returns
            the number of rows; a function of a module.
        progress: Whether to show a progress bar.

    Returns:
        All files.

    Raises:
        RuntimeError: If a process is killed.
    """
    size = config.shard_size
    sizes = [min(size, num_rows - first) for first in range(0, num_rows, size)]
    files = [paths(number) for number in range(len(sizes))]
    missing = [
        (config, path, size, number)
        for number, (path, size) in enumerate(zip(files, sizes, strict=True))
        if not path.exists() or count(path) < size
    ]
    with progress_bar(enabled=progress) as bar:
        done = num_rows - sum(size for _, _, size, _ in missing)
        task = bar.add_task(f"simulating {things}", total=num_rows, completed=done)
        for size in run_tasks(write, missing, num_workers):
            bar.advance(task, size)
    return files


def available_cpus() -> int:
    """Count the CPUs that this process may use, which a batch system may have limited."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def progress_bar(*, enabled: bool) -> Progress:
    """Make a progress bar that counts files.

    Args:
        enabled: Whether it shows.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, TimeRemainingColumn(), disable=not enabled)
