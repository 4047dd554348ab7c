"""Figures of the TrackML experiments."""

from collections.abc import Mapping

import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hepattn.metrics.efficiency import Efficiency, binned_efficiency
from hepattn.training.figures import new_figure

PT_EDGES = np.array([0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0])  # GeV
ETA_EDGES = np.linspace(-4, 4, 17)

Array = NDArray[np.generic]


def plot_scores(score: Array, label: Array, threshold: float) -> Figure:
    """Draw the scores of signal and background hits.

    Args:
        score: Scores (H).
        label: True for signal (H).
        threshold: Hits with at least this score are kept.
    """
    figure, (axis,) = new_figure()
    edges = np.linspace(0, 1, 51)
    for name, chosen in (("signal hits", label), ("other hits", ~label)):
        counts, _ = np.histogram(score[chosen], edges)
        mplhep.histplot(counts, edges, ax=axis, label=name)
    axis.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.3f}")
    axis.set(xlabel="score", ylabel="hits", yscale="log", xlim=(0, 1))
    axis.legend()
    return figure


def plot_scan(score: Array, label: Array, threshold: float) -> Figure:
    """Draw purity against efficiency, and both against the threshold.

    Args:
        score: Scores (H).
        label: True for signal (H).
        threshold: The chosen threshold.
    """
    figure, (left, right) = new_figure(2)
    thresholds = np.concatenate([np.geomspace(1e-4, 0.1, 40), np.linspace(0.1, 0.99, 60)])
    signal, every = np.sort(score[label]), np.sort(score)
    num_signal = len(signal) - np.searchsorted(signal, thresholds)
    num_kept = len(every) - np.searchsorted(every, thresholds)
    hit_efficiency = num_signal / max(len(signal), 1)
    purity = np.divide(num_signal, num_kept, out=np.full(len(num_kept), np.nan), where=num_kept > 0)
    left.plot(hit_efficiency, purity)
    left.set(xlabel="hit efficiency", ylabel="hit purity", xlim=(0.8, 1.002), ylim=(0, 1))
    left.set_xticks([0.8, 0.85, 0.9, 0.95, 1.0])
    right.plot(thresholds, hit_efficiency, label="hit efficiency")
    right.plot(thresholds, purity, label="hit purity")
    right.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.3f}")
    right.set(xlabel="threshold", xscale="log", ylim=(0, 1.02))
    right.legend()
    return figure


def plot_retained(retained: Array, pt: Array, eta: Array) -> Figure:
    """Draw the share of particles that keep enough hits against pT and eta.

    Args:
        retained: Whether each particle does (P).
        pt: Transverse momentum in GeV (P).
        eta: Pseudorapidity (P).
    """
    figure, (left, right) = new_figure(2)
    draw_efficiencies(left, {"": binned_efficiency(pt, retained, PT_EDGES)}, PT_EDGES)
    draw_efficiencies(right, {"": binned_efficiency(eta, retained, ETA_EDGES)}, ETA_EDGES)
    left.set(xlabel="$p_T$ [GeV]", ylabel="particles retained", xscale="log")
    right.set(xlabel=r"$\eta$", ylabel="particles retained")
    return figure


def plot_event(position: Array, label: Array, kept: Array) -> Figure:
    """Draw an event's hits before and after the filter, in x–y and r–z.

    Args:
        position: x, y, z of the hits in mm (H, 3).
        label: True for signal (H).
        kept: True for hits that the filter keeps (H).
    """
    figure, axes = new_figure(num_columns=2, num_rows=2)
    x, y, z = position.T
    views = {"x–y": (x, y, "x [mm]", "y [mm]"), "r–z": (z, np.hypot(x, y), "z [mm]", "r [mm]")}
    for index, (horizontal, vertical, xlabel, ylabel) in enumerate(views.values()):
        for after in (False, True):
            axis = axes[2 * index + after]
            shown = kept if after else np.ones_like(kept)
            for name, chosen, color in (("other", ~label, "0.6"), ("signal", label, "tab:red")):
                points = shown & chosen
                axis.scatter(horizontal[points], vertical[points], s=3, color=color, label=name)
            title = f"{'after' if after else 'before'} the filter: {shown.sum()} hits"
            axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
            if horizontal is x:
                axis.set_aspect("equal", adjustable="datalim")
    axes[0].legend(markerscale=3)
    return figure


def draw_efficiencies(axis: Axes, curves: Mapping[str, Efficiency], edges: Array) -> None:
    """Draw efficiencies in bins, from below the lowest to 1.

    Args:
        axis: Where to draw.
        curves: Efficiencies in the bins, by their names in the legend.
        edges: Edges of the bins.
    """
    for name, curve in curves.items():
        draw_points(axis, curve, edges, name)
    lowest = min(np.nanmin(curve.low, initial=1.0) for curve in curves.values())
    axis.axhline(1, color="0.8", zorder=0)
    axis.set_ylim(min(0.9, lowest) - 0.02, 1.02)
    if len(curves) > 1:
        axis.legend()


def draw_points(axis: Axes, curve: Efficiency, edges: Array, name: str = "") -> None:
    """Draw a share in bins with its uncertainty; empty bins stay empty.

    Args:
        axis: Where to draw.
        curve: The share in each bin.
        edges: Edges of the bins.
        name: Its name in the legend.
    """
    centres = (edges[1:] + edges[:-1]) / 2
    filled = np.isfinite(curve.value)
    spread = np.stack([curve.value - curve.low, curve.high - curve.value])[:, filled]
    widths = (np.diff(edges) / 2)[filled]
    axis.errorbar(
        centres[filled], curve.value[filled], spread, widths, fmt="o", markersize=3, label=name
    )
