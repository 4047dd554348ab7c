"""Draw simulated jets beside real ones and print their medians.

``python -m hepattn.simulate.jets.compare JETCLASS_FILE.root --out FILE.png``
"""

# N jets

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from jsonargparse import ArgumentParser
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hepattn.simulate.jets.config import CLASSES, JetConfig
from hepattn.simulate.jets.detector import Jets
from hepattn.simulate.jets.kinematics import Array, mass_of
from hepattn.simulate.jets.make import make_jets

BINS = {
    "pt": np.linspace(500, 1000, 21),
    "mass": np.linspace(0, 250, 31),
    "num_particles": np.linspace(0, 100, 26),
}
TITLE = {"pt": "jet $p_T$ [GeV]", "mass": "jet mass [GeV]", "num_particles": "particles"}


@dataclass(frozen=True)
class Summary:
    """The quantities that are compared.

    Args:
        label: Place of each jet's class in ``CLASSES``, -1 if none (N,).
        pt: Transverse momentum in GeV (N,).
        mass: Mass in GeV (N,).
        num_particles: Particles (N,).
    """

    label: NDArray[np.integer]
    pt: Array
    mass: Array
    num_particles: NDArray[np.integer]

    def of(self, name: str, quantity: str) -> Array:
        """Select a class.

        Args:
            name: The class.
            quantity: pt, mass or num_particles.

        Returns:
            The quantity for the jets of that class.
        """
        return getattr(self, quantity)[self.label == CLASSES.index(name)]


def summarise(jets: Jets) -> Summary:
    """Collect the compared quantities of simulated jets.

    Args:
        jets: The jets.

    Returns:
        Label, pT, mass and multiplicity.
    """
    pt = np.hypot(jets.momentum[:, 1], jets.momentum[:, 2])
    return Summary(jets.label, pt, mass_of(jets.momentum), jets.num_particles)


def read_jetclass(path: Path) -> Summary:
    """Collect the compared quantities of a file in the JetClass layout.

    Args:
        path: ROOT file.

    Returns:
        Label, pT, mass and multiplicity, from the sum of the particles.
    """
    labels = [f"label_{name}" for name in CLASSES]
    parts = [f"part_{name}" for name in ("energy", "px", "py", "pz")]
    with uproot.open(path) as file:
        table = file["tree"].arrays([*labels, *parts])
    hot = np.stack([ak.to_numpy(table[name]) > 0 for name in labels], axis=-1)  # (N, classes)
    momentum = np.stack(
        [ak.to_numpy(ak.sum(table[name], axis=1, mask_identity=False)) for name in parts], axis=-1
    ).astype(np.float64)
    return Summary(
        label=np.where(hot.any(axis=1), hot.argmax(axis=1), -1),
        pt=np.hypot(momentum[:, 1], momentum[:, 2]),
        mass=mass_of(momentum),
        num_particles=ak.to_numpy(ak.num(table[parts[0]])),
    )


def medians(sources: dict[str, Summary]) -> str:
    """Tabulate the median mass and multiplicity of each class.

    Args:
        sources: What to compare, by name; the first is the real one.

    Returns:
        A table in Markdown; the real medians have their statistical error.
    """
    names = [*sources]
    head = ["class", *(f"{q}, {name}" for q in ("mass", "particles") for name in names)]
    lines = [head, ["---"] * len(head)]
    for name in CLASSES:
        row = [name]
        for quantity in ("mass", "num_particles"):
            for place, summary in enumerate(sources.values()):
                values = summary.of(name, quantity)
                if not len(values):
                    row.append("–")
                    continue
                error = f" ± {median_error(values):.1f}" if place == 0 else ""
                row.append(f"{np.median(values):.1f}{error}")
        lines.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def median_error(values: Array) -> float:
    """Estimate the statistical error of a median, as for a normal distribution.

    Args:
        values: The sample (N,).

    Returns:
        1.25 times the spread between the quartiles, as a standard deviation, over the root of N.
    """
    low, high = np.percentile(values, [25, 75])
    return float(1.2533 * (high - low) / 1.349 / np.sqrt(len(values)))


def draw(sources: dict[str, Summary]) -> Figure:
    """Draw the comparison, a row for each class.

    Args:
        sources: What to compare, by name; the first is the real one.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(10, 18))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(0.08, 0.03, 0.99, 0.99, wspace=0.25, hspace=0.3)
    axes = figure.subplots(len(CLASSES), len(BINS))
    for row, name in zip(axes, CLASSES, strict=True):
        for axis, (quantity, bins) in zip(row, BINS.items(), strict=True):
            for place, (source, summary) in enumerate(sources.items()):
                _shares(axis, summary.of(name, quantity), bins, source, place)
            axis.set_ylim(bottom=0)
        row[0].set_ylabel(f"{name}\nshare of jets")
    for axis, title in zip(axes[-1], TITLE.values(), strict=True):
        axis.set_xlabel(title)
    axes[0, 0].legend()
    return figure


def _shares(axis: Axes, values: Array, bins: Array, name: str, place: int) -> None:
    """Draw shares of a bin: the real jets as points with errors, the others as lines."""
    count, _ = np.histogram(values, bins)
    share = count / max(len(values), 1)
    if place:
        axis.stairs(share, bins, label=name, color=f"C{place - 1}")
        return
    error = np.sqrt(count) / max(len(values), 1)
    centre, shown = 0.5 * (bins[1:] + bins[:-1]), count > 0
    style = {"fmt": "o", "color": "k", "markersize": 3, "label": name}
    axis.errorbar(centre[shown], share[shown], error[shown], **style)


def main(args: Sequence[str] | None = None) -> None:
    """Draw and print the comparison as the command line asks.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = ArgumentParser(description="Draw simulated jets beside real ones.", allow_abbrev=False)
    parser.add_argument("file", type=Path, help="Real jets in the JetClass layout.")
    parser.add_argument("--out", type=Path, required=True, help="Image file to write.")
    parser.add_argument("--num_shower", type=int, default=20_000, help="Jets of the shower.")
    parser.add_argument(
        "--num_pythia", type=int, default=3_000, help="Jets of Pythia 8, where it is installed."
    )
    parser.add_class_arguments(JetConfig, "config", skip={"generator"})
    options = parser.instantiate(parser.parse_args(args))
    config: JetConfig = options.config
    sources = {
        "real": read_jetclass(options.file),
        "shower": summarise(make_jets(config, options.num_shower)),
    }
    if options.num_pythia and importlib.util.find_spec("pythia8mc"):
        jets = make_jets(replace(config, generator="pythia"), options.num_pythia)
        sources["Pythia 8"] = summarise(jets)
    draw(sources).savefig(options.out, dpi=70)
    print(medians(sources))


if __name__ == "__main__":
    main()
