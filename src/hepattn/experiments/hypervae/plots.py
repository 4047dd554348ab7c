"""Figures of generated jets against true ones."""

# J jets

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hepattn.metrics.jets import JetSample
from hepattn.physics.correlators import correlator_spectrum, momentum_shares, pair_distances
from hepattn.training.figures import new_figure

MOST_JETS = 2000  # of which correlators are drawn
NUM_BINS = 40
DISTANCES = np.geomspace(0.01, 1.6, 25)


def plot_jets(samples: Mapping[str, Mapping[str, JetSample]], types: Sequence[str]) -> Figure:
    """Draw share of pT, mass, number of particles and energy correlators, a row for each type.

    Args:
        samples: Jets by type, by the name of the set; the truth is the first one.
        types: Which types.
    """
    panels = (_draw_pt, _draw_mass, _draw_count, _draw_pairs, _draw_triples)
    figure, axes = new_figure(len(panels), len(types), panel=(4.2, 3.4))
    for place, axis in enumerate(axes):
        kind, draw = types[place // len(panels)], panels[place % len(panels)]
        draw(axis, {name: jets[kind] for name, jets in samples.items()})
        axis.set_title(kind, fontsize="small")
        axis.tick_params(labelsize="x-small")
        axis.xaxis.label.set_size("small")
    axes[0].legend(fontsize="x-small")
    return figure


def correlator(jets: JetSample, num_points: int) -> np.ndarray:
    """Mean energy correlator of jets in bins of the longest distance, per bin of its logarithm.

    Args:
        jets: The jets, of which at most 2,000 count.
        num_points: Number of points, 2 or 3.
    """
    jets = jets.take(slice(MOST_JETS))
    total = np.zeros(len(DISTANCES) + 1)
    for start in range(0, len(jets), 200):
        part = jets.take(slice(start, start + 200))
        eta, phi, pt = torch.from_numpy(part.particles).float().unbind(-1)
        shares = momentum_shares(pt, torch.from_numpy(part.valid))
        edges = torch.from_numpy(DISTANCES).float()
        spectrum = correlator_spectrum(shares, pair_distances(eta, phi), edges, num_points)
        total += spectrum.sum(0).numpy()
    return total[1:-1] / len(jets) / np.diff(np.log(DISTANCES))


def _draw_pt(axis: Axes, samples: Mapping[str, JetSample]) -> None:
    values = {name: jets.particles[..., 2][jets.valid] for name, jets in samples.items()}
    _histograms(axis, values, np.geomspace(1e-4, 1, NUM_BINS))
    axis.set(xlabel="pT / jet pT", xscale="log", yscale="log")


def _draw_mass(axis: Axes, samples: Mapping[str, JetSample]) -> None:
    values = {name: jets.mass for name, jets in samples.items()}
    _histograms(axis, values, np.linspace(0, 0.5, NUM_BINS))
    axis.set(xlabel="mass / pT")


def _draw_count(axis: Axes, samples: Mapping[str, JetSample]) -> None:
    values = {name: jets.valid.sum(1) for name, jets in samples.items()}
    most = next(iter(samples.values())).valid.shape[1]
    _histograms(axis, values, np.arange(most + 2) - 0.5)
    axis.set(xlabel="particles", yscale="log")


def _draw_pairs(axis: Axes, samples: Mapping[str, JetSample]) -> None:
    _correlators(axis, samples, 2)


def _draw_triples(axis: Axes, samples: Mapping[str, JetSample]) -> None:
    _correlators(axis, samples, 3)


def _correlators(axis: Axes, samples: Mapping[str, JetSample], num_points: int) -> None:
    for number, (name, jets) in enumerate(samples.items()):
        axis.stairs(correlator(jets, num_points), DISTANCES, label=name, **_style(number))
    axis.set(xlabel=f"longest distance, {num_points} points", xscale="log")


def _histograms(axis: Axes, values: Mapping[str, np.ndarray], edges: np.ndarray) -> None:
    for number, (name, column) in enumerate(values.items()):
        heights, _ = np.histogram(column, edges)
        shares = heights / max(len(column), 1)
        axis.stairs(shares, edges, label=name, **_style(number))


def _style(number: int) -> dict[str, object]:
    if number == 0:
        return {"fill": True, "color": "0.8"}
    return {"color": f"C{number - 1}", "linewidth": 1.5}
