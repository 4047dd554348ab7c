"""Figures of jet tagging."""

# C classes

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from hepattn.metrics.tagging import TaggingMetrics
from hepattn.training.figures import new_figure

NUM_COLOURS = 7  # of the style; then lines are dashed


def plot_roc(metrics: TaggingMetrics, classes: Sequence[str]) -> Figure:
    """Draw background rejection against signal efficiency, each class against the first one.

    Args:
        metrics: What was collected.
        classes: Names of the classes, the background first.
    """
    figure, (axis,) = new_figure()
    present = metrics.present()
    for signal in range(1, len(classes)):
        if not {0, signal} <= set(present):
            continue
        background_efficiency, signal_efficiency = (x.cpu() for x in metrics.roc(signal))
        some = background_efficiency > 0
        axis.plot(
            signal_efficiency[some],
            1 / background_efficiency[some],
            label=classes[signal],
            color=f"C{signal % NUM_COLOURS}",
            linestyle="-" if signal < NUM_COLOURS else "--",
        )
    axis.set(xlabel="signal efficiency", ylabel=f"{classes[0]} rejection", yscale="log")
    axis.set(xlim=(0, 1), ylim=(1, None))
    if axis.lines:
        axis.legend(fontsize="small")
    return figure


def plot_confusion(counts: Tensor, classes: Sequence[str]) -> Figure:
    """Draw where the jets of each class go.

    Args:
        counts: Jets by true class and chosen class (C, C).
        classes: Names of the classes.
    """
    figure, (axis,) = new_figure()
    counts = counts.cpu().numpy()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)  # (C, C)
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
