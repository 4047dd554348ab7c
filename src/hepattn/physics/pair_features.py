"""What two particles have in common: the inputs of a pairwise attention bias.

The first five are symmetric in the two particles. They do not change under boosts along the beam
nor under rotations about it, and neither do ``delta_rapidity``, ``delta_phi`` and ``pt_ratio``.
"""

# ...: any dimensions that broadcast

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from hepattn.physics.four_vector import FLOOR, azimuth, delta_phi, rapidity

PairFeature = Literal[
    "kt",
    "z",
    "delta_r",
    "m2",
    "ds2",
    "cos_theta",
    "delta_rapidity",
    "delta_phi",
    "cos_angle",
    "sin_angle",
    "kt_angle",
    "z_momentum",
    "jade",
    "pt_ratio",
]
PAIR_FEATURES: tuple[PairFeature, ...] = get_args(PairFeature)
PairTransform = Literal["log", "log1p"]

SYMMETRIC = frozenset(PAIR_FEATURES) - {"cos_theta", "delta_rapidity", "delta_phi", "pt_ratio"}
# Angles and their cosines and sines are inputs as they are; of the others the logarithm is taken.
ANGLES = frozenset({"cos_theta", "delta_rapidity", "delta_phi", "cos_angle", "sin_angle"})


class Kinematics(NamedTuple):
    """What is computed once a particle, each (...): GeV and radians.

    Attributes:
        energy: Energy.
        px: Momentum along x.
        py: Momentum along y.
        pz: Momentum along the beam.
        pt: Momentum across the beam.
        y: Rapidity.
        phi: Azimuth.
    """

    energy: Tensor
    px: Tensor
    py: Tensor
    pz: Tensor
    pt: Tensor
    y: Tensor
    phi: Tensor

    def momentum(self) -> Tensor:
        """The three momentum components (3, ...)."""
        return torch.stack([self.px, self.py, self.pz])


def kinematics(vectors: Tensor) -> Kinematics:
    """Compute once a particle what all its pairs need, from four-vectors (..., 4)."""
    energy, px, py, pz = (x.contiguous() for x in vectors.unbind(-1))
    pt = (px * px + py * py).sqrt()
    return Kinematics(energy, px, py, pz, pt, rapidity(vectors), azimuth(vectors))


def pair_features(
    a: Kinematics,
    b: Kinematics,
    names: tuple[PairFeature, ...] = PAIR_FEATURES[:4],
    transform: PairTransform = "log",
) -> Tensor:
    """Compute features of pairs of particles.

    By name: ``kt`` = min(pt) ΔR, ``z`` = min(pt) / (pt_a + pt_b), ``delta_r`` = ΔR with
    ΔR² = Δy² + Δφ², ``m2``, the squared mass of the pair, ``ds2`` = -(a - b)², ``cos_theta``
    between the pair and b in the rest frame of the pair, ``delta_rapidity``, ``delta_phi``, the
    cosine and sine of the opening angle, ``kt_angle`` = min(p) times that sine,
    ``z_momentum`` = min(p) / (p_a + p_b), ``jade`` = E_a E_b (1 - cos) and
    ``pt_ratio`` = pt_a / pt_b. Of all but the angles and their functions, the logarithm is taken.

    Args:
        a: First particles (...).
        b: Second particles, of a shape that broadcasts with theirs.
        names: Which features, in this order.
        transform: ``log`` with a floor of 1e-8, as published for ParT, or ``log1p``.

    Returns:
        (features, ...); without a finite gradient for two particles at one place.
    """
    columns = _Pair(a, b)
    return torch.stack([_transform(getattr(columns, name)(), name, transform) for name in names])


def _transform(x: Tensor, name: PairFeature, transform: PairTransform) -> Tensor:
    if name in ANGLES:
        return x
    x = x.clamp(min=FLOOR)
    return x.log() if transform == "log" else x.log1p()


class _Pair:
    """The features by name; what several of them need is computed once."""

    def __init__(self, a: Kinematics, b: Kinematics) -> None:
        self.a, self.b = a, b
        self.min_pt = torch.minimum(a.pt, b.pt)
        self._distance: Tensor | None = None

    def delta_r(self) -> Tensor:
        if self._distance is None:
            squared = self.delta_rapidity().square() + self.delta_phi().square()
            self._distance = squared.sqrt()
        return self._distance

    def kt(self) -> Tensor:
        return self.min_pt * self.delta_r()

    def z(self) -> Tensor:
        return self.min_pt / (self.a.pt + self.b.pt).clamp(min=FLOOR)

    def m2(self) -> Tensor:
        return _square(_add(self.a, self.b))

    def ds2(self) -> Tensor:
        return -_square(tuple(x - y for x, y in zip(self.a[:4], self.b[:4], strict=True)))

    def cos_theta(self) -> Tensor:
        energy, *total = _add(self.a, self.b)
        total = torch.stack(total)  # (3, ...)
        velocity = -total / energy.clamp(min=FLOOR)
        v2 = velocity.square().sum(0)
        gamma = (1 - v2).clamp(min=FLOOR).rsqrt()
        # (gamma - 1) / v², without dividing by zero in a pair at rest.
        along = (gamma - 1) / torch.where(v2 > 0, v2, 1.0)
        momentum = self.b.momentum()
        shift = along * (velocity * momentum).sum(0) + gamma * self.b.energy
        return (_direction(momentum + shift * velocity) * _direction(total)).sum(0)

    def delta_rapidity(self) -> Tensor:
        return self.a.y - self.b.y

    def delta_phi(self) -> Tensor:
        return delta_phi(self.a.phi, self.b.phi)

    def cos_angle(self) -> Tensor:
        a, b = _direction(self.a.momentum()), _direction(self.b.momentum())
        return (a * b).sum(0).clamp(-1, 1)

    def sin_angle(self) -> Tensor:
        a, b = _direction(self.a.momentum()), _direction(self.b.momentum())
        cross = a.roll(-1, 0) * b.roll(-2, 0) - a.roll(-2, 0) * b.roll(-1, 0)  # (3, ...)
        return cross.square().sum(0).sqrt().clamp(max=1)

    def kt_angle(self) -> Tensor:
        return torch.minimum(*self._momenta()) * self.sin_angle()

    def z_momentum(self) -> Tensor:
        a, b = self._momenta()
        return torch.minimum(a, b) / (a + b).clamp(min=FLOOR)

    def jade(self) -> Tensor:
        return self.a.energy * self.b.energy * (1 - self.cos_angle())

    def pt_ratio(self) -> Tensor:
        return self.a.pt.clamp(min=FLOOR) / self.b.pt.clamp(min=FLOOR)

    def _momenta(self) -> tuple[Tensor, Tensor]:
        """Absolute momenta of the two particles."""
        a, b = ((x.pt.square() + x.pz.square()).sqrt() for x in (self.a, self.b))
        return a, b


def _add(a: Kinematics, b: Kinematics) -> tuple[Tensor, ...]:
    return tuple(x + y for x, y in zip(a[:4], b[:4], strict=True))


def _square(vector: tuple[Tensor, ...]) -> Tensor:
    """E² - p² as published: what is left of it for massless particles is rounding.

    Published weights were trained with this order of the terms, and the logarithm makes rounding
    visible: the pair of a particle with itself is not at the floor in float32.
    """
    energy, px, py, pz = vector
    return energy.square() - (px.square() + py.square() + pz.square())


def _direction(momentum: Tensor) -> Tensor:
    """Unit vectors of momenta (3, ...)."""
    return momentum / momentum.square().sum(0).sqrt().clamp(min=FLOOR)
