"""Figures of an evaluation as a file and as a table."""

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hepattn.metrics.efficiency import Efficiency
from hepattn.metrics.tracking import CriterionFigures, TrackingFigures

CRITERIA_NAMES = {"double_majority": "double majority", "perfect": "perfect", "lhc": "LHC"}


def write_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Write ``metrics.json``; what is nothing out of nothing becomes null.

    Args:
        folder: Folder of the evaluation; it is made.
        figures: Numbers, mappings of numbers, or dataclasses of figures, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = {k: asdict(v) if is_dataclass(v) else v for k, v in figures.items()}
    text = json.dumps(plain, indent=2, default=float).replace("NaN", "null")
    (folder / "metrics.json").write_text(text + "\n")


def format_efficiency(value: Efficiency) -> str:
    """Write an efficiency in per cent with its interval."""
    middle, low, high = (100 * float(part) for part in value)
    return f"{middle:.2f} -{middle - low:.2f} +{high - middle:.2f} %"


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
