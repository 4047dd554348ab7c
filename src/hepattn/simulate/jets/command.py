"""The command line of the jet simulation."""

from collections.abc import Sequence

from hepattn.simulate.command import run_command
from hepattn.simulate.jets.config import JetConfig
from hepattn.simulate.jets.write import simulate_jets


def main(args: Sequence[str] | None = None) -> None:
    """Write simulated jets as the command line asks.

    Args:
        args: Arguments; those of the process if None.
    """
    run_command(
        simulate_jets,
        JetConfig,
        args,
        prog="simulate-jets",
        description="Simulate jets of ten classes in the JetClass or the JetNet file format.",
        numbers={"num_jets": (10_000, "How many jets.")},
    )
