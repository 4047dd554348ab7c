"""Pictures of the detector and figures of what is told about its events."""

# S sensors, J events

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Rectangle
from numpy.typing import NDArray

from hepattn.metrics.resolution import effective_width
from hepattn.physics import xec
from hepattn.training.figures import new_figure

Array = NDArray[np.floating]
GAP = 4.0  # cm between the faces of a picture
PMT_RADIUS = 2.25  # cm, of the photocathode
OUTER_SHRINK = 0.75  # azimuth of the outer face is drawn at about the scale of the inner one
NUM_BINS = 6


def plot_events(panels: Mapping[str, tuple[Array, Array]]) -> Figure:
    """Draw the six faces of the detector, unfolded, with the photons of each sensor.

    The inner face is in the middle, seen from the xenon, with the upstream side to its left, the
    downstream side to its right, the top above and the bottom below; the outer face stands to
    the right. Sensors without a number of photons are left blank.

    Args:
        panels: For each picture its photons (S) and which are known (S).
    """
    figure, axes = new_figure(len(panels), panel=(7.0, 6.0))
    highest = max(float(photons[known].max(initial=10.0)) for photons, known in panels.values())
    norm = LogNorm(1.0, highest)
    places = face_places()
    for axis, (name, (photons, known)) in zip(axes, panels.items(), strict=True):
        sensors = PatchCollection(
            _patches(places), cmap="viridis", norm=norm, edgecolor="0.8", linewidth=0.1
        )
        shown = np.where(known, np.clip(photons, 1.0, None), np.nan)
        sensors.set_array(np.ma.masked_invalid(shown))
        axis.add_collection(sensors)
        _label_faces(axis, places)
        axis.autoscale_view()
        axis.set_aspect("equal")
        axis.set_axis_off()
        axis.set_title(name)
    figure.colorbar(sensors, ax=axes, label="photons", shrink=0.7)
    return figure


def face_places() -> Array:
    """Where each sensor is drawn, (S, 2) in cm."""
    position, face = xec.sensors().position, xec.sensors().face
    x, y, z = position.T
    r, phi = np.hypot(x, y), np.arctan2(y, x) % (2 * np.pi)
    along = -(phi - np.pi) * xec.SENSOR_RADIUS  # v, upward
    side = np.abs(z[face == xec.FACES.index("inner")]).max() + GAP
    end = along[face == xec.FACES.index("inner")].max() + GAP
    depth = r - xec.SENSOR_RADIUS
    places = np.stack([z, along], -1)
    for name in xec.FACES:
        here = face == xec.FACES.index(name)
        match name:
            case "us":
                places[here, 0] = -side - depth[here]
            case "ds":
                places[here, 0] = side + depth[here]
            case "top":
                places[here, 1] = end + depth[here]
            case "bottom":
                places[here, 1] = -end - depth[here]
            case "outer":
                places[here] *= [1.0, OUTER_SHRINK * xec.RADIUS_OUT / xec.SENSOR_RADIUS]
                places[here, 0] += 2 * side + depth[face == xec.FACES.index("ds")].max() + 3 * GAP
    return places


def _patches(places: Array) -> list[Patch]:
    is_pmt = xec.sensors().is_pmt
    width, height = 1.51, 1.53  # cm, the pitch of the inner face
    return [
        Circle(place, PMT_RADIUS)
        if pmt
        else Rectangle(place - np.array([width, height]) / 2, width, height)
        for place, pmt in zip(places, is_pmt, strict=True)
    ]


def _label_faces(axis: Axes, places: Array) -> None:
    face = xec.sensors().face
    for number, name in enumerate(xec.FACES):
        own = places[face == number]
        centre, top = own[:, 0].mean(), own[:, 1].max()
        if name == "bottom":
            axis.text(centre, own[:, 1].min() - GAP, name, ha="center", va="top", fontsize="small")
        elif name != "inner":  # in the middle, and named by what surrounds it
            axis.text(centre, top + GAP, name, ha="center", va="bottom", fontsize="small")


def plot_errors(summary: Mapping[str, Mapping[str, object]]) -> Figure:
    """Draw the error of the root of the photons of hidden sensors, face by face.

    Args:
        summary: Of each method, see `GroupedErrors.summary`.
    """
    figure, (axis,) = new_figure()
    width = 0.8 / len(summary)
    for number, (name, figures) in enumerate(summary.items()):
        place = np.arange(len(xec.FACES)) + (number - (len(summary) - 1) / 2) * width
        axis.bar(place, figures["rms_of_groups"], width, label=name)
    axis.set_xticks(range(len(xec.FACES)), xec.FACES)
    axis.minorticks_off()
    axis.set(ylabel=r"RMS error of $\sqrt{\mathrm{photons}}$", yscale="log")
    axis.legend(fontsize="small")
    return figure


def plot_residuals(residuals: Mapping[str, Mapping[str, Array]], units: Sequence[str]) -> Figure:
    """Draw the residuals of each number that is told, of the network and of other methods.

    Args:
        residuals: For each number the residuals (J) of each method.
        units: Unit of each number.
    """
    figure, axes = new_figure(min(len(residuals), 3), -(-len(residuals) // 3), (5.0, 4.0))
    for axis in axes[len(residuals) :]:
        axis.set_axis_off()
    for axis, (name, methods), unit in zip(axes, residuals.items(), units, strict=False):
        first = next(iter(methods.values()))
        reach = 5 * max(effective_width(first), 1e-9)
        edges = np.linspace(-reach, reach, 61) + np.median(first)
        for method, values in methods.items():
            label = f"{method}: {effective_width(values):.3g}"
            # a share of all events: a method may have none within reach
            share = np.full(len(values), 1 / (len(values) * (edges[1] - edges[0])))
            axis.hist(values, edges, weights=share, histtype="step", label=label)
        axis.set(xlabel=f"{name}: told - true [{unit}]", ylabel="density")
        axis.set_ylim(top=1.4 * axis.get_ylim()[1])  # room for the legend
        axis.legend(fontsize="x-small", title=r"$\sigma_\mathrm{eff}$", title_fontsize="x-small")
    return figure


def plot_resolution(
    residuals: Mapping[str, Array], units: Sequence[str], against: Mapping[str, Array]
) -> Figure:
    """Draw how the effective width of residuals depends on energy, depth or whatever else.

    Args:
        residuals: Residuals of each number (J).
        units: Unit of each number.
        against: Each variable, with its unit in its name (J).
    """
    figure, axes = new_figure(len(against), len(residuals), (5.0, 3.2))
    cells = iter(axes)
    for (name, residual), unit in zip(residuals.items(), units, strict=True):
        for label, variable in against.items():
            edges = np.quantile(variable, np.linspace(0, 1, NUM_BINS + 1))
            bins = np.clip(np.searchsorted(edges, variable, side="right") - 1, 0, NUM_BINS - 1)
            filled = [b for b in range(NUM_BINS) if (bins == b).sum() > 1]
            centres = [variable[bins == b].mean() for b in filled]
            widths = [effective_width(residual[bins == b]) for b in filled]
            errors = [
                w / np.sqrt(2 * (bins == b).sum()) for w, b in zip(widths, filled, strict=True)
            ]
            axis = next(cells)
            axis.errorbar(centres, widths, errors, fmt="o", markersize=4)
            axis.set(xlabel=label, ylabel=rf"$\sigma_\mathrm{{eff}}$ of {name} [{unit}]")
            axis.set_ylim(bottom=0)
    return figure


def plot_calibration(pairs: Mapping[str, tuple[Array, Array]]) -> Figure:
    """Draw the root mean square of residuals in bins of the spread that the network tells.

    Args:
        pairs: For each number its residuals and told spreads, both (J) in its unit.
    """
    figure, axes = new_figure(len(pairs), 1, (4.5, 4.0))
    for axis, (name, (residual, spread)) in zip(axes, pairs.items(), strict=True):
        order = np.array_split(np.argsort(spread), NUM_BINS)
        told = np.array([np.sqrt((spread[o] ** 2).mean()) for o in order if len(o)])
        found = np.array([np.sqrt((residual[o] ** 2).mean()) for o in order if len(o)])
        number = np.array([len(o) for o in order if len(o)])
        axis.errorbar(told, found, found / np.sqrt(2 * number), fmt="o", markersize=4)
        reach = [0, 1.1 * max(told.max(), found.max())]
        axis.plot(reach, reach, color="0.5", linestyle="--")
        axis.set(xlabel=f"{name}: told spread", ylabel="RMS of the residuals")
    return figure
