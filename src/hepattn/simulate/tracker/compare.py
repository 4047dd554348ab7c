"""Draw simulated events beside a real one.

``python -m hepattn.simulate.tracker.compare REAL_EVENT_DIR --out FILE.png``
"""

# P particles, H hits

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.csv
from jsonargparse import ArgumentParser
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hepattn.physics.coordinates import transverse
from hepattn.simulate.tracker.config import TrackerConfig
from hepattn.simulate.tracker.event import RawEvent, simulate_event
from hepattn.simulate.tracker.geometry import Columns
from hepattn.simulate.tracker.write import TABLES

Array = NDArray[np.floating]
Index = NDArray[np.integer]

SENSORS = {"pixels": (7, 8, 9), "short strips": (12, 13, 14), "long strips": (16, 17, 18)}
"""Volume ids by type of sensor."""


@dataclass(frozen=True)
class Summary:
    """The quantities that are compared.

    Args:
        num_hits: Hits of each particle (P,).
        pt: Transverse momentum of each particle in GeV (P,).
        vertex_radius: Distance of its production point from the beam line in mm (P,).
        r: Transverse radius of each hit in mm (H,).
        z: Position of each hit along the beam in mm (H,).
        volume: Volume id of each hit (H,).
        noise: True for noise hits (H,).
        num_cells: Cells of each hit (H,).
    """

    num_hits: Index
    pt: Array
    vertex_radius: Array
    r: Array
    z: Array
    volume: Index
    noise: NDArray[np.bool_]
    num_cells: Index

    def hits_of(self, sensor: str) -> NDArray[np.bool_]:
        """Select the hits in one type of sensor.

        Args:
            sensor: A key of ``SENSORS``.

        Returns:
            True for those hits (H,).
        """
        return np.isin(self.volume, SENSORS[sensor])


def summarise(events: list[dict[str, Columns]], min_pt: float) -> Summary:
    """Collect the compared quantities.

    Args:
        events: The tables of each event by name.
        min_pt: Particles below this pT in GeV are left out; their hits stay.

    Returns:
        All events' particles and hits.
    """
    parts = []
    for tables in events:
        hits, particles, truth = tables["hits"], tables["particles"], tables["truth"]
        pt = transverse(particles["px"], particles["py"])
        kept = pt > min_pt
        order = np.argsort(hits["hit_id"])
        row = order[np.searchsorted(hits["hit_id"], tables["cells"]["hit_id"], sorter=order)]
        noise = truth["hit_id"][truth["particle_id"] == 0]
        parts.append(
            (
                particles["nhits"][kept],
                pt[kept],
                transverse(particles["vx"], particles["vy"])[kept],
                transverse(hits["x"], hits["y"]),
                hits["z"],
                hits["volume_id"],
                np.isin(hits["hit_id"], noise),
                np.bincount(row, minlength=len(hits["hit_id"])),
            )
        )
    return Summary(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def tables_of(event: RawEvent) -> dict[str, Columns]:
    """List an event's tables by name.

    Args:
        event: The event.

    Returns:
        hits, cells, particles and truth.
    """
    return {table: getattr(event, table) for table in TABLES}


def read_real_event(directory: Path) -> dict[str, Columns]:
    """Read the first complete event of a directory.

    Args:
        directory: Holds ``event*-{hits,cells,particles,truth}.csv`` or ``.csv.gz``.

    Returns:
        The four tables by name.

    Raises:
        FileNotFoundError: If there is no complete event.
    """
    for hits in sorted(directory.glob("event*-hits.csv*")):
        paths = {table: hits.with_name(hits.name.replace("-hits", f"-{table}")) for table in TABLES}
        if all(path.exists() for path in paths.values()):
            tables = {name: pyarrow.csv.read_csv(path) for name, path in paths.items()}
            return {
                name: {column: table[column].to_numpy() for column in table.column_names}
                for name, table in tables.items()
            }
    raise FileNotFoundError(
        f"{directory} holds no event with all of {', '.join(TABLES)} (csv or csv.gz)"
    )


def draw(real: Summary, simulated: Summary, title: str) -> Figure:
    """Draw the comparison.

    Args:
        real: The real event.
        simulated: Simulated events.
        title: Line above the figure.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(11, 9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = figure.subplots(3, 3)
    top, middle, bottom = axes
    _histogram(top[0], real.num_hits, simulated.num_hits, np.arange(-0.5, 21), "hits per particle")
    _histogram(top[1], real.pt, simulated.pt, np.geomspace(0.15, 15, 25), "$p_T$ [GeV]")
    top[1].set(xscale="log", yscale="log")
    radius = np.geomspace(0.1, 1100, 25)
    low = radius[0]
    _histogram(
        top[2],
        np.maximum(real.vertex_radius, low),
        np.maximum(simulated.vertex_radius, low),
        radius,
        "vertex radius [mm] (first bin: below)",
    )
    top[2].set(xscale="log", yscale="log")
    bins = np.arange(0.5, 31)
    for axis, sensor in zip(middle, SENSORS, strict=True):
        a, b = (s.num_cells[s.hits_of(sensor) & ~s.noise] for s in (real, simulated))
        _histogram(axis, a, b, bins, f"cells per hit, {sensor}")
        axis.set_yscale("log")
    for axis, summary, name in ((bottom[0], real, "real"), (bottom[1], simulated, "simulated")):
        num = min(len(real.r), len(simulated.r))  # as many points on both sides
        some = np.random.default_rng(0).choice(len(summary.r), num, replace=False)
        axis.scatter(summary.z[some], summary.r[some], s=0.3, rasterized=True)
        axis.set(xlabel="z [mm]", ylabel="r [mm]", title=name, xlim=(-3100, 3100), ylim=(0, 1080))
    _occupancy(bottom[2], real, simulated)
    top[0].legend()
    return figure


def _histogram(axis: Axes, real: Array, simulated: Array, bins: Array, label: str) -> None:
    """Draw shares of a bin: the simulation as a line, the real event with its errors."""
    expected, _ = np.histogram(simulated, bins)
    found, _ = np.histogram(real, bins)
    axis.stairs(expected / max(len(simulated), 1), bins, label="simulated", color="C0")
    centre = 0.5 * (bins[1:] + bins[:-1])
    share, error = found / max(len(real), 1), np.sqrt(found) / max(len(real), 1)
    shown = found > 0
    style = {"fmt": "o", "color": "k", "markersize": 3, "label": "real event"}
    axis.errorbar(centre[shown], share[shown], error[shown], **style)
    axis.set(xlabel=label, ylabel="share")


def _occupancy(axis: Axes, real: Summary, simulated: Summary) -> None:
    volumes = np.concatenate([np.array(ids) for ids in SENSORS.values()])
    place = np.arange(len(volumes))
    for noise, marker, name in ((False, "o", "particles"), (True, "x", "noise")):
        for shift, summary, colour in ((0.1, simulated, "C0"), (-0.1, real, "k")):
            chosen = summary.volume[summary.noise == noise]
            share = (chosen[:, None] == volumes).sum(0) / len(summary.volume)
            kind = "real" if summary is real else "simulated"
            axis.plot(place + shift, share, marker, color=colour, label=f"{kind}, {name}")
    axis.set(xticks=place, xticklabels=volumes, xlabel="volume", ylabel="share of all hits")
    axis.set_ylim(0, 0.3)
    axis.legend(fontsize="x-small", ncols=2, loc="upper center")


def main(args: list[str] | None = None) -> None:
    """Draw the comparison as the command line asks.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = ArgumentParser(
        description="Draw simulated tracker events beside a real one.", allow_abbrev=False
    )
    parser.add_argument("directory", type=Path, help="Holds a real event in the TrackML format.")
    parser.add_argument("--out", type=Path, required=True, help="Image file to write.")
    parser.add_argument("--num_events", type=int, default=20, help="Simulated events.")
    parser.add_class_arguments(TrackerConfig, "config")
    options = parser.instantiate(parser.parse_args(args))
    config: TrackerConfig = options.config
    real = summarise([read_real_event(options.directory)], config.min_pt)
    events = [tables_of(simulate_event(config, number)) for number in range(options.num_events)]
    simulated = summarise(events, config.min_pt)
    title = f"{options.num_events} simulated events of {config.num_particles} particles"
    figure = draw(real, simulated, f"{title} and a public TrackML event")
    figure.savefig(options.out, dpi=80)


if __name__ == "__main__":
    main()
