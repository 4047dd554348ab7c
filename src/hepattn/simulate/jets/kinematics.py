"""Boosts, rotations and isotropic decays of many particles at once (numpy)."""

# P particles, n daughters of a decay; four-vectors are (E, px, py, pz) in GeV

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]


def mass_of(momentum: Array) -> Array:
    """Give the invariant mass.

    Args:
        momentum: Four-momenta in GeV (..., 4).

    Returns:
        Masses in GeV (...); 0 where rounding makes the square negative.
    """
    square = momentum[..., 0] ** 2 - (momentum[..., 1:] ** 2).sum(-1)
    return np.sqrt(np.maximum(square, 0.0))


def boost(momentum: Array, frame: Array) -> Array:
    """Carry momenta from the rest frame of ``frame`` into the frame where it is given.

    Args:
        momentum: Four-momenta in GeV (P, 4).
        frame: Four-momenta of massive systems in GeV (P, 4).

    Returns:
        Four-momenta in GeV (P, 4).
    """
    mass = mass_of(frame)
    along = (momentum[:, 1:] * frame[:, 1:]).sum(-1)
    energy = (momentum[:, 0] * frame[:, 0] + along) / mass
    factor = (momentum[:, 0] + energy) / (frame[:, 0] + mass)
    return np.column_stack([energy, momentum[:, 1:] + factor[:, None] * frame[:, 1:]])


def rotate(vectors: Array, axis: Array) -> Array:
    """Turn vectors so that the z axis becomes a given one.

    Args:
        vectors: Vectors in a frame whose z axis is ``axis`` (P, 3).
        axis: Unit vectors (P, 3).

    Returns:
        The vectors in the frame of the axes (P, 3).
    """
    x, y, z = axis.T
    # An orthonormal basis without a branch at the poles: Duff et al., JCGT 6 (2017) 1.
    sign = np.copysign(1.0, z)
    a = -1.0 / (sign + z)
    b = x * y * a
    first = np.stack([1.0 + sign * x * x * a, sign * b, -sign * x], axis=-1)
    second = np.stack([b, sign + y * y * a, -y], axis=-1)
    return vectors[:, :1] * first + vectors[:, 1:2] * second + vectors[:, 2:] * axis


def isotropic(num: int, rng: np.random.Generator) -> Array:
    """Draw directions.

    Args:
        num: How many.
        rng: Source of randomness.

    Returns:
        Unit vectors (num, 3).
    """
    cosine = rng.uniform(-1.0, 1.0, num)
    phi = rng.uniform(-np.pi, np.pi, num)
    sine = np.sqrt(1.0 - cosine**2)
    return np.stack([sine * np.cos(phi), sine * np.sin(phi), cosine], axis=-1)


def two_body_momentum(mass: ArrayLike, first: ArrayLike, second: ArrayLike) -> Array:
    """Give the momentum of the two daughters in the rest frame of their parent.

    Args:
        mass: Mass of the parent in GeV.
        first: Mass of one daughter in GeV.
        second: Mass of the other in GeV.

    Returns:
        Momentum in GeV; 0 where the decay is not possible.
    """
    mass, first, second = np.asarray(mass), np.asarray(first), np.asarray(second)
    product = (mass**2 - (first + second) ** 2) * (mass**2 - (first - second) ** 2)
    return np.sqrt(np.maximum(product, 0.0)) / (2.0 * mass)


def two_body_decay(
    parent: Array, first: ArrayLike, second: ArrayLike, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Let particles decay isotropically into two.

    Args:
        parent: Four-momenta in GeV (P, 4).
        first: Mass of one daughter in GeV, () or (P,).
        second: Mass of the other in GeV, () or (P,).
        rng: Source of randomness.

    Returns:
        Four-momenta of the two daughters in GeV, (P, 4) each.
    """
    size = two_body_momentum(mass_of(parent), first, second)
    energy = np.sqrt(size**2 + np.square(first))
    one = np.column_stack([energy, size[:, None] * isotropic(len(parent), rng)])
    one = boost(one, parent)
    return one, parent - one


def decay(parent: Array, masses: ArrayLike, rng: np.random.Generator) -> Array:
    """Let particles decay into several, by a chain of isotropic two-body decays.

    The masses between are drawn evenly, without the weight of exact phase space.

    Args:
        parent: Four-momenta in GeV (P, 4).
        masses: Masses of the daughters in GeV (n,), with a sum below the parents' mass.
        rng: Source of randomness.

    Returns:
        Four-momenta of the daughters in GeV (P, n, 4).
    """
    masses = np.asarray(masses, dtype=float)
    num = len(masses)
    free = mass_of(parent) - masses.sum()
    steps = np.sort(rng.uniform(size=(len(parent), num - 2)), axis=1)
    between = masses.cumsum()[1:-1] + steps * free[:, None]  # (P, n - 2)
    daughters = np.empty((len(parent), num, 4))
    rest = parent
    for last in range(num - 1, 0, -1):
        first = between[:, last - 2] if last > 1 else masses[0]
        rest, daughters[:, last] = two_body_decay(rest, first, masses[last], rng)
    daughters[:, 0] = rest
    return daughters


def directions(momentum: Array) -> tuple[Array, Array]:
    """Give pseudorapidity and azimuth.

    Args:
        momentum: Four-momenta in GeV (..., 4).

    Returns:
        eta and phi in radians (...).
    """
    x, y, z = momentum[..., 1], momentum[..., 2], momentum[..., 3]
    return np.arcsinh(z / np.maximum(np.hypot(x, y), 1e-12)), np.arctan2(y, x)


def distance(eta: Array, phi: Array, other_eta: Array, other_phi: Array) -> Array:
    """Give the distance in the plane of eta and phi.

    Args:
        eta: Pseudorapidity.
        phi: Azimuth in radians.
        other_eta: Pseudorapidity of the other.
        other_phi: Azimuth of the other.

    Returns:
        The distance, with phi wrapped.
    """
    return np.hypot(eta - other_eta, (phi - other_phi + np.pi) % (2 * np.pi) - np.pi)
