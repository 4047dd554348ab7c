"""Figures of the tracking."""

# H hits, R particles, T tracks, L decoder layers, M queries, N hits of an event

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from hepattn.data.trackml import PARTICLE_COLUMNS
from hepattn.experiments.trackml.plots import (
    ETA_EDGES,
    PT_EDGES,
    Array,
    draw_efficiencies,
    draw_points,
)
from hepattn.metrics.efficiency import binned_efficiency
from hepattn.metrics.track_matching import CRITERIA, TrackStatus, match_tracks, track_status
from hepattn.metrics.tracking import ParticleTable, TrackTable
from hepattn.physics.track_fit import FIT_COLUMNS
from hepattn.training.figures import new_figure

PHI_EDGES = np.linspace(-np.pi, np.pi, 17)
Z_EDGES = np.linspace(-160, 160, 17)  # mm
NUM_HITS_EDGES = np.arange(2.5, 20)

LABELS = {
    "pt": "$p_T$ [GeV]",
    "eta": r"$\eta$",
    "phi": r"$\phi$ [rad]",
    "vz": "$v_z$ [mm]",
    "num_hits": "hits of the particle",
}
EDGES = {
    "pt": PT_EDGES,
    "eta": ETA_EDGES,
    "phi": PHI_EDGES,
    "vz": Z_EDGES,
    "num_hits": NUM_HITS_EDGES,
}
RESIDUALS = {  # range of the histogram and label
    "pt": (0.3, r"$(p_T^\mathrm{fit} - p_T) / p_T$"),
    "eta": (0.02, r"$\eta^\mathrm{fit} - \eta$"),
    "phi": (0.02, r"$\phi^\mathrm{fit} - \phi$ [rad]"),
    "z0": (2.0, r"$z_0^\mathrm{fit} - v_z$ [mm]"),
}
GOLDEN_RATIO = 0.618034  # steps of it go around the colour circle without coming close


def plot_efficiency(table: ParticleTable) -> Figure:
    """Draw the efficiency by double majority and perfect match against what particles are.

    Args:
        table: The particles, columns as ``PARTICLE_COLUMNS``.
    """
    figure, axes = new_figure(num_columns=3, num_rows=2)
    columns, found = table.columns.cpu().numpy(), table.found.cpu().numpy()
    for axis, (name, label) in zip(axes, LABELS.items(), strict=False):
        x = columns[:, PARTICLE_COLUMNS.index(name)]
        curves = {
            criterion.replace("_", " "): binned_efficiency(
                x, found[:, CRITERIA.index(criterion)], EDGES[name]
            )
            for criterion in ("double_majority", "perfect")
        }
        draw_efficiencies(axis, curves, EDGES[name])
        axis.set(xlabel=label, ylabel="tracking efficiency")
    _scale_pt(axes[0])
    axes[-1].remove()
    return figure


def plot_fake_rate(table: TrackTable) -> Figure:
    """Draw the share of fakes by double majority against fitted parameters.

    The first and the last bin of pT hold what lies beyond. Tracks without a fit are left out.

    Args:
        table: The tracks.
    """
    figure, axes = new_figure(num_columns=3)
    fit = table.fit.cpu().numpy()
    fake = _status(table) == TrackStatus.FAKE
    for axis, name in zip(axes, ("pt", "eta", "phi"), strict=True):
        x, edges = fit[:, FIT_COLUMNS.index(name)], EDGES[name]
        fitted = ~np.isnan(x)
        x = x.clip(edges[0], edges[-1]) if name == "pt" else x
        curve = binned_efficiency(x[fitted], fake[fitted], edges)
        draw_points(axis, curve, edges)
        axis.set(xlabel=f"fitted {LABELS[name]}", ylabel="fake rate")
        top = max(0.1, 1.05 * np.nanmax(curve.high, initial=0.0))
        axis.set_ylim(-0.02 * top, top)
    _scale_pt(axes[0])
    return figure


def plot_residuals(table: TrackTable) -> Figure:
    """Draw how far fitted parameters are from the truth, of particles found by double majority.

    The legend quotes the median and half of the central 68.3 %, of all residuals; the histogram
    shows those in its range.

    Args:
        table: The tracks; their truth has the columns ``PARTICLE_COLUMNS``.
    """
    figure, axes = new_figure(num_columns=2, num_rows=2)
    found = _status(table) == TrackStatus.FOUND
    fit, truth = table.fit.cpu().numpy()[found], table.truth.cpu().numpy()[found]
    for axis, (name, (limit, label)) in zip(axes, RESIDUALS.items(), strict=True):
        true = truth[:, PARTICLE_COLUMNS.index("vz" if name == "z0" else name)]
        residual = fit[:, FIT_COLUMNS.index(name)] - true
        if name == "pt":
            residual = residual / true
        if name == "phi":
            residual = (residual + np.pi) % (2 * np.pi) - np.pi
        residual = residual[np.isfinite(residual)]
        text = "no fits"
        if len(residual):
            low, middle, high = np.quantile(residual, [0.15865, 0.5, 0.84135])
            text = f"median {middle:.2g}\nwidth {(high - low) / 2:.2g}"
        axis.hist(residual, np.linspace(-limit, limit, 61), histtype="step", label=text)
        axis.set(xlabel=label, ylabel="tracks", xlim=(-limit, limit))
        axis.legend()
    return figure


def plot_attention(weight: Array, phi: Array) -> Figure:
    """Draw what each query attends to, a map for each decoder layer.

    Args:
        weight: Attention weights, or masks, of an event (L, M, N).
        phi: Azimuth of its hits in radians (N,); the maps are sorted by it.
    """
    figure, axes = new_figure(num_columns=len(weight))
    order = np.argsort(phi, kind="stable")
    for layer, (axis, values) in enumerate(zip(axes, weight, strict=True)):
        values = np.asarray(values, dtype=float)[:, order]  # (M, N)
        largest = values.max(axis=1, keepdims=True)
        shares = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)
        image = axis.imshow(shares, aspect="auto", cmap="Blues", vmin=0, vmax=1)
        axis.set(xlabel=r"hit, by $\phi$", ylabel="query", title=f"decoder layer {layer + 1}")
        axis.tick_params(which="both", direction="out", top=False, right=False)
    figure.colorbar(image, ax=axes, label="attention / largest of the query")
    return figure


def plot_tracks(position: Array, particle_index: Array, kept: Array, track: Array) -> Figure:
    """Draw an event's particles, the hits after the filter and the tracks, in x–y and r–z.

    A particle and the track that found it by double majority have the same colour; other tracks
    are black and dashed.

    Args:
        position: x, y, z of the hits before the filter in mm (H, 3).
        particle_index: Particle to find of each hit (H,), -1 for none.
        kept: True for hits that the filter keeps (H,).
        track: Track of each hit (H,), -1 for none.
    """
    figure, axes = new_figure(num_columns=3, num_rows=2)
    partner = _found_particles(particle_index, track)
    matched = np.array([partner.get(index, -1) for index in track.tolist()])
    others = np.where(matched < 0, track, -1)
    num_particles, num_tracks = (len(np.unique(a[a >= 0])) for a in (particle_index, track))
    titles = (
        f"{num_particles} particles to find",
        f"{kept.sum()} of {len(kept)} hits kept",
        f"{num_tracks} tracks, {len(partner)} matched",
    )
    x, y, z = position.T
    views = ((x, y, "x [mm]", "y [mm]"), (z, np.hypot(x, y), "z [mm]", "r [mm]"))
    far = np.linalg.norm(position, axis=1)
    for row, (horizontal, vertical, xlabel, ylabel) in enumerate(views):
        points = np.stack([horizontal, vertical], axis=1)  # (H, 2)
        truth_axis, kept_axis, track_axis = axes[3 * row : 3 * row + 3]
        for axis, title in zip(axes[3 * row : 3 * row + 3], titles, strict=True):
            shown = kept if axis is not truth_axis else np.ones_like(kept)
            axis.update_datalim(points)  # so that the views of a row are alike
            axis.scatter(*points[shown].T, s=2, color="0.8", zorder=0)
            axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
            if row == 0:
                axis.set_aspect("equal", adjustable="datalim")
        own = kept & (particle_index >= 0)
        kept_axis.scatter(*points[own].T, s=3, color=_colours(particle_index[own]))
        _draw_lines(truth_axis, points, far, particle_index)
        _draw_lines(track_axis, points, far, matched)
        _draw_lines(track_axis, points, far, others, colors="black", linestyles="dashed")
    return figure


def _scale_pt(axis: Axes) -> None:
    axis.set_xlim(PT_EDGES[0], PT_EDGES[-1])  # points may be absent
    axis.set_xscale("log")
    axis.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])


def _status(table: TrackTable) -> Array:
    """Status of the tracks (T,) by double majority."""
    return table.status[:, CRITERIA.index("double_majority")].cpu().numpy()


def _found_particles(particle_index: Array, track: Array) -> dict[int, int]:
    """The particle that each track found, for the tracks that did."""
    size = np.bincount(particle_index + 1)
    columns = (
        track,
        np.ones_like(track, dtype=bool),
        particle_index + 1,  # as an id, 0 for hits of no particle to find
        size[particle_index + 1],
        particle_index,
    )
    matches = match_tracks(*(torch.from_numpy(column).unsqueeze(0) for column in columns))
    found = track_status(matches)[:, CRITERIA.index("double_majority")] == TrackStatus.FOUND
    pairs = (matches.track[found].tolist(), matches.particle_index[found].tolist())
    return dict(zip(*pairs, strict=True))


def _colours(index: Array) -> Array:
    """A colour (K, 3) for each number (K,)."""
    hue = index * GOLDEN_RATIO % 1.0
    return hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.9), np.full_like(hue, 0.8)], axis=-1))


def _draw_lines(axis: Axes, points: Array, far: Array, group: Array, **style: str) -> None:
    """Join the points (H, 2) of each group, from near to far; -1 is no group."""
    numbers = np.unique(group[group >= 0])
    order = np.argsort(far, kind="stable")
    lines = [points[order[group[order] == number]] for number in numbers]
    style = {"colors": _colours(numbers)} | style
    axis.add_collection(LineCollection(lines, linewidths=0.8, **style))
