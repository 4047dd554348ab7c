"""The command line that the simulations share."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from hepattn.simulate.shards import available_cpus


def run_command(
    simulate: Callable[..., object],
    config: type,
    args: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    numbers: Mapping[str, tuple[int, str]],
    max_workers: Callable[[Namespace], int] | None = None,
    workers_if: str = "",
) -> None:
    """Simulate what a command line asks for.

    Args:
        simulate: Writes the files; takes ``directory``, the ``numbers``, ``num_workers``,
            ``progress`` and ``config``.
        config: Dataclass of the options of the simulation.
        args: Arguments; those of the process if None.
        prog: Name of the command.
        description: What it does.
        numbers: Default and help of each argument that is a number.
        max_workers: Largest number of processes that is worth their start, given the arguments,
            where none is asked for; by default as many as there are CPUs.
        workers_if: What the help says of it.
    """
    parser = ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("directory", type=Path, help="Where to write; made if absent.")
    for name, (default, text) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    parser.add_argument(
        "--num_workers",
        type=int | None,
        help=f"Processes; by default one for each CPU{workers_if}.",
    )
    parser.add_argument("--progress", type=bool, default=True, help="Show a progress bar.")
    parser.add_class_arguments(config, "config")
    parsed = parser.parse_args(args)
    try:
        options = parser.instantiate(parsed)
        if options.num_workers is None:
            limit = max_workers(options) if max_workers else available_cpus()
            options.num_workers = max(1, min(available_cpus(), limit))
        simulate(**vars(options))
    except (OSError, ImportError, RuntimeError, ValueError) as error:
        parser.error(str(error))
