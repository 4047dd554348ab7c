"""The command line of the tracker simulation."""

from collections.abc import Sequence

from hepattn.simulate.command import run_command
from hepattn.simulate.tracker.config import TrackerConfig
from hepattn.simulate.tracker.write import simulate_events


def main(args: Sequence[str] | None = None) -> None:
    """Write simulated events as the command line asks.

    Args:
        args: Arguments; those of the process if None.
    """
    run_command(
        simulate_events,
        TrackerConfig,
        args,
        prog="simulate-tracker",
        description="Simulate tracker events in the TrackML file format.",
        numbers={
            "num_events": (10, "How many events."),
            "first": (0, "Number of the first event."),
        },
        max_workers=lambda options: options.num_events // 100,  # starting one takes seconds
        workers_if=" if there are 100 events for it",
    )
