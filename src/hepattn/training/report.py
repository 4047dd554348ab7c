"""Figures of an evaluation on disk and in tables."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from hepattn.metrics.efficiency import Efficiency


def write_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Write ``metrics.json``; what is not finite, such as nothing out of nothing, becomes null.

    Args:
        folder: Folder of the evaluation; it is made.
        figures: Numbers, mappings of numbers, or dataclasses of figures, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(figures), indent=2, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n")


def format_efficiency(value: Efficiency) -> str:
    """Write an efficiency in per cent with its interval."""
    middle, low, high = (100 * float(part) for part in value)
    return f"{middle:.2f} -{middle - low:.2f} +{high - middle:.2f} %"


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, str | bool | int | None):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
