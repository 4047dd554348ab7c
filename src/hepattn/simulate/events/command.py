"""The command line of the event simulation."""

from collections.abc import Sequence

from hepattn.simulate.command import run_command
from hepattn.simulate.events.config import EventsConfig
from hepattn.simulate.events.write import simulate_events


def main(args: Sequence[str] | None = None) -> None:
    """Write simulated events as the command line asks.

    Args:
        args: Arguments; those of the process if None.
    """
    run_command(
        simulate_events,
        EventsConfig,
        args,
        prog="simulate-events",
        description="Simulate events with jets, electrons and muons, and known answers, in HDF5.",
        numbers={"num_events": (100_000, "How many events.")},
        # Starting a process takes as long as a file.
        max_workers=lambda options: options.num_events // options.config.shard_size // 2,
        workers_if=" if there are two files for it",
    )
