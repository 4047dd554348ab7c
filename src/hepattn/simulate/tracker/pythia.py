"""Primary particles from Pythia 8 minimum-bias collisions (extra ``generators``)."""

# P particles, V collisions

import importlib
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from hepattn.physics.coordinates import pseudorapidity
from hepattn.simulate.tracker.config import TrackerConfig

Array = NDArray[np.floating]
Index = NDArray[np.integer]

SETTINGS = (
    "Print:quiet = on",
    "Beams:eCM = 14000.",
    "SoftQCD:inelastic = on",
    # Decays outside the tracker are left to nobody: such particles count as stable.
    "ParticleDecays:limitCylinder = on",
    "ParticleDecays:xyMax = 1020.",
    "ParticleDecays:zMax = 2950.",
    "Random:setSeed = on",
)
TRACKED = (11, 13, 211, 321, 2212)
"""PDG codes of the charged particles that live long enough to be tracked."""
MAX_EMPTY = 1000


def load_pythia() -> ModuleType:
    """Import Pythia 8.

    Returns:
        The module.

    Raises:
        ImportError: If the extra is not installed.
    """
    try:
        return importlib.import_module("pythia8mc")
    except ImportError as error:
        raise ImportError(
            "generator='pythia8' needs pythia8mc, which is not installed: it comes with the extra "
            "'generators', pip install 'hepattn[generators]'; or choose generator='gun'"
        ) from error


def pythia_primaries(
    config: TrackerConfig, num: int, points: Array, rng: np.random.Generator
) -> tuple[Index, Index, Array, Array]:
    """Overlay collisions until enough charged particles are within acceptance.

    Pythia is set up anew for every event, which takes about a second: its state then depends on
    the event's seed alone.

    Args:
        config: The acceptance.
        num: How many particles.
        points: Collision points in mm, at least ``num`` (V, 3).
        rng: Source of randomness; seeds Pythia.

    Returns:
        Index of the collision (P,), PDG code (P,), vertex in mm (P, 3), momentum in GeV (P, 3).

    Raises:
        RuntimeError: If Pythia does not start or its collisions give no particle in acceptance.
    """
    pythia = load_pythia().Pythia("", False)
    for setting in (*SETTINGS, f"Random:seed = {rng.integers(1, 900_000_000)}"):
        pythia.readString(setting)
    if not pythia.init():
        raise RuntimeError("Pythia 8 did not start; its own messages above say why")
    collisions: list[Array] = []
    missing, empty = num, 0
    while missing > 0:
        rows = _accepted(pythia, config) if pythia.next() else np.empty((0, 7))
        if not len(rows):
            empty += 1
            if empty >= MAX_EMPTY:
                raise RuntimeError(
                    f"{MAX_EMPTY} collisions in a row gave no particle with pT >= "
                    f"{config.min_pt} GeV and |eta| <= {config.max_eta}; widen the acceptance"
                )
            continue
        empty = 0
        if len(rows) > missing:
            rows = rows[rng.choice(len(rows), missing, replace=False)]
        collisions.append(rows)
        missing -= len(rows)
    table = np.concatenate([np.empty((0, 7)), *collisions])  # (P, 7)
    collision = np.repeat(np.arange(len(collisions)), [len(rows) for rows in collisions])
    return collision, table[:, 0].astype(np.int64), table[:, 1:4] + points[collision], table[:, 4:]


def _accepted(pythia: object, config: TrackerConfig) -> Array:
    """List the final charged particles within acceptance: code, vertex (mm), momentum (GeV)."""
    rows = [
        (p.id(), p.xProd(), p.yProd(), p.zProd(), p.px(), p.py(), p.pz())
        for p in pythia.event  # type: ignore[attr-defined]
        if p.isFinal() and abs(p.id()) in TRACKED
    ]
    table = np.array(rows, dtype=float).reshape(-1, 7)
    px, py, pz = table[:, 4:].T
    inside = np.abs(pseudorapidity(px, py, pz)) <= config.max_eta
    return table[inside & (np.hypot(px, py) >= config.min_pt)]
