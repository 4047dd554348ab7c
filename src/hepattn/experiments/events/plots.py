"""Figures of event classification and of density ratios."""

# J events, C classes

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from hepattn.metrics.density_ratio import Closure
from hepattn.metrics.event_classification import EventMetrics, Group
from hepattn.metrics.significance import SignificanceScan
from hepattn.training.figures import new_figure

NUM_BINS = 40
PASSING = (1.0, 0.5, 0.2, 0.05)  # shares of the background that sculpting is looked at for


def plot_roc(metrics: EventMetrics, groups: Mapping[str, tuple[Group, Group]]) -> Figure:
    """Draw ROC curves, and background rejection against signal efficiency.

    Args:
        metrics: What was collected.
        groups: For each curve by its name the numbers of the signal and background classes.
    """
    figure, (left, right) = new_figure(2)
    for name, (signal, background) in groups.items():
        passed, kept = (x.cpu().numpy() for x in metrics.roc(signal, background))
        left.plot(passed, kept, label=f"{name}, AUC {metrics.area(signal, background):.3f}")
        some = passed > 0
        right.plot(kept[some], 1 / passed[some])
    left.plot([0, 1], [0, 1], color="grey", linestyle=":")
    left.set(xlabel="background efficiency", ylabel="signal efficiency", xlim=(0, 1), ylim=(0, 1))
    left.legend(fontsize="small", loc="lower right")
    right.set(xlabel="signal efficiency", ylabel="background rejection", yscale="log", xlim=(0, 1))
    return figure


def plot_precision(metrics: EventMetrics, signal: Group, background: Group) -> Figure:
    """Draw precision against recall, at the shares of signal and background of the test.

    Args:
        metrics: What was collected.
        signal: Numbers of the signal classes.
        background: Numbers of the background classes.
    """
    figure, (axis,) = new_figure()
    _, is_signal, weight = metrics.discriminant(signal, background)
    passed, kept = metrics.roc(signal, background)
    num_signal, num_background = weight[is_signal].sum(), weight[~is_signal].sum()
    precision = kept * num_signal / (kept * num_signal + passed * num_background)
    axis.plot(kept.cpu(), precision.cpu())
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.05))
    return figure


def plot_scores(
    metrics: EventMetrics,
    classes: Sequence[str],
    signal: Group,
    background: Group,
    name: str = "signal",
) -> Figure:
    """Draw the score of the signal, and the discriminant ln(p_signal / p_background), by class.

    Args:
        metrics: What was collected.
        classes: Names of the classes.
        signal: Numbers of the signal classes.
        background: Numbers of the background classes; of all others it is ln(p / (1 - p)).
        name: What the signal is called.
    """
    figure, (left, right) = new_figure(2)
    _, label, weight = (x.cpu() for x in metrics.collected())
    odds = metrics.odds(signal, background).cpu()  # (J)
    ratio = "ln(p$_{signal}$ / p$_{background}$)"
    if len(signal) + len(background) == len(classes):
        ratio = f"ln(p / (1 $-$ p)) of {name}"
    for axis, x, edges, title in (
        (left, odds.sigmoid(), np.linspace(0, 1, NUM_BINS + 1), f"probability of {name}"),
        (right, odds, _edges(odds), ratio),
    ):
        for place, label_name in enumerate(classes):
            own = label == place
            _draw_histogram(axis, x[own], weight[own], edges, label_name)
        axis.set(xlabel=title, ylabel="density", yscale="log")
        axis.legend(fontsize="small")
    return figure


def plot_significance(scan: SignificanceScan) -> Figure:
    """Draw the expected significance of cuts on the signal probability.

    Args:
        scan: Expected significances.
    """
    figure, (axis,) = new_figure()
    best, threshold = scan.best()
    axis.plot(scan.threshold.cpu(), scan.significance.cpu(), label=f"cut: at best {best:.2f}")
    axis.axvline(threshold, color="grey", linestyle=":")
    axis.axhline(scan.binned, color="C1", linestyle="--", label=f"ten bins: {scan.binned:.2f}")
    axis.set(xlabel="least signal probability", ylabel="expected significance", xlim=(0, 1))
    axis.legend(fontsize="small")
    return figure


def plot_sculpting(
    metrics: EventMetrics,
    column: Tensor,
    name: str,
    signal: Group,
    background: Group,
) -> Figure:
    """Draw a column among the background that passes harder and harder cuts on the score.

    A score that does not know the column leaves its shape as it is.

    Args:
        metrics: What was collected.
        column: The column (J).
        name: Its name.
        signal: Numbers of the signal classes.
        background: Numbers of the background classes.
    """
    figure, (axis,) = new_figure()
    _, label, weight = (x.cpu() for x in metrics.collected())
    odds = metrics.odds(signal, background).cpu()  # (J)
    own = torch.isin(label, torch.tensor(list(background)))
    odds, x, weight = odds[own], column.cpu()[own], weight[own]
    edges = _edges(x)
    order = odds.argsort(descending=True)
    above = weight[order].cumsum(0) / weight.sum()  # share of the background down to each event
    for share in PASSING:
        passed = order[above <= share + 1e-9]
        _draw_histogram(axis, x[passed], weight[passed], edges, f"{100 * share:g} % of background")
    axis.set(xlabel=name, ylabel="density")
    axis.legend(fontsize="small")
    return figure


def plot_closure(closures: Sequence[Closure], names: Sequence[str]) -> Figure:
    """Draw numerator and reweighted denominator in bins of some variables, and their ratio.

    Args:
        closures: Of each variable.
        names: Names of the variables.
    """
    figure, axes = new_figure(len(names), 2)
    for place, (closure, name) in enumerate(zip(closures, names, strict=True)):
        above, below = axes[place], axes[len(names) + place]
        edges, numerator, error, denominator, other = (x.cpu().numpy() for x in closure[:5])
        centre, width = (edges[1:] + edges[:-1]) / 2, np.maximum(np.diff(edges), 1e-9)
        above.errorbar(centre, numerator / width, error / width, fmt="o", ms=3, label="numerator")
        above.stairs(denominator / width, edges, label="denominator · ratio")
        is_positive = (numerator > 0).any() or (denominator > 0).any()  # a subtraction leaves none
        above.set(ylabel="weight per unit", yscale="log" if is_positive else "linear")
        above.legend(title=f"χ²/ndf = {closure.chi2_per_ndf():.2f}", fontsize="small")
        some = denominator > 0
        quotient = numerator[some] / denominator[some]
        spread = np.hypot(error[some], other[some]) / denominator[some]
        below.errorbar(centre[some], quotient, spread, fmt="o", ms=3)
        below.axhline(1, color="grey", linestyle=":")
        below.set(xlabel=name, ylabel="numerator / (denominator · ratio)", ylim=(0.7, 1.3))
    return figure


def plot_ratio(log_ratio: Tensor, truth: Tensor) -> Figure:
    """Draw the logarithm of the ratio against the true one.

    Args:
        log_ratio: What the network says (J).
        truth: The truth (J).
    """
    figure, (axis,) = new_figure()
    x, y = truth.cpu().numpy(), log_ratio.cpu().numpy()
    low, high = np.quantile(x, [0.005, 0.995])
    axis.hist2d(x, y, bins=60, range=[(low, high), (low, high)], cmin=1, cmap="viridis")
    axis.plot([low, high], [low, high], color="red", linestyle="--")
    axis.set(xlabel="true log ratio", ylabel="log ratio of the network")
    return figure


def _edges(x: Tensor) -> NDArray[np.floating]:
    """Edges of bins that hold all but the outermost half per cent on either side."""
    low, high = np.quantile(x.numpy(), [0.005, 0.995]) if len(x) else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1, NUM_BINS + 1)


def _draw_histogram(
    axis: Axes, x: Tensor, weight: Tensor, edges: NDArray[np.floating], name: str
) -> None:
    counts, _ = np.histogram(x.numpy(), edges, weights=weight.numpy())
    total = counts.sum()
    if total > 0:
        axis.stairs(counts / (total * np.diff(edges)), edges, label=name)
