"""Figures of a tracking as a table."""

from rich.console import Console
from rich.table import Table

from hepattn.metrics.tracking import CriterionFigures, TrackingFigures
from hepattn.training.report import format_efficiency

CRITERIA_NAMES = {"double_majority": "double majority", "perfect": "perfect", "lhc": "LHC"}


def print_tracking_figures(before: TrackingFigures, after: TrackingFigures) -> None:
    """Print the figures of a test as a table, with their 68.3 % intervals.

    Args:
        before: Figures whose denominators are counted before the filter.
        after: Figures whose denominators are what the filter left.
    """
    title = f"{before.num_tracks} tracks, {before.num_particles} particles to find"
    table = Table(title=title)
    table.add_column("figure")
    for name in CRITERIA_NAMES.values():
        table.add_column(name, justify="right")
    kept = f"efficiency, of the {after.num_particles} that the filter keeps"
    rows = [("efficiency", before, "efficiency"), (kept, after, "efficiency")]
    rows += [
        (name.replace("_", " "), before, name)
        for name in CriterionFigures.__dataclass_fields__
        if name != "efficiency"
    ]
    for label, figures, name in rows:
        values = (getattr(getattr(figures, criterion), name) for criterion in CRITERIA_NAMES)
        table.add_row(label, *map(format_efficiency, values))
    Console(width=120).print(table)
