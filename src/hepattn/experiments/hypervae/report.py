"""Figures of generated jets, type by type, beside those of true jets against true jets."""

# J jets

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import wasserstein_distance

from hepattn.metrics.energy_mover import coverage_and_matching
from hepattn.metrics.jets import (
    FPD_GRAPHS,
    Estimate,
    JetSample,
    fpd,
    kpd,
    w1_efps,
    w1_mass,
    w1_multiplicity,
    w1_particles,
)

MOST_JETS = 50_000  # of a type, as the published figures have


def mean_distance(
    found: JetSample, true: JetSample, label: np.ndarray, rng: np.random.Generator
) -> dict[str, float]:
    """Distances that a training watches, means over the types of the jets.

    Args:
        found: Generated jets.
        true: True jets of the same types, in the same order.
        label: Number of the type (J).
        rng: Source of the bootstraps.

    Returns:
        ``w1_mass``, ``w1_particles``, ``w1_count``, and ``distance``: the mean of those of mass,
        columns and number in units of the true spreads.
    """
    rows = []
    for kind in np.unique(label):
        a, b = (x.take(np.flatnonzero(label == kind)) for x in (found, true))
        mass = wasserstein_distance(a.mass, b.mass)
        columns = [
            (wasserstein_distance(x, y), y.std())
            for x, y in zip(a.particles[a.valid].T, b.particles[b.valid].T, strict=True)
        ]
        counts = a.valid.sum(1), b.valid.sum(1)
        number = wasserstein_distance(*counts)
        scaled = [mass / max(b.mass.std(), 1e-6), number / max(counts[1].std(), 1.0)]
        scaled += [value / max(spread, 1e-6) for value, spread in columns]
        rows.append((mass, np.mean([value for value, _ in columns]), number, np.mean(scaled)))
    names = ("w1_mass", "w1_particles", "w1_count", "distance")
    return dict(zip(names, np.mean(rows, 0).tolist(), strict=True))


def compare_samples(
    found: JetSample, true: JetSample, rng: np.random.Generator, slow: bool = True
) -> dict[str, Estimate]:
    """Compute what the field quotes.

    Args:
        found: Jets to judge.
        true: True jets.
        rng: Source of the bootstraps.
        slow: Whether to compute the figures of the energy mover's distance, which take longest.
    """
    found, true = (x.take(slice(MOST_JETS)) for x in (found, true))
    particles, columns = w1_particles(found, true, rng)
    features = true.efps(FPD_GRAPHS), found.efps(FPD_GRAPHS)
    figures = {
        "w1_mass": w1_mass(found, true, rng),
        "w1_particles": particles,
        **{f"w1_{name}": value for name, value in zip(("eta", "phi", "pt"), columns, strict=True)},
        "w1_efp": w1_efps(found, true, rng),
        "w1_count": w1_multiplicity(found, true, rng),
        "fpd": fpd(*features, rng),
        "kpd": kpd(*features, rng),
    }
    if slow:
        coverage, matching = coverage_and_matching(true, found, rng)
        figures |= {"coverage": coverage, "matching_distance": matching}
    return figures


def print_comparison(title: str, columns: Mapping[str, Mapping[str, Estimate]]) -> None:
    """Print figures as a table.

    Args:
        title: What they are of.
        columns: Figures by name, by what was compared.
    """
    table = Table("figure", *columns, title=title)
    for name in next(iter(columns.values())):
        cells = [f"{row[name].value:.3g} ± {row[name].error:.1g}" for row in columns.values()]
        table.add_row(name, *cells)
    Console(width=120).print(table)


def plain(figures: Mapping[str, Mapping[str, Mapping[str, Estimate]]]) -> dict[str, Any]:
    """Figures by type, comparison and name as they are written to a file."""
    return {
        kind: {column: {n: vars(e) for n, e in row.items()} for column, row in columns.items()}
        for kind, columns in figures.items()
    }


def types_of(label: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Rows of the jets of each type that there is, by name."""
    rows = {name: np.flatnonzero(label == number) for number, name in enumerate(classes)}
    return {name: found for name, found in rows.items() if len(found)}
