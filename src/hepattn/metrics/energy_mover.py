"""Coverage and matching of generated jets by the energy mover's distance between jets."""

# J jets, N particles, Q quanta

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from hepattn.metrics.jets import Estimate, JetSample, spread

Array = NDArray[np.floating]


def coverage_and_matching(
    true: JetSample,
    found: JetSample,
    rng: np.random.Generator,
    num_jets: int = 100,
    num_batches: int = 10,
) -> tuple[Estimate, Estimate]:
    """COV and MMD by the energy mover's distance (arXiv:1902.02346) between jets.

    Args:
        true: True jets.
        found: Generated ones.
        rng: Source of the samples.
        num_jets: Jets of a sample.
        num_batches: Number of samples.

    Returns:
        COV, the share of true jets that are nearest to some generated jet, and MMD, the mean over
        true jets of the distance to the nearest generated one.
    """
    coverage, matching = [], []
    for _ in range(num_batches):
        a, b = (
            x.take(rng.choice(len(x), min(num_jets, len(x)), replace=False)) for x in (true, found)
        )
        distance = energy_movers_distances(a, b)  # (true, found)
        coverage.append(len(np.unique(distance.argmin(0))) / len(a))
        matching.append(distance.min(1).mean())
    return spread(coverage), spread(matching)


def energy_movers_distances(first: JetSample, second: JetSample, num_quanta: int = 40) -> Array:
    """Work to turn the energy flow of one jet into that of another, for all pairs.

    Each jet's pT is divided into equal quanta, which are then matched one to one.

    Args:
        first: Jets.
        second: Jets.
        num_quanta: Number of quanta; each misplaces at most its share of the pT.

    Returns:
        (J, J'), in units of the relative transverse momentum.
    """
    quanta = [_quanta(sample, num_quanta) for sample in (first, second)]
    distances = np.empty((len(first), len(second)))
    for row, a in enumerate(quanta[0]):
        delta = a[None, :, None] - quanta[1][:, None]  # (J', Q, Q, 2)
        cost = np.sqrt(np.square(delta).sum(-1))
        for column, one in enumerate(cost):
            distances[row, column] = one[linear_sum_assignment(one)].mean()
    return distances


def _quanta(sample: JetSample, num: int) -> Array:
    """Places of the quanta of each jet (J, num, 2): quantiles of pT along the particles."""
    pt = sample.particles[..., 2] * sample.valid
    cumulated = np.cumsum(pt, 1) / np.maximum(pt.sum(1, keepdims=True), 1e-12)
    levels = (np.arange(num) + 0.5) / num
    place = (cumulated[:, None] < levels[None, :, None]).sum(-1)  # (J, num)
    place = np.minimum(place, pt.shape[1] - 1)
    return np.take_along_axis(sample.particles[..., :2], place[..., None], 1)
