"""The figures of several runs side by side, such as of networks or of folds."""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hepattn.data.error import DataError


def newest_test(run: Path) -> dict[str, Any]:
    """Read the figures of the last test of a run.

    Args:
        run: Folder of the run.

    Raises:
        DataError: If the run was not tested.
    """
    files = list((run / "eval").glob("test*/metrics.json"))
    if not files:
        raise DataError(f"{run} holds no eval/test*/metrics.json; run its test first")
    return json.loads(max(files, key=lambda file: file.stat().st_mtime).read_text())


def summarise(runs: Sequence[Path]) -> Table:
    """Make a table of the runs' figures and, of several, their mean and standard deviation.

    Args:
        runs: Folders of tested runs.

    Raises:
        DataError: If one was not tested.
    """
    figures = [newest_test(run) for run in runs]
    table = Table("run", "jets", "accuracy", "AUC", *(shared := shared_rejections(figures)))
    columns = [
        [entry["accuracy"]["value"] for entry in figures],
        [entry["auc"] for entry in figures],
        *([entry["rejection"][name]["value"] for entry in figures] for name in shared),
    ]
    formats = [".4f", ".4f", *(".4g" for _ in shared)]
    for i, (run, entry) in enumerate(zip(runs, figures, strict=True)):
        accuracy = entry["accuracy"]
        error = (accuracy["high"] - accuracy["low"]) / 2
        cells = [_cell(column[i], spec) for column, spec in zip(columns, formats, strict=True)]
        cells[0] += f" ± {error:.4f}"
        table.add_row(run.name, str(entry["num_jets"]), *cells)
    if len(runs) > 1:
        table.add_section()
        for name, of in (("mean", statistics.fmean), ("standard deviation", statistics.stdev)):
            cells = [
                _cell(None if None in column else of(column), spec)
                for column, spec in zip(columns, formats, strict=True)
            ]
            table.add_row(name, "", *cells)
    return table


def shared_rejections(figures: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the rejections that all tests quote."""
    first, *rest = (entry["rejection"] for entry in figures)
    return [name for name in first if all(name in other for other in rest)]


def _cell(value: float | None, spec: str) -> str:
    return "–" if value is None else format(value, spec)


def main(args: Sequence[str] | None = None) -> None:
    """Print the table.

    Args:
        args: Command line arguments, by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="hepattn summarise-jets", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of tested runs")
    try:
        table = summarise(parser.parse_args(args).runs)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    Console(width=160).print(table)
