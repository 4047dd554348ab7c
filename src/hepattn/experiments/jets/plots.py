"""Figures of jet tagging."""

# C classes

from collections.abc import Sequence

from matplotlib.figure import Figure

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
