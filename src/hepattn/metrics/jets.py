"""What the field quotes of generated jets: distances between two samples of jets (numpy, scipy).

Definitions as those of the jetnet library, with our own energy flow polynomials: W1M, W1P and W1EFP
(arXiv:2106.11535), FPD and KPD (arXiv:2211.10295), coverage and minimum matching distance. Every
figure means something only beside that of two true samples of the same size.
"""

# J jets, N particles, C columns, E polynomials, K bootstraps

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg
from scipy.optimize import curve_fit
from scipy.stats import iqr, wasserstein_distance

from hepattn.physics.correlators import pair_distances
from hepattn.physics.energy_flow import (
    all_graphs,
    connected_graphs,
    energy_flow_polynomials,
    num_vertices,
)

Array = NDArray[np.floating]
Index = NDArray[np.integer]

W1EFP_GRAPHS = tuple((graph,) for graph in connected_graphs(4) if num_vertices(graph) == 4)
"""The five connected graphs of four vertices and four edges."""
FPD_GRAPHS = all_graphs(4)
"""All 36 graphs of up to four edges."""
CHUNK = 2000  # jets whose polynomials are computed at once


@dataclass(frozen=True)
class Estimate:
    """A figure and how far it scatters.

    Args:
        value: The figure.
        error: Its standard deviation over bootstraps, or the error of a fit.
    """

    value: float
    error: float


@dataclass(frozen=True)
class JetSample:
    """Jets as the metrics see them: particles relative to their jet.

    Args:
        particles: Columns etarel, phirel and ptrel (J, N, 3).
        valid: True for real particles (J, N).
        mass: Mass over transverse momentum of each jet (J).
    """

    particles: Array
    valid: NDArray[np.bool_]
    mass: Array

    def __len__(self) -> int:
        return len(self.valid)

    def take(self, jets: NDArray[np.integer] | slice) -> "JetSample":
        """Select jets."""
        return JetSample(self.particles[jets], self.valid[jets], self.mass[jets])

    def efps(self, graphs: tuple = FPD_GRAPHS) -> Array:
        """Energy flow polynomials of the jets (J, E), with β = 1 and shares of the jet's pT."""
        parts = []
        for start in range(0, len(self), CHUNK):
            eta, phi, pt = torch.from_numpy(
                np.ascontiguousarray(self.particles[start : start + CHUNK].astype(np.float32))
            ).unbind(-1)
            shares = pt * torch.from_numpy(self.valid[start : start + CHUNK])
            parts.append(energy_flow_polynomials(shares, pair_distances(eta, phi), graphs).numpy())
        return np.concatenate(parts).astype(np.float64)


def w1_mass(
    first: JetSample, second: JetSample, rng: np.random.Generator, num: int = 5
) -> Estimate:
    """W1M: distance of the relative masses.

    Args:
        first: One sample.
        second: The other one.
        rng: Source of the bootstraps.
        num: Number K of bootstraps, each of as many jets as the smaller sample has.
    """
    return _bootstrapped(
        lambda a, b: wasserstein_distance(first.mass[a], second.mass[b]), first, second, rng, num
    )


def w1_particles(
    first: JetSample, second: JetSample, rng: np.random.Generator, num: int = 5
) -> tuple[Estimate, tuple[Estimate, ...]]:
    """W1P: distances of the three columns of all particles; arguments as in ``w1_mass``.

    Returns:
        Their mean, and each of etarel, phirel and ptrel.
    """
    columns = []
    for column in range(3):

        def distance(a: Index, b: Index, column: int = column) -> float:
            return wasserstein_distance(
                first.particles[a, :, column][first.valid[a]],
                second.particles[b, :, column][second.valid[b]],
            )

        columns.append(_bootstrapped(distance, first, second, rng, num))
    return _mean(columns), tuple(columns)


def w1_efps(
    first: JetSample, second: JetSample, rng: np.random.Generator, num: int = 5
) -> Estimate:
    """W1EFP: mean distance of five energy flow polynomials; arguments as in ``w1_mass``."""
    values = first.efps(W1EFP_GRAPHS), second.efps(W1EFP_GRAPHS)  # (J, 5) each
    columns = []
    for column in range(len(W1EFP_GRAPHS)):

        def distance(a: Index, b: Index, column: int = column) -> float:
            return wasserstein_distance(values[0][a, column], values[1][b, column])

        columns.append(_bootstrapped(distance, first, second, rng, num))
    return _mean(columns)


def w1_multiplicity(
    first: JetSample, second: JetSample, rng: np.random.Generator, num: int = 5
) -> Estimate:
    """Distance of the numbers of particles, in particles; arguments as in ``w1_mass``."""
    counts = first.valid.sum(1), second.valid.sum(1)
    return _bootstrapped(
        lambda a, b: wasserstein_distance(counts[0][a], counts[1][b]), first, second, rng, num
    )


def frechet_distance(first: Array, second: Array) -> float:
    """Squared distance |μ - μ'|² + tr(Σ + Σ' - 2 √(Σ Σ')) of two normal distributions.

    Args:
        first: Features of one sample (J, C).
        second: Those of the other one.
    """
    means = first.mean(0) - second.mean(0)
    covariances = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (first, second)]
    # The trace of √(Σ Σ') is the sum of the roots of the eigenvalues, all real and not negative.
    eigenvalues = linalg.eigvals(covariances[0] @ covariances[1]).real
    root = np.sqrt(np.maximum(eigenvalues, 0.0)).sum()
    return float(means @ means + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root)


def fpd(
    true: Array,
    found: Array,
    rng: np.random.Generator,
    min_size: int = 20_000,
    max_size: int = 50_000,
    num_sizes: int = 10,
    num_batches: int = 20,
) -> Estimate:
    """FPD: the Fréchet distance of features, extrapolated to infinitely many jets.

    A line in one over the number of jets is fitted to the distances of samples of several sizes.

    Args:
        true: Features of true jets (J, C), such as energy flow polynomials.
        found: Features of generated jets.
        rng: Source of the samples.
        min_size: Smallest number of jets of a sample, if there are as many.
        max_size: Largest one.
        num_sizes: Number of sizes, evenly spaced in one over the size.
        num_batches: Number of samples of each size, with replacement.

    Returns:
        The distance and the error of the fit.
    """
    true, found = scale_features(true, found)
    max_size = min(max_size, len(true), len(found))
    min_size = min(min_size, max(max_size * 2 // 5, 2))
    inverse = np.linspace(1 / max_size, 1 / min_size, num_sizes)
    values = []
    for size in (1 / inverse).astype(int):
        picked = (
            (rng.integers(len(x), size=size) for x in (true, found)) for _ in range(num_batches)
        )
        values.append(np.mean([frechet_distance(true[a], found[b]) for a, b in picked]))
    (intercept, _), covariance = curve_fit(lambda x, a, b: a + b * x, inverse, values)
    return Estimate(float(intercept), float(np.sqrt(covariance[0, 0])))


def kpd(
    true: Array,
    found: Array,
    rng: np.random.Generator,
    batch_size: int = 5000,
    num_batches: int = 10,
) -> Estimate:
    """KPD: the squared maximum mean discrepancy of features with a polynomial kernel of degree 4.

    Args:
        true: Features of true jets (J, C).
        found: Features of generated jets.
        rng: Source of the samples.
        batch_size: Jets of a sample.
        num_batches: Number of samples.

    Returns:
        Median over the samples and half their interquartile range, which is that for samples of
        this size.
    """
    true, found = scale_features(true, found)
    size = min(batch_size, len(true), len(found))
    values = []
    for _ in range(num_batches):
        a, b = (x[rng.choice(len(x), size, replace=False)] for x in (true, found))
        values.append(_squared_discrepancy(a, b))
    return Estimate(float(np.median(values)), float(iqr(values) / 2))


def scale_features(true: Array, found: Array) -> tuple[Array, Array]:
    """Divide each feature by its largest absolute value among the true jets."""
    largest = np.abs(true).max(0)
    largest = np.where(largest > 0, largest, 1.0)
    return true / largest, found / largest


def _squared_discrepancy(a: Array, b: Array) -> float:
    """Unbiased estimate with the kernel (x y / C + 1)⁴."""
    num_features, n, m = a.shape[1], len(a), len(b)

    def kernel(x: Array, y: Array) -> Array:
        return np.square(np.square(x @ y.T / num_features + 1))  # ** 4 takes minutes

    aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
    same_a = (aa.sum() - np.trace(aa)) / (n * (n - 1))
    same_b = (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(same_a + same_b - 2 * ab.mean())


def _bootstrapped(
    distance: Callable[[Index, Index], float],
    first: JetSample,
    second: JetSample,
    rng: np.random.Generator,
    num: int,
) -> Estimate:
    size = min(len(first), len(second))
    values = [
        distance(rng.integers(len(first), size=size), rng.integers(len(second), size=size))
        for _ in range(num)
    ]
    return spread(values)


def _mean(estimates: list[Estimate]) -> Estimate:
    errors = np.array([x.error for x in estimates])
    value = float(np.mean([x.value for x in estimates]))
    return Estimate(value, float(np.sqrt(np.square(errors).sum()) / len(errors)))


def spread(values: list[float]) -> Estimate:
    """Mean and standard deviation of values."""
    return Estimate(float(np.mean(values)), float(np.std(values)))
