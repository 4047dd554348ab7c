"""The command line of the calorimeter simulation."""

from collections.abc import Sequence

from hepattn.simulate.command import run_command
from hepattn.simulate.xec.config import XecConfig
from hepattn.simulate.xec.write import simulate_xec


def main(args: Sequence[str] | None = None) -> None:
    """Write simulated calorimeter events as the command line asks.

    Args:
        args: Arguments; those of the process if None.
    """
    run_command(
        simulate_xec,
        XecConfig,
        args,
        prog="simulate-xec",
        description="Simulate photons in the liquid-xenon calorimeter of MEG II, in ROOT files.",
        numbers={"num_events": (10_000, "How many events.")},
    )
