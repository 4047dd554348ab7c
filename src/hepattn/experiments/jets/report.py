"""Figures of a jet tagger as a file and as a table."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from hepattn.metrics.tagging import Rejection, TaggingMetrics

DEFAULT_EFFICIENCIES = (0.5, 0.3)
PUBLISHED_EFFICIENCIES = {"Hqql": (0.99,), "Tbl": (0.995,)}  # arXiv:2202.03772, table 2


def rejections(
    metrics: TaggingMetrics, classes: Sequence[str]
) -> Iterator[tuple[str, float, Rejection]]:
    """Rejection of the first class by each other one, at the efficiencies of the publications.

    Args:
        metrics: What was collected.
        classes: Names of the classes, the background first.

    Yields:
        Name of the class, signal efficiency, rejection.
    """
    usual = DEFAULT_EFFICIENCIES if len(classes) == 2 else DEFAULT_EFFICIENCIES[:1]
    for signal, name in enumerate(classes[1:], start=1):
        for signal_efficiency in PUBLISHED_EFFICIENCIES.get(name, usual):
            rejection = metrics.rejection(signal, signal_efficiency)
            if rejection is not None:
                yield name, signal_efficiency, rejection


def tagging_figures(metrics: TaggingMetrics, classes: Sequence[str]) -> dict[str, Any]:
    """Collect the figures of a test for `metrics.json`.

    Args:
        metrics: What was collected.
        classes: Names of the classes, the background first.
    """
    return {
        "num_jets": len(metrics.scores()[1]),
        "accuracy": metrics.accuracy()._asdict(),
        "auc": metrics.auc(),
        "rejection": {
            f"{name}@{share}": rejection._asdict()
            for name, share, rejection in rejections(metrics, classes)
        },
        "classes": list(classes),
        "confusion": metrics.confusion().tolist(),
    }


def print_tagging_figures(metrics: TaggingMetrics, classes: Sequence[str]) -> None:
    """Print the figures of a test, with their 68.3 % intervals.

    Args:
        metrics: What was collected.
        classes: Names of the classes, the background first.
    """
    table = Table(title=f"{len(metrics.scores()[1])} jets of {len(metrics.present())} classes")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("68.3 % interval", justify="right")
    accuracy = metrics.accuracy()
    interval = f"{float(accuracy.low):.4f} to {float(accuracy.high):.4f}"
    table.add_row("accuracy", f"{float(accuracy.value):.4f}", interval)
    table.add_row("AUC", f"{metrics.auc():.4f}", "")
    for name, share, rejection in rejections(metrics, classes):
        label = f"{classes[0]} rejection, {name} at {100 * share:g} %"
        interval = f"{rejection.low:.1f} to {rejection.high:.1f}"
        table.add_row(label, f"{rejection.value:.1f}", interval)
    Console(width=100).print(table)
