"""The command line of the tracker simulation."""

from pathlib import Path

from jsonargparse import ArgumentParser

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
    parser.add_argument("--num_workers", type=int, default=1, help="Processes.")
    parser.add_argument("--progress", type=bool, default=True, help="Show a progress bar.")
    parser.add_class_arguments(TrackerConfig, "config")
    options = parser.instantiate(parser.parse_args(args))
    try:
        simulate_events(**vars(options))
    except (FileExistsError, ImportError) as error:
        parser.error(str(error))
