"""Draw simulated calorimeter events and print their figures beside those of the prototype.

``python -m hepattn.simulate.xec.compare --out FILE.png``
"""

# N events, S sensors

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jsonargparse import ArgumentParser
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hepattn.physics import xec
from hepattn.simulate.xec.channels import make_channels
from hepattn.simulate.xec.config import XecConfig
from hepattn.simulate.xec.make import MIN_PHOTOELECTRONS, make_events

Array = NDArray[np.floating]

SIGNAL_ENERGY = 0.0528
"""Energy in GeV of the photon of a muon's decay into an electron and a photon."""
SHALLOW, DEEP = 0.7, 6.0
"""Depths in cm below and above which the brightest channel is looked at."""


@dataclass(frozen=True)
class Summary:
    """Figures of simulated events.

    Args:
        depth: w of the first interaction in cm (N,).
        photoelectrons: In all channels (N,).
        brightest: Photons of the brightest channel (N,).
        hit: Channels with light (N,).
        bright: Channels with more than 100 photons (N,).
        arrival: Times from the decay to the arrival of the light in the channels with more than 50
            photoelectrons of all events, in ns.
        coverage: Share of the sphere that sensors cover, by the depth in cm, in the mean over the
            fiducial u and v.
    """

    depth: Array
    photoelectrons: Array
    brightest: Array
    hit: NDArray[np.integer]
    bright: NDArray[np.integer]
    arrival: Array
    coverage: dict[float, float]


def signal_config(config: XecConfig) -> XecConfig:
    """Give a config for photons of the signal's energy in a detector without dead channels.

    Args:
        config: All other options.

    Returns:
        The config.
    """
    energy = {"min_energy": SIGNAL_ENERGY, "max_energy": SIGNAL_ENERGY}
    return replace(config, dead_share=0.0, num_dead_clusters=0, **energy)


def summarise(events: dict[str, NDArray], config: XecConfig) -> Summary:
    """Collect the figures of events.

    Args:
        events: Columns of events without dead channels.
        config: What they were made with.

    Returns:
        The figures.
    """
    npho = events["npho"]
    npe = npho * make_channels(config, 0).pde
    seen = events["relative_time"] + events["time_min_used"][:, None]  # (N, S)
    arrival = 1e9 * seen - events["timeTruth"][:, None]
    return Summary(
        depth=events["uvwTruth"][:, 2],
        photoelectrons=npe.sum(1),
        brightest=npho.max(1),
        hit=(npho > 0).sum(1),
        bright=(npho > 100).sum(1),
        arrival=arrival[(npe > MIN_PHOTOELECTRONS) & (events["relative_time"] < 1)],
        coverage={depth: mean_coverage(depth) for depth in (0.5, 20.0)},
    )


def mean_coverage(depth: float, num: int = 500) -> float:
    """Give the share of the sphere that sensors cover, seen from a depth.

    Args:
        depth: w in cm.
        num: Points, spread evenly at random over the fiducial u and v.

    Returns:
        The mean share.
    """
    uv = np.random.default_rng(0).uniform((-23.9, -67.9), (23.9, 67.9), (num, 2))
    points = xec.uvw_to_xyz(np.column_stack([uv, np.full(num, depth)]))
    return float(xec.solid_angles(points).sum(-1).mean() / (4 * np.pi))


def table(summary: Summary) -> str:
    """Tabulate the figures beside those of the prototype.

    Args:
        summary: Of photons of 52.8 MeV.

    Returns:
        A table in Markdown.
    """
    brightest, depth = summary.brightest, summary.depth
    rows = [
        ("photoelectrons", "100,000 to 126,000", _spread(summary.photoelectrons, -3)),
        ("channels with light", "about 4,000", _spread(summary.hit)),
        ("channels with more than 100 photons", "1,000 to 1,300", _spread(summary.bright)),
        (
            f"photons of the brightest channel, w < {SHALLOW} cm",
            "50,000 (w = 0.5 cm)",
            _spread(brightest[depth < SHALLOW], -2),
        ),
        (
            f"the same, w > {DEEP:.0f} cm",
            "6,000 (deep)",
            _spread(brightest[depth > DEEP], -2),
        ),
        ("light arrives after [ns]", "1.6 to 9.4", _spread(summary.arrival, 1, tail=0.001)),
    ]
    rows += [
        (f"coverage at w = {w:g} cm", {0.5: "0.43", 20.0: "0.31"}[w], f"{share:.2f}")
        for w, share in summary.coverage.items()
    ]
    head = [("figure", "prototype", "here"), ("---", "---", "---")]
    return "\n".join("| " + " | ".join(row) + " |" for row in head + rows)


def _spread(values: Array, digits: int = 0, tail: float = 0.05) -> str:
    """Give the median between two quantiles, rounded."""
    if not len(values):
        return "–"
    quantiles = np.quantile(values, [tail, 0.5, 1 - tail]).round(digits)
    low, middle, high = (f"{q:,.{max(digits, 0)}f}" for q in quantiles)
    return f"{low} … **{middle}** … {high}"


def draw(summary: Summary, npho: Array) -> Figure:
    """Draw an event and the figures of many.

    Args:
        summary: Figures of the events.
        npho: Photons of one event (S,).

    Returns:
        The figure.
    """
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, width_ratios=[0.8, 1, 1])
    u, v, _ = np.moveaxis(xec.xyz_to_uvw(xec.sensors().position[xec.grid("inner")]), -1, 0)
    image = left.pcolormesh(
        u, v, npho[xec.grid("inner")].clip(min=1), norm=LogNorm(), rasterized=True
    )
    left.set(xlabel="u [cm]", ylabel="v [cm]", title="inner face, one event", aspect="equal")
    figure.colorbar(image, ax=left, label="photons")
    middle.plot(summary.depth, summary.photoelectrons / 1e3, ".", markersize=3)
    middle.set(xlabel="depth w of the first interaction [cm]", ylabel="photoelectrons [1000]")
    middle.set_ylim(bottom=0)
    right.hist(summary.arrival, np.linspace(1, 11, 51), histtype="step", density=True)
    right.set(
        xlabel=f"arrival after the decay [ns], > {MIN_PHOTOELECTRONS} photoelectrons",
        ylabel="share of channels per ns",
    )
    return figure


def main(args: Sequence[str] | None = None) -> None:
    """Draw and print the comparison as the command line asks.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = ArgumentParser(
        description="Draw simulated photons of 52.8 MeV and print their figures.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, required=True, help="Image file to write.")
    parser.add_argument("--num_events", type=int, default=1000, help="How many events.")
    skip = {"min_energy", "max_energy", "dead_share", "num_dead_clusters"}
    parser.add_class_arguments(XecConfig, "config", skip=skip)
    options = parser.instantiate(parser.parse_args(args))
    config = signal_config(options.config)
    events = make_events(config, options.num_events)
    summary = summarise(events, config)
    draw(summary, events["npho"][0]).savefig(options.out, dpi=70)
    print(table(summary))


if __name__ == "__main__":
    main()
