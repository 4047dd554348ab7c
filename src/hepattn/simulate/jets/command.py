"""The command line of the jet simulation."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from hepattn.simulate.jets.config import JetConfig
from hepattn.simulate.jets.write import simulate_jets
from hepattn.simulate.shards import available_cpus


def main(args: Sequence[str] | None = None) -> None:
    """Write simulated jets as the command line asks.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = ArgumentParser(
        prog="simulate-jets",
        description="Simulate jets of ten classes in the JetClass or the JetNet file format.",
        allow_abbrev=False,
    )
    parser.add_argument("directory", type=Path, help="Where to write; made if absent.")
    parser.add_argument("--num_jets", type=int, default=10_000, help="How many jets.")
    parser.add_argument(
        "--num_workers", type=int | None, help="Processes; by default one for each CPU."
    )
    parser.add_argument("--progress", type=bool, default=True, help="Show a progress bar.")
    parser.add_class_arguments(JetConfig, "config")
    parsed = parser.parse_args(args)
    try:
        options = parser.instantiate(parsed)
        if options.num_workers is None:
            options.num_workers = available_cpus()
        simulate_jets(**vars(options))
    except (OSError, ImportError, RuntimeError, ValueError) as error:
        parser.error(str(error))
