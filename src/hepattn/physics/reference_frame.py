"""Reference vectors of a jet, and momenta on the mass shell, both covariant.

A *tetrad* is four vectors that are orthonormal in the Minkowski product: one along time and three
in space. Functions of them and of other vectors that use Minkowski products alone commute with
boosts and rotations of all their inputs together.
"""

# ...: any leading dimensions

import torch
from torch import Tensor

from hepattn.physics.four_vector import FLOOR

METRIC = (1.0, -1.0, -1.0, -1.0)


def minkowski_product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply four-vectors, E E' - p p'.

    Args:
        a: Four-vectors (..., 4).
        b: Four-vectors of a shape that broadcasts with theirs.

    Returns:
        (...)
    """
    return (a * b * a.new_tensor(METRIC)).sum(-1)


def jet_tetrad(jet: Tensor) -> Tensor:
    """Give the directions that a jet, the beam and time define.

    Args:
        jet: Four-vectors of jets in GeV (..., 4), timelike or lightlike, not along the beam.

    Returns:
        (..., 4, 4), the vectors in the second last dimension: time in the frame, boosted along
        the beam, where the jet's momentum is transverse; the direction of its transverse momentum;
        the direction of growing azimuth; the beam in that frame.
    """
    energy, px, py, pz = jet.unbind(-1)
    pt = torch.hypot(px, py).clamp(min=FLOOR)
    transverse_mass = ((energy - pz) * (energy + pz)).clamp(min=FLOOR**2).sqrt()
    cos, sin, sinh = px / pt, py / pt, pz / transverse_mass
    cosh = (1 + sinh.square()).sqrt()
    zero = torch.zeros_like(energy)
    rows = (
        (cosh, zero, zero, sinh),
        (zero, cos, sin, zero),
        (zero, -sin, cos, zero),
        (sinh, zero, zero, cosh),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)  # (..., 4, 4)


def components(vectors: Tensor, tetrad: Tensor) -> Tensor:
    """Give the components of vectors along a tetrad: what an observer in that frame measures.

    Args:
        vectors: Four-vectors (..., N, 4).
        tetrad: The frame (..., 4, 4).

    Returns:
        (..., N, 4), invariant under boosts and rotations of vectors and tetrad together.
    """
    metric = vectors.new_tensor(METRIC)
    return (vectors * metric) @ tetrad.mT * metric


def compose(parts: Tensor, tetrad: Tensor) -> Tensor:
    """Make vectors of their components along a tetrad; the inverse of ``components``.

    Args:
        parts: Components (..., N, 4).
        tetrad: The frame (..., 4, 4).

    Returns:
        Four-vectors (..., N, 4).
    """
    return parts @ tetrad


def project_to_shell(vectors: Tensor, time: Tensor, mass: float = 0.0) -> Tensor:
    """Shift vectors along time until they are on the mass shell with positive energy.

    p' = p + λ t with p'² = m² and p' t > 0. For time (1, 0, 0, 0) it sets E = √(|p|² + m²); set in
    the laboratory alone it would break the symmetry, along a given direction of time it commutes
    with boosts and rotations of both.

    Args:
        vectors: Four-vectors in GeV (..., 4), on or off the shell.
        time: Unit vectors along time (..., 4), of a shape that broadcasts with theirs.
        mass: Mass m in GeV.

    Returns:
        (..., 4); where the momentum is zero its gradient is, too.
    """
    energy = minkowski_product(vectors, time)  # (...)
    momentum = vectors - energy.unsqueeze(-1) * time
    squared = -minkowski_product(momentum, momentum) + mass**2
    at_rest = squared <= 0
    on_shell = squared.masked_fill(at_rest, 1.0).sqrt().masked_fill(at_rest, 0.0)
    return momentum + on_shell.unsqueeze(-1) * time
