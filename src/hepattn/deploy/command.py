"""What the command lines of the tools for a finished run have in common."""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hepattn.training.cli import USER_ERRORS
from hepattn.training.load import LoadedRun, load_run

MISSING = (ImportError, NotImplementedError)  # an extra, or what a module must define


def run_parser(
    name: str, description: str, changes_config: bool = True, takes_several: bool = False
) -> ArgumentParser:
    """Make a parser with the arguments that say which run.

    Args:
        name: Name of the tool.
        description: What it does.
        changes_config: Whether further options change the config of the run; else there are none.
        takes_several: Whether the tool takes several runs, one after the other.
    """
    epilog = "Further options change the config of the run: --data.path OTHER"
    parser = ArgumentParser(
        prog=f"hepattn {name}",
        description=description,
        epilog=epilog if changes_config else None,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="+" if takes_several else 1,
        help="Directory of the run, such as runs/hit_filter, or a folder of hepattn weights.",
    )
    parser.add_argument("--checkpoint", default="best", help="best (the default), last or a file.")
    parser.set_defaults(changes_config=changes_config)
    return parser


@contextmanager
def open_run(
    parser: ArgumentParser, args: Sequence[str] | None
) -> Iterator[tuple[LoadedRun, Namespace]]:
    """Open the run that a command line names; errors that a user can mend end it with one line.

    Args:
        parser: Made by `run_parser`, with options of the tool added.
        args: Arguments; those of the process if None.

    Yields:
        The run and the options of the tool.
    """
    with open_runs(parser, args) as (runs, options):
        yield next(runs), options


@contextmanager
def open_runs(
    parser: ArgumentParser, args: Sequence[str] | None
) -> Iterator[tuple[Iterator[LoadedRun], Namespace]]:
    """Open the runs that a command line names, as `open_run` does, each when its turn comes.

    Args:
        parser: Made by `run_parser`, with options of the tool added.
        args: Arguments; those of the process if None.

    Yields:
        The runs and the options of the tool.
    """
    options, overrides = parser.parse_known_args(args)
    if overrides and not options.changes_config:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    try:
        yield (load_run(run, options.checkpoint, overrides) for run in options.run), options
    except (*USER_ERRORS, *MISSING, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
