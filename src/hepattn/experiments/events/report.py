"""Figures of an event classifier and of a density ratio, as a file and as a table."""

# J events, A auxiliary columns

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hepattn.losses.distance_correlation import distance_correlation
from hepattn.metrics.density_ratio import DensityRatioMetrics
from hepattn.metrics.event_classification import EventMetrics
from hepattn.metrics.significance import SignificanceScan

SIGNAL_EFFICIENCIES = (0.3, 0.5, 0.7)
MAX_CORRELATED = 20_000  # events; the time grows with their square


def classification_figures(
    metrics: EventMetrics,
    classes: Sequence[str],
    signal: Sequence[int],
    background: Sequence[int],
    auxiliary: Mapping[str, Tensor],
    scan: SignificanceScan,
) -> dict[str, Any]:
    """Collect the figures of a test for `metrics.json`.

    Args:
        metrics: What was collected.
        classes: Names of the classes.
        signal: Numbers of the signal classes.
        background: Numbers of the background classes.
        auxiliary: Columns that the network does not see, each (J).
        scan: Expected significances.
    """
    best, threshold = scan.best()
    rejections = {
        f"{share:g}": metrics.rejection(share, signal, background) for share in SIGNAL_EFFICIENCIES
    }
    _, label, weight = metrics.collected()
    odds = metrics.odds(signal, background)  # (J)
    chosen = torch.isin(label, label.new_tensor(background)).nonzero()[:, 0]
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))
    chosen = chosen[order[:MAX_CORRELATED].to(chosen.device)]  # files may hold one process each
    return {
        "num_events": len(label),
        "accuracy": metrics.accuracy(),
        "auc": metrics.auc(),
        "average_precision": metrics.average_precision(signal, background),
        "auc_one_against_rest": {
            classes[own]: metrics.area(*pair) for own, pair in metrics.one_against_rest().items()
        },
        "f1": dict(zip(classes, metrics.f1().tolist(), strict=True)),
        "calibration_error": metrics.reliability().error(),
        "rejection": {k: r._asdict() for k, r in rejections.items() if r is not None},
        "significance": {"cut": best, "threshold": threshold, "binned": scan.binned},
        # dCorr, not its square; weights of either sign count by their size.
        "distance_correlation": {
            name: distance_correlation(
                column[chosen].double(), odds[chosen], weight[chosen].abs()
            ).sqrt()
            for name, column in auxiliary.items()
        },
        "classes": list(classes),
        "confusion": metrics.confusion().tolist(),
    }


def density_ratio_figures(
    metrics: DensityRatioMetrics, variables: Sequence[str], normalise: bool
) -> dict[str, float]:
    """Collect the figures of a density ratio.

    Args:
        metrics: What was collected.
        variables: Names of the variables of the closure.
        normalise: Whether the closure is one of shapes alone.
    """
    figures = {"ratio_error": metrics.error(), "effective_share": metrics.effective_share()}
    figures |= {f"log_ratio_{name}": value for name, value in metrics.moments().items()}
    if (uncertainty := metrics.uncertainty()) is not None:
        figures |= dict(zip(("spread", "within_spread"), uncertainty, strict=True))
    for place, name in enumerate(variables):
        figures[f"chi2_per_ndf_{name}"] = metrics.closure(place, normalise=normalise).chi2_per_ndf()
    return figures


def print_figures(title: str, figures: Mapping[str, Any]) -> None:
    """Print the numbers among figures as a table.

    Args:
        title: Title of the table.
        figures: Numbers, and mappings of numbers, by name.
    """
    table = Table(title=title)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in _flat(figures):
        table.add_row(name, str(value) if isinstance(value, int) else f"{float(value):.4f}")
    Console(width=100).print(table)


def _flat(figures: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name} ")
        elif isinstance(value, int | float | Tensor):
            rows.append((f"{prefix}{name}".replace("_", " "), value))
    return rows
