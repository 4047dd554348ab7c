"""Empty figures in the field's style, files of them, and the one of chosen against true classes."""

# C classes

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor


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


def plot_confusion(counts: Tensor, classes: Sequence[str]) -> Figure:
    """Draw where the events of each class go, as shares of the class.

    Args:
        counts: Events, or the sums of their weights, by true class and chosen class (C, C). The
            shares of a class without any are 0.
        classes: Names of the classes.
    """
    figure, (axis,) = new_figure()
    counts = counts.cpu().numpy()
    totals = counts.sum(1, keepdims=True)  # (C, 1)
    shares = counts / np.where(totals > 0, totals, 1)  # (C, C)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(classes))
    axis.set_xticks(places, classes, rotation=90)
    axis.set_yticks(places, classes)
    axis.minorticks_off()
    axis.set(xlabel="chosen class", ylabel="true class")
    for row, column in np.ndindex(shares.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{100 * shares[row, column]:.0f}"
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize="x-small")
    return figure
