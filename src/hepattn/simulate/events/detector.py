"""What a detector makes of quarks, gluons and leptons."""

# N events, K legs of an event, P slots of a kind

import numpy as np
from numpy.typing import NDArray

from hepattn.simulate.events.processes import BOTTOM, GLUON, LIGHT, Index, Legs
from hepattn.simulate.events.table import BTAG_SHARES, LEPTONS, Flags, Tables, fill
from hepattn.simulate.jets.kinematics import Array, directions

MIN_JET_PT = 25.0
"""Smallest transverse momentum of a jet in GeV."""
MIN_LEPTON_PT = 20.0
"""Smallest transverse momentum of a lepton in GeV."""
MAX_ETA = {"jets": 4.5, "electrons": 2.47, "muons": 2.5}
MAX_TAG_ETA = 2.5
"""Jets beyond are outside the tracker and have no b tag."""
LEPTON_EFFICIENCY = 0.9
LEPTON_RESOLUTION = {"electrons": 0.015, "muons": 0.025}
"""Relative resolution of the momentum."""
JET_ANGLE = 0.02
"""Resolution of a jet's eta and phi."""
LEPTON_IN_JET = {"b": 0.06, "light": 0.005}
"""Probability that a jet gives a lepton that is reconstructed apart from it."""


def detect(legs: Legs, rng: np.random.Generator) -> Tables:
    """Measure the jets, electrons and muons of collisions.

    Args:
        legs: What comes out of them.
        rng: Source of randomness.

    Returns:
        Structured array (N, P) of each kind.
    """
    is_jet = np.isin(legs.code, (LIGHT, BOTTOM, GLUON))
    is_b = legs.code == BOTTOM
    chance = np.where(is_b, LEPTON_IN_JET["b"], LEPTON_IN_JET["light"])
    gives = is_jet & (rng.random(is_jet.shape) < chance)
    share = np.where(gives, rng.beta(2.0, 3.0, is_jet.shape), 0.0)[..., None]
    flavour = rng.choice([-13, -11, 11, 13], is_jet.shape)
    prompt = np.isin(np.abs(legs.code), tuple(LEPTONS.values()))
    momentum = np.concatenate([legs.momentum, share * legs.momentum], axis=1)  # (N, 2 K, 4)
    code = np.concatenate([np.where(prompt, legs.code, 0), np.where(gives, flavour, 0)], axis=1)
    isolation = np.concatenate(
        [rng.exponential(0.03, is_jet.shape), 0.05 + rng.exponential(0.2, is_jet.shape)], axis=1
    )
    tables = {"jets": detect_jets((1.0 - share) * legs.momentum, is_jet, is_b, rng)}
    for kind, number in LEPTONS.items():
        valid = np.abs(code) == number
        tables[kind] = detect_leptons(kind, momentum, valid, -np.sign(code), isolation, rng)
    return tables


def detect_jets(
    momentum: Array, valid: Flags, is_b: Flags, rng: np.random.Generator
) -> NDArray[np.void]:
    """Measure jets.

    Args:
        momentum: Four-momenta of partons in GeV (N, K, 4).
        valid: True for partons (N, K).
        is_b: True for b quarks (N, K).
        rng: Source of randomness.

    Returns:
        Structured array (N, P).
    """
    pt = np.hypot(momentum[..., 1], momentum[..., 2])
    eta, phi = directions(momentum)
    safe = np.where(valid, pt, 1.0)
    resolution = np.sqrt((3.0 / safe) ** 2 + 0.8**2 / safe + 0.04**2)  # noise, sampling, constant
    pt = pt * np.maximum(rng.normal(1.0, resolution), 0.0)
    eta, phi = rng.normal(eta, JET_ANGLE), rng.normal(phi, JET_ANGLE)
    valid = valid & (pt > MIN_JET_PT) & (np.abs(eta) < MAX_ETA["jets"])
    btag = draw_btag(is_b, rng)
    columns = {
        "pt": pt,
        "eta": eta,
        "phi": wrap(phi),
        "mass": draw_jet_mass(pt, rng),
        "btag": np.where(np.abs(eta) < MAX_TAG_ETA, btag, 0),
    }
    return fill("jets", valid, columns)


def detect_leptons(
    kind: str,
    momentum: Array,
    valid: Flags,
    charge: Index,
    isolation: Array,
    rng: np.random.Generator,
) -> NDArray[np.void]:
    """Measure leptons.

    Args:
        kind: electrons or muons.
        momentum: Four-momenta in GeV (N, K, 4).
        valid: True for leptons of the kind (N, K).
        charge: Their charge (N, K).
        isolation: Momentum around them, relative to theirs (N, K).
        rng: Source of randomness.

    Returns:
        Structured array (N, P).
    """
    pt = np.hypot(momentum[..., 1], momentum[..., 2])
    eta, phi = directions(momentum)
    pt = pt * rng.normal(1.0, LEPTON_RESOLUTION[kind], pt.shape)
    found = rng.random(valid.shape) < LEPTON_EFFICIENCY
    valid = valid & found & (pt > MIN_LEPTON_PT) & (np.abs(eta) < MAX_ETA[kind])
    columns = {"pt": pt, "eta": eta, "phi": phi, "charge": charge, "isolation": isolation}
    return fill(kind, valid, columns)


def draw_btag(is_b: Flags, rng: np.random.Generator) -> Index:
    """Draw categories of b tags.

    Args:
        is_b: True for jets of b quarks.
        rng: Source of randomness.

    Returns:
        Category, 0 to 4, of the same shape.
    """
    draw = rng.random(is_b.shape)
    b, light = (np.searchsorted(np.cumsum(shares)[:-1], draw) for shares in BTAG_SHARES.values())
    return np.where(is_b, b, light)


def draw_jet_mass(pt: Array, rng: np.random.Generator) -> Array:
    """Draw masses of jets.

    Args:
        pt: Transverse momenta in GeV.
        rng: Source of randomness.

    Returns:
        Masses in GeV, around a tenth of the momentum.
    """
    return 0.1 * pt * np.exp(rng.normal(0.0, 0.35, pt.shape))


def wrap(phi: Array) -> Array:
    """Bring angles to [-pi, pi).

    Args:
        phi: In radians.

    Returns:
        In radians.
    """
    return (phi + np.pi) % (2.0 * np.pi) - np.pi
