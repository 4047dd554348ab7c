"""Data sets of simulated jets: files of many jets, written once, resumable, in parallel."""

import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hepattn.simulate.jets.config import JetConfig
from hepattn.simulate.jets.layouts import SUFFIX, count_jets, write_jets
from hepattn.simulate.jets.make import make_jets
from hepattn.simulate.jets.pythia import load

RECORD = "simulation.json"
VERSION = 1
"""Rises when the same config gives other jets than before."""


def simulate_jets(
    directory: Path | str,
    num_jets: int,
    config: JetConfig | None = None,
    num_workers: int = 1,
    progress: bool = True,
) -> list[Path]:
    """Write simulated jets to files of ``config.shard_size`` jets.

    A file that is there is not made again, so an interrupted call is finished by the same call,
    and a later call can ask for more. Only a last file that is too short for it is then replaced.
    The jets do not depend on ``num_workers``.

    Args:
        directory: Where to write; made if absent.
        num_jets: How many jets.
        config: What to simulate; the defaults if None.
        num_workers: Processes.
        progress: Whether to show a progress bar.

    Returns:
        The files, ``jets_0000.root`` and so on, of at least ``num_jets`` jets together: a file
        from an earlier call for more is left as it is.

    Raises:
        FileExistsError: If the directory holds jets of another config or of unknown origin.
        ImportError: If the config asks for Pythia 8 and the extra is not installed.
        ValueError: If a number is out of range.
    """
    if num_jets < 0:
        raise ValueError(f"num_jets={num_jets} must not be negative")
    if num_workers < 1:
        raise ValueError(f"num_workers={num_workers} must be at least 1")
    directory = Path(directory)
    config = config or JetConfig()
    if config.generator == "pythia":  # a missing extra shows before anything is written
        load("pythia8mc")
        load("fastjet")
    _claim(directory, config)
    sizes = [
        min(config.shard_size, num_jets - first) for first in range(0, num_jets, config.shard_size)
    ]
    paths = [
        directory / f"jets_{number:04d}{SUFFIX[config.layout]}" for number in range(len(sizes))
    ]
    missing = [
        (path, size, number)
        for number, (path, size) in enumerate(zip(paths, sizes, strict=True))
        if not path.exists() or count_jets(path, config.layout) < size
    ]
    with _progress_bar(enabled=progress) as bar:
        done = num_jets - sum(size for _, size, _ in missing)
        task = bar.add_task("simulating jets", total=num_jets, completed=done)
        for size in _make(config, missing, num_workers):
            bar.advance(task, size)
    return paths


def _make(
    config: JetConfig, shards: list[tuple[Path, int, int]], num_workers: int
) -> Iterator[int]:
    if num_workers == 1 or len(shards) < 2:
        for shard in shards:
            yield _write_shard(config, *shard)
        return
    # Spawned, not forked: a fork of a process with threads (torch, pyarrow) can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_workers, len(shards)), mp_context=context) as pool:
        tasks = [pool.submit(_write_shard, config, *shard) for shard in shards]
        try:
            for task in as_completed(tasks):
                yield task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_shard(config: JetConfig, path: Path, size: int, number: int) -> int:
    """Write a whole file or none: readers and later runs never meet a truncated one."""
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        write_jets(part, make_jets(config, size, number), config)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return size


def _claim(directory: Path, config: JetConfig) -> None:
    """Record the config next to the jets, or check that it is the one recorded."""
    record = directory / RECORD
    wanted = json.loads(json.dumps({"version": VERSION, "config": asdict(config)}))
    if next(directory.glob("jets_*"), None) is None:
        directory.mkdir(parents=True, exist_ok=True)
        part = directory / f".{RECORD}.{os.getpid()}.part"
        part.write_text(json.dumps(wanted, indent=2) + "\n")
        part.replace(record)
        return
    if not record.exists():
        raise FileExistsError(
            f"{directory} holds jets but no {RECORD}, so their config is not known; "
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
        f"{directory} holds jets of another config ({'; '.join(changes)}); nothing was written. "
        "Choose another directory, or the config there"
    )


def _progress_bar(*, enabled: bool) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, TimeRemainingColumn(), disable=not enabled)
