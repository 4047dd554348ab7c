"""Empty figures in the field's style, and files of them."""

from pathlib import Path

import matplotlib as mpl
import mplhep
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def new_figure(
    num_columns: int = 1, num_rows: int = 1, panel: tuple[float, float] = (6.5, 5.0)
) -> tuple[Figure, list[Axes]]:
    """Make an empty figure in the field's style, without a window system.

    Args:
        num_columns: Panels beside each other.
        num_rows: Panels below each other.
        panel: Width and height of a panel in inches.

    Returns:
        The figure and its panels, row by row.
    """
    style = {**mplhep.style.ATLAS, "mathtext.fontset": "dejavusans", "figure.autolayout": False}
    with mpl.rc_context(style):
        size = (panel[0] * num_columns, panel[1] * num_rows)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(num_rows, num_columns, squeeze=False)
    return figure, list(axes.flat)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to a file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
