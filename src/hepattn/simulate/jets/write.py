"""Data sets of simulated jets: files of many jets, written once, resumable, in parallel."""

from pathlib import Path

from hepattn.simulate.jets.config import JetConfig
from hepattn.simulate.jets.layouts import SUFFIX, count_jets, write_jets
from hepattn.simulate.jets.make import make_jets
from hepattn.simulate.jets.pythia import load
from hepattn.simulate.shards import claim, whole_file, write_shards

VERSION = 2
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
    and a later call can ask for more. Only a last file that is too short for it is then replaced,
    by one that begins with the same jets: the first jets are the same however many are asked for,
    and whatever ``num_workers``.

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
        RuntimeError: If no jet of a class passes the cuts, or a process is killed.
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
    claim(directory, "jets", "jets_*", config, VERSION)
    return write_shards(
        lambda number: directory / f"jets_{number:04d}{SUFFIX[config.layout]}",
        num_jets,
        config,
        num_workers,
        things="jets",
        count=lambda path: count_jets(path, config.layout),
        write=_write_shard,
        progress=progress,
    )


def _write_shard(config: JetConfig, path: Path, size: int, number: int) -> int:
    with whole_file(path) as part:
        write_jets(part, make_jets(config, size, number), config)
    return size
