"""Jets that any generator must beat: particles drawn one by one."""

# J jets, N particles

import numpy as np

from hepattn.experiments.hypervae.sample import from_columns
from hepattn.metrics.jets import JetSample


def resample_particles(jets: JetSample, num_jets: int, rng: np.random.Generator) -> JetSample:
    """Make jets of independent particles with the right marginal distributions.

    The number of particles is that of some jet, and each particle that of any jet: all that the
    particles of a jet have to do with each other is lost.

    Args:
        jets: True jets of one type.
        num_jets: How many to make.
        rng: Source of randomness.
    """
    pool = jets.particles[jets.valid]  # (particles, 3)
    counts = rng.choice(jets.valid.sum(1), num_jets)
    valid = np.arange(jets.valid.shape[1]) < counts[:, None]
    particles = np.zeros((*valid.shape, 3))
    particles[valid] = pool[rng.integers(len(pool), size=int(valid.sum()))]
    return from_columns(particles, valid)
