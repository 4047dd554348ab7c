"""Decays of unstable particles, with lifetimes."""

# P particles

import numpy as np

from hepattn.simulate.jets.kinematics import Array, decay, mass_of
from hepattn.simulate.jets.particles import (
    SELF_CONJUGATE,
    SPECIES,
    Particles,
    draw,
    join,
    masses,
)

CHANNELS: dict[int, tuple[tuple[float, tuple[int, ...]], ...]] = {
    111: ((1.0, (22, 22)),),
    113: ((1.0, (211, -211)),),
    213: ((1.0, (211, 111)),),
    221: ((0.40, (22, 22)), (0.33, (111, 111, 111)), (0.27, (211, -211, 111))),
    223: ((0.91, (211, -211, 111)), (0.09, (111, 22))),
    310: ((0.69, (211, -211)), (0.31, (111, 111))),
    313: ((0.66, (321, -211)), (0.17, (310, 111)), (0.17, (130, 111))),
    323: ((0.34, (321, 111)), (0.33, (310, 211)), (0.33, (130, 211))),
    3122: ((0.64, (2212, -211)), (0.36, (2112, 111))),
    411: (
        (0.17, (-11, 12, -313)),
        (0.17, (-13, 14, -313)),
        (0.30, (-321, 211, 211)),
        (0.12, (-321, 211, 211, 111)),
        (0.12, (310, 211, 111)),
        (0.12, (130, 211, 211, -211)),
    ),
    421: (
        (0.065, (-11, 12, -323)),
        (0.065, (-13, 14, -323)),
        (0.24, (-321, 211, 111)),
        (0.23, (-321, 211, 211, -211)),
        (0.10, (-321, 211, 111, 111)),
        (0.15, (310, 211, -211, 111)),
        (0.15, (130, 211, -211)),
    ),
    431: (
        (0.07, (-11, 12, 221)),
        (0.07, (-13, 14, 221)),
        (0.40, (321, -321, 211)),
        (0.26, (221, 211, 111)),
        (0.20, (321, 310, 211, -211)),
    ),
    4122: (
        (0.05, (-11, 12, 3122)),
        (0.05, (-13, 14, 3122)),
        (0.35, (2212, -321, 211)),
        (0.20, (3122, 211, 111)),
        (0.15, (3122, 211, 211, -211)),
        (0.20, (2112, 310, 211)),
    ),
    511: (
        (0.12, (-11, 12, -411)),
        (0.12, (-13, 14, -411)),
        (0.12, (-411, 211, 111)),
        (0.12, (-411, 211, 211, -211)),
        (0.15, (-421, 211, -211, 111)),
        (0.20, (-421, 211, 211, -211, -211)),
        (0.17, (-411, 211, 211, -211, 111)),
    ),
    521: (
        (0.12, (-11, 12, -421)),
        (0.12, (-13, 14, -421)),
        (0.14, (-421, 211, 111)),
        (0.22, (-421, 211, 211, -211)),
        (0.20, (-411, 211, 211, 111)),
        (0.20, (-421, 211, 211, -211, 111)),
    ),
    531: (
        (0.12, (-11, 12, -431)),
        (0.12, (-13, 14, -431)),
        (0.26, (-431, 211, 111)),
        (0.26, (-431, 211, 211, -211)),
        (0.24, (-431, 211, 211, -211, 111)),
    ),
    5122: (
        (0.10, (11, -12, 4122)),
        (0.10, (13, -14, 4122)),
        (0.30, (4122, -211, 111)),
        (0.30, (4122, -211, -211, 211)),
        (0.20, (4122, -211, -211, 211, 111)),
    ),
}
"""Decays, with their shares: a few that stand for all, with about the right multiplicities."""
MAX_FLIGHT = 1000.0
"""A particle that flies farther than this from the beam line in mm is stable."""


def decay_all(particles: Particles, rng: np.random.Generator) -> Particles:
    """Let unstable particles decay until none is left.

    Args:
        particles: Any particles of ``SPECIES``.
        rng: Source of randomness.

    Returns:
        Stable particles; those of decays come from where their parents ended.
    """
    done, current = [], particles
    while len(current.jet):
        kind = np.abs(current.pdg_id)
        stable = np.ones(len(kind), dtype=bool)
        fresh = []
        for code, channels in CHANNELS.items():
            found = np.flatnonzero(kind == code)
            if not len(found):
                continue
            end = _fly(current.take(found), SPECIES[code].lifetime, rng)
            inside = np.hypot(end[:, 0], end[:, 1]) < MAX_FLIGHT
            found, end = found[inside], end[inside]
            stable[found] = False
            channel = draw((share for share, _ in channels), len(found), rng)
            for number, (_, daughters) in enumerate(channels):
                some = channel == number
                fresh.append(_split(current.take(found[some]), end[some], daughters, rng))
        done.append(current.take(stable))
        current = join(fresh) if fresh else current.take(np.array([], dtype=int))
    return join([particles.take(np.array([], dtype=int)), *done])


def _fly(parents: Particles, lifetime: float, rng: np.random.Generator) -> Array:
    """Give the points (mm) where particles decay."""
    if not lifetime:
        return parents.vertex
    path = lifetime * rng.exponential(size=len(parents.jet)) / mass_of(parents.momentum)
    return parents.vertex + path[:, None] * parents.momentum[:, 1:]


def _split(
    parents: Particles, end: Array, daughters: tuple[int, ...], rng: np.random.Generator
) -> Particles:
    codes = np.array(daughters)
    momentum = decay(parents.momentum, masses(codes), rng)  # (P, n, 4)
    # The decays of antiparticles are those of particles, mirrored.
    sign = np.where(np.isin(codes, SELF_CONJUGATE), 1, np.sign(parents.pdg_id)[:, None])
    codes = sign * codes
    num = len(daughters)
    return Particles(
        np.repeat(parents.jet, num),
        codes.reshape(-1),
        momentum.reshape(-1, 4),
        np.repeat(end, num, axis=0),
    )
