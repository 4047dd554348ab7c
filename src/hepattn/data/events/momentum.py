"""Four-vectors of objects, from the columns that a file has."""

# J events, P slots

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hepattn.physics.four_vector import azimuth, mass, pseudorapidity, transverse_momentum

CARTESIAN = ("energy", "px", "py", "pz")
POLAR = ("pt", "eta", "phi")


@dataclass(frozen=True)
class Momentum:
    """Columns that hold the momentum of a kind of object.

    Either ``px``, ``py``, ``pz`` and ``energy``; or ``pt``, ``eta``, ``phi`` and one of
    ``energy`` and ``mass``.

    Args:
        px: Column of the momentum along x.
        py: Column of the momentum along y.
        pz: Column of the momentum along the beam.
        energy: Column of the energy.
        pt: Column of the momentum across the beam.
        eta: Column of the pseudorapidity.
        phi: Column of the azimuth in radians.
        mass: Column of the mass, or the mass itself in GeV.
        scale: Factor from the columns' unit to GeV, such as 0.001 for MeV.

    Raises:
        ValueError: If the columns are none of these sets, or a number is out of range.
    """

    px: str | None = None
    py: str | None = None
    pz: str | None = None
    energy: str | None = None
    pt: str | None = None
    eta: str | None = None
    phi: str | None = None
    mass: float | str | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        fields = (*CARTESIAN, *POLAR, "mass")
        given = {name for name in fields if getattr(self, name) is not None}
        if given not in ({*CARTESIAN}, {*POLAR, "energy"}, {*POLAR, "mass"}):
            raise ValueError(
                f"momentum from {', '.join(sorted(given)) or 'nothing'} must be from px, py, pz, "
                "energy, or from pt, eta, phi and one of energy and mass"
            )
        if not isinstance(self.mass, str | None) and self.mass < 0:
            raise ValueError(f"mass={self.mass} must not be negative")
        if self.scale <= 0:
            raise ValueError(f"scale={self.scale} must be positive")

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns."""
        values = (getattr(self, name) for name in (*CARTESIAN, *POLAR, "mass"))
        return frozenset(value for value in values if isinstance(value, str))

    def vectors(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Make four-vectors (E, px, py, pz) in GeV.

        Args:
            columns: At least those of ``columns`` (J, P).

        Returns:
            (J, P, 4) in float64.
        """

        def momentum(name: str | None) -> np.ndarray:
            return columns[name].astype(np.float64) * self.scale

        # Padded slots hold anything; what is not finite at real ones is found by the caller.
        with np.errstate(over="ignore", invalid="ignore"):
            if self.pt is None:
                px, py, pz = momentum(self.px), momentum(self.py), momentum(self.pz)
            else:
                pt = momentum(self.pt)
                eta, phi = (columns[name].astype(np.float64) for name in (self.eta, self.phi))
                px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
            if self.energy is not None:
                energy = momentum(self.energy)
            else:
                own = momentum(self.mass) if isinstance(self.mass, str) else self.mass
                energy = np.sqrt(px**2 + py**2 + pz**2 + np.square(own))
            return np.stack([energy, px, py, pz], -1)


DERIVED: dict[str, Callable[[Tensor], Tensor]] = {
    "energy": lambda vectors: vectors[..., 0],
    "px": lambda vectors: vectors[..., 1],
    "py": lambda vectors: vectors[..., 2],
    "pz": lambda vectors: vectors[..., 3],
    "pt": transverse_momentum,
    "eta": pseudorapidity,
    "phi": azimuth,
    "mass": mass,
}


def derive(vectors: np.ndarray, name: str) -> np.ndarray:
    """Compute a column of four-vectors.

    Args:
        vectors: Four-vectors (J, P, 4) in GeV.
        name: One of ``DERIVED``; energies in GeV, angles in radians.

    Returns:
        (J, P)
    """
    return DERIVED[name](torch.from_numpy(vectors)).numpy()
