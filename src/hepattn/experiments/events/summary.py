"""Statistics of the columns that an experiment on events reads, over its training events.

Run as ``hepattn summarise-events mlp.yaml columns.json``, and set ``data.statistics`` to the file.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import yaml
from jsonargparse import ArgumentError
from rich.console import Console
from rich.table import Table

from hepattn.data.events import Statistics
from hepattn.experiments.events.data import EventData
from hepattn.training.cli import USER_ERRORS
from hepattn.training.configs import ConfigError, resolve_config
from hepattn.training.load import instantiate
from hepattn.training.parser import Parser

SHOWN = (0.0, 0.05, 0.5, 0.95, 1.0)


def main(args: Sequence[str] | None = None) -> None:
    """Write the statistics and print some of them.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = ArgumentParser(
        prog="hepattn summarise-events",
        description="Write statistics of the input columns over the training events.",
        epilog="Further options change the data of the config: --data.path OTHER",
        allow_abbrev=False,
    )
    parser.add_argument("config", help="Config of an experiment on events, such as mlp.yaml.")
    parser.add_argument("output", type=Path, help="JSON file to write, which must not exist.")
    options, overrides = parser.parse_known_args(args)
    try:
        if options.output.exists():
            raise ConfigError(f"{options.output} exists already; remove it or name another file")
        data = open_data(options.config, overrides)
        data.prepare_data()
        statistics = data.summarise()
        options.output.parent.mkdir(parents=True, exist_ok=True)
        statistics.save(options.output)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    print_statistics(statistics)
    print(f"statistics written to {options.output}")


def open_data(config: str, overrides: Sequence[str] = ()) -> EventData:
    """Build the data module of a config alone.

    Args:
        config: Name of a config that ships with the experiments on events, or a path.
        overrides: Options that change it, as on the command line.

    Raises:
        ConfigError: If there is no such config or an option is not accepted.
    """
    path = resolve_config(config, Path(__file__).parent)
    parser = Parser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--saved", action="config")
    parser.add_lightning_class_args(EventData, "data")
    kept = {"data": (yaml.safe_load(path.read_text()) or {}).get("data", {})}
    try:
        parsed = parser.parse_args(["--saved", yaml.safe_dump(kept, sort_keys=False), *overrides])
    except ArgumentError as error:
        raise ConfigError(parser.summarise(str(error))) from error
    return instantiate(parser, parsed).data


def print_statistics(statistics: Statistics) -> None:
    """Print a row for each column."""
    table = Table(title="columns of the training events")
    headers = ("column", "entries", "mean", "spread", *(f"{share:g}" for share in SHOWN))
    for name in headers:
        table.add_column(name, justify="left" if name == "column" else "right")
    for source, summary in statistics.summaries.items():
        features = statistics.schema.objects.get(source, statistics.schema.events)
        for place, feature in enumerate(features):
            column = summary.quantiles[:, place]
            shown = [f"{column[round(share * (len(column) - 1))]:.4g}" for share in SHOWN]
            name = f"{feature.transform}({feature.name})"
            table.add_row(
                f"{source}: {feature.name if feature.transform == 'none' else name}",
                str(int(summary.count[place])),
                f"{summary.mean[place]:.4g}",
                f"{summary.std[place]:.4g}",
                *shown,
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
