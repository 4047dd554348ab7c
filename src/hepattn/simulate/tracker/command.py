"""The command line of the tracker simulation."""

from pathlib import Path

from jsonargparse import ArgumentParser

from hepattn.simulate.shards import available_cpus
from hepattn.simulate.tracker.config import TrackerConfig
from hepattn.simulate.tracker.write import simulate_events


def main(args: list[str] | None = None) -> None:
    """Write simulated events as the command line asks.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = ArgumentParser(
        prog="simulate-tracker",
        description="Simulate tracker events in the TrackML file format.",
        allow_abbrev=False,
    )
    parser.add_argument("directory", type=Path, help="Where to write; made if absent.")
    parser.add_argument("--num_events", type=int, default=10, help="How many events.")
    parser.add_argument("--first", type=int, default=0, help="Number of the first event.")
    parser.add_argument(
        "--num_workers",
        type=int | None,
        help="Processes; by default one for each CPU if there are 100 events for it.",
    )
    parser.add_argument("--progress", type=bool, default=True, help="Show a progress bar.")
    parser.add_class_arguments(TrackerConfig, "config")
    parsed = parser.parse_args(args)
    try:
        options = parser.instantiate(parsed)
        if options.num_workers is None:  # starting one takes seconds
            options.num_workers = max(1, min(available_cpus(), options.num_events // 100))
        simulate_events(**vars(options))
    except (OSError, ImportError, RuntimeError, ValueError) as error:
        parser.error(str(error))
