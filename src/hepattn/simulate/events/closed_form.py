"""Events whose sums have densities in closed form: what exact answers are built on."""

# N events, P slots of a kind, C classes

from typing import NamedTuple

import numpy as np
from scipy.special import gammaincinv, gammaln, ndtri

from hepattn.simulate.events.detector import (
    MIN_JET_PT,
    MIN_LEPTON_PT,
    draw_btag,
    draw_jet_mass,
    wrap,
)
from hepattn.simulate.events.table import (
    BTAG_SHARES,
    BTAGGED,
    LEPTONS,
    MAX_OBJECTS,
    Tables,
    event_columns,
    fill,
)
from hepattn.simulate.jets.kinematics import Array

NUM_JETS = np.arange(2, MAX_OBJECTS["jets"] + 1)
"""Possible numbers of jets."""
MEAN_EXTRA_JETS = 1.8
"""Mean of the Poisson number of jets beyond two, before it is cut."""
JET_SCALE = 45.0
"""Each jet's pT above the smallest is exponential, with this mean in GeV."""
BOOST_WIDTH = 0.7
"""Width of the eta that all jets of an event share."""
JET_ETA_WIDTH = 0.9
"""Width of each jet's own eta around it."""
BOTTOM_SHARE = 0.25
LEPTON_SHARES = (0.55, 0.35, 0.10)
"""Probabilities of 0, 1 and 2 leptons of a flavour."""
LEPTON_SCALE = 30.0
"""Mean in GeV of a lepton's pT above the smallest."""
LEPTON_ETA_WIDTH = 1.0
BALANCE = 0.6
"""Width in radians of a jet's azimuth around the direction opposite to the harder ones' sum."""
SOFT = 8.0
"""Width in GeV of each component of the soft part of the missing momentum."""
NODES = 200
"""Points of the quadrature in each variable."""
HT_CENTRE = 260.0
"""Sum of the jets' pT in GeV of an event that counts as neither busy nor quiet."""
HT_WIDTH = 0.6
"""How far from it, in the logarithm, an event counts as busy."""


class Sums(NamedTuple):
    """Sums over an event's objects, all with known densities.

    ``num_jets`` is 2 plus a Poisson number, cut at the slots; given it, the others are
    independent: ``ht`` minus the thresholds follows a gamma distribution, ``eta_mean`` a normal
    one, ``num_btags`` a binomial one; ``num_leptons`` adds up two independent numbers.

    Attributes:
        num_jets: Number of jets (N,).
        ht: Sum of the jets' pT in GeV (N,).
        eta_mean: Mean of their eta (N,).
        num_btags: Number of jets with a b tag (N,).
        num_leptons: Number of leptons (N,).
    """

    num_jets: Array
    ht: Array
    eta_mean: Array
    num_btags: Array
    num_leptons: Array


def sums_of(objects: Tables) -> Sums:
    """Sum the objects of events up, as they are stored.

    Args:
        objects: Structured array (N, P) of each kind.

    Returns:
        The sums.
    """
    jets = objects["jets"]
    num_jets = jets["valid"].sum(1)
    return Sums(
        num_jets,
        jets["pt"].sum(1, dtype=float),
        jets["eta"].sum(1, dtype=float) / num_jets,
        (jets["btag"] >= BTAGGED).sum(1),
        sum(objects[kind]["valid"].sum(1) for kind in LEPTONS),
    )


def draw_objects(num: int, rng: np.random.Generator, one_lepton: bool = False) -> Tables:
    """Draw the objects of events.

    Azimuths balance the jets, so that the missing momentum is small; no density above depends on
    them, nor on what the columns of ``Sums`` do not name.

    Args:
        num: How many events.
        rng: Source of randomness.
        one_lepton: Whether each event has one lepton, of either flavour; else each flavour has
            0 to 2.

    Returns:
        Structured array (N, P) of each kind.
    """
    slots = MAX_OBJECTS["jets"]
    count = rng.choice(NUM_JETS, num, p=num_jets_shares())
    valid = np.arange(slots) < count[:, None]  # (N, P)
    pt = MIN_JET_PT + rng.exponential(JET_SCALE, valid.shape)
    pt = -np.sort(-np.where(valid, pt, 0.0), axis=1)
    shared = rng.normal(0.0, BOOST_WIDTH, (num, 1))
    is_b = rng.random(valid.shape) < BOTTOM_SHARE
    jets = {
        "pt": pt,
        "eta": shared + rng.normal(0.0, JET_ETA_WIDTH, valid.shape),
        "phi": _balanced(pt, rng),
        "mass": draw_jet_mass(pt, rng),
        "btag": draw_btag(is_b, rng),
    }
    tables = {"jets": fill("jets", valid, jets)}
    muon = rng.random(num) < 0.5
    for kind in LEPTONS:
        if one_lepton:
            count = (muon == (kind == "muons")).astype(int)
        else:
            count = rng.choice(len(LEPTON_SHARES), num, p=LEPTON_SHARES)
        there = np.arange(len(LEPTON_SHARES) - 1) < count[:, None]
        leptons = {
            "pt": MIN_LEPTON_PT + rng.exponential(LEPTON_SCALE, there.shape),
            "eta": rng.normal(0.0, LEPTON_ETA_WIDTH, there.shape),
            "phi": rng.uniform(-np.pi, np.pi, there.shape),
            "charge": rng.choice([-1, 1], there.shape),
            "isolation": rng.exponential(0.03, there.shape),
        }
        tables[kind] = fill(kind, there, leptons)
    return tables


def busyness(ht: Array) -> Array:
    """Say on a scale from -1 to 1 how busy events are.

    Args:
        ht: Sum of the jets' pT in GeV (N,).

    Returns:
        (N,).
    """
    return np.tanh(np.log(ht / HT_CENTRE) / HT_WIDTH)


def finish(objects: Tables, rng: np.random.Generator) -> dict[str, Array]:
    """Give the columns of events, with a soft part of the missing momentum.

    Args:
        objects: Structured array (N, P) of each kind.
        rng: Source of randomness.

    Returns:
        The columns of ``event_columns`` (N,).
    """
    return event_columns(objects, rng.normal(0.0, SOFT, (len(objects["jets"]), 2)))


def _balanced(pt: Array, rng: np.random.Generator) -> Array:
    """Draw azimuths in radians (N, P) of jets, each about opposite to the sum of the harder."""
    turn = rng.normal(0.0, BALANCE, pt.shape)
    turn[:, 0] = rng.uniform(-np.pi, np.pi, len(pt))
    phi = np.empty_like(pt)
    total = np.zeros((len(pt), 2))
    for slot in range(pt.shape[1]):
        phi[:, slot] = wrap(np.arctan2(-total[:, 1], -total[:, 0]) + turn[:, slot])
        unit = np.stack([np.cos(phi[:, slot]), np.sin(phi[:, slot])], axis=-1)
        total += pt[:, slot, None] * unit
    return phi


def num_jets_shares() -> Array:
    """Give the probability of each number in ``NUM_JETS``."""
    extra = NUM_JETS - NUM_JETS[0]
    shares = np.exp(extra * np.log(MEAN_EXTRA_JETS) - gammaln(extra + 1.0))
    return shares / shares.sum()


def tag_share() -> float:
    """Give the probability that a jet has a b tag."""
    b, light = (sum(shares[BTAGGED:]) for shares in BTAG_SHARES.values())
    return BOTTOM_SHARE * b + (1.0 - BOTTOM_SHARE) * light


def quadrature() -> tuple[Array, Array]:
    """Give points and weights of the Gauss-Legendre rule for probabilities, between 0 and 1."""
    points, weights = np.polynomial.legendre.leggauss(NODES)
    return 0.5 * (1.0 + points), 0.5 * weights


def ht_quantiles(probability: Array, num_jets: int) -> Array:
    """Give quantiles of the sum of the jets' pT.

    Args:
        probability: Between 0 and 1.
        num_jets: Number of jets.

    Returns:
        In GeV, of the shape of ``probability``.
    """
    return num_jets * MIN_JET_PT + JET_SCALE * gammaincinv(num_jets, probability)


def eta_mean_quantiles(probability: Array, num_jets: int) -> Array:
    """Give quantiles of the jets' mean eta.

    Args:
        probability: Between 0 and 1.
        num_jets: Number of jets.

    Returns:
        Of the shape of ``probability``.
    """
    return np.sqrt(BOOST_WIDTH**2 + JET_ETA_WIDTH**2 / num_jets) * ndtri(probability)
