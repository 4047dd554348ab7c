"""Figures of the detector's tasks as tables."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from hepattn.metrics.resolution import Measured
from hepattn.physics import xec


def print_filling(summary: Mapping[str, Mapping[str, object]]) -> None:
    """Print the errors of the root of the photons of hidden sensors.

    Args:
        summary: Of each method, see `GroupedErrors.summary`.
    """
    number = max(int(figures["num"]) for figures in summary.values())
    table = Table(title=f"√photons of {number} hidden sensors: RMS error")
    table.add_column("method")
    for name in ("all", "mean error", *xec.FACES):
        table.add_column(name, justify="right")
    for name, figures in summary.items():
        row = [figures["rms"], figures["bias"], *figures["rms_of_groups"]]
        table.add_row(name, *(f"{value:.2f}" for value in row))
    Console(width=110).print(table)


def print_regression(rows: Mapping[str, Mapping[str, Measured]], units: Mapping[str, str]) -> None:
    """Print the resolution of each number that is told, of the network and of other methods.

    Args:
        rows: For each number the resolution of each method.
        units: Unit of each number.
    """
    table = Table(title="resolution: 68.3 % of the events are closer to the truth")
    for name in ("number", "method", "res68", ""):
        table.add_column(name, justify="left" if name in ("number", "method") else "right")
    for number, methods in rows.items():
        for method, measured in methods.items():
            value = f"{measured.value:.4g} ± {measured.error:.2g}"
            table.add_row(number, method, value, units[number])
    Console(width=90).print(table)
