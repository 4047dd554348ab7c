"""The command line of the event simulation."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from hepattn.simulate.events.config import EventsConfig
from hepattn.simulate.events.write import simulate_events
from hepattn.simulate.shards import available_cpus


def main(args: Sequence[str] | None = None) -> None:
    """Write simulated events as the command line asks.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = ArgumentParser(
        prog="simulate-events",
        description="Simulate events with jets, electrons and muons, and known answers, in HDF5.",
        allow_abbrev=False,
    )
    parser.add_argument("directory", type=Path, help="Where to write; made if absent.")
    parser.add_argument("--num_events", type=int, default=100_000, help="How many events.")
    parser.add_argument(
        "--num_workers",
        type=int | None,
        help="Processes; by default one for each CPU if there are two files for it.",
    )
    parser.add_argument("--progress", type=bool, default=True, help="Show a progress bar.")
    parser.add_class_arguments(EventsConfig, "config")
    parsed = parser.parse_args(args)
    try:
        options = parser.instantiate(parsed)
        if options.num_workers is None:  # starting one takes as long as a file
            num_files = options.num_events // options.config.shard_size
            options.num_workers = max(1, min(available_cpus(), num_files // 2))
        simulate_events(**vars(options))
    except (OSError, RuntimeError, ValueError) as error:
        parser.error(str(error))
