"""A numerator and a denominator whose density ratio is known for every event."""

# N events

from functools import cache

import numpy as np

from hepattn.simulate.events.closed_form import (
    LEPTON_SHARES,
    NUM_JETS,
    Sums,
    busyness,
    draw_objects,
    eta_mean_quantiles,
    finish,
    ht_quantiles,
    num_jets_shares,
    quadrature,
    sums_of,
    tag_share,
)
from hepattn.simulate.events.config import EventsConfig
from hepattn.simulate.events.table import LEPTONS, Tables, event_table, mc_weights, take
from hepattn.simulate.jets.kinematics import Array

HT_SLOPE = 1.3
JET_SLOPE = -0.35
TAG_SLOPE = 0.35
LEPTON_STEP = 0.6
ETA_SLOPE = -1.2
"""How the logarithm of the ratio depends on the busyness, on each jet, on each b tag, on whether
there is a lepton, and on how far forward the jets are."""


def make_ratio(name: str, num: int, config: EventsConfig, rng: np.random.Generator) -> Tables:
    """Try to make events.

    Args:
        name: ``numerator`` or ``denominator``.
        num: How many to try.
        config: Says how many weights are negative; they do not depend on anything else.
        rng: Source of randomness.

    Returns:
        All events of the denominator; of the numerator those that are accepted with a probability
        proportional to the ratio. The column ``log_ratio`` is the logarithm of the density of the
        numerator over that of the denominator, both normalised.
    """
    objects = draw_objects(num, rng)
    log_ratio = known_log_ratio(sums_of(objects))
    if name == "numerator":
        accepted = np.log(rng.random(num)) < log_ratio - max_log_ratio()
        objects, log_ratio = take(objects, accepted), log_ratio[accepted]
    columns = {**finish(objects, rng), "log_ratio": log_ratio}
    label = np.full(len(log_ratio), config.classes[name])
    weight = mc_weights(len(label), config.negative_share, rng)
    return {"events": event_table(label, weight, columns), **objects}


def known_log_ratio(sums: Sums) -> Array:
    """Give the logarithm of the density of the numerator over that of the denominator.

    Args:
        sums: Sums over the objects of each event.

    Returns:
        (N,).
    """
    return _ht_term(sums.ht) + _eta_term(sums.eta_mean) + _count_term(sums) - log_norm()


@cache
def max_log_ratio() -> float:
    """Give a bound on the logarithm of the ratio."""
    most = np.max((JET_SLOPE + TAG_SLOPE) * NUM_JETS)  # all jets tagged
    return HT_SLOPE + float(most) + LEPTON_STEP - log_norm()


@cache
def log_norm() -> float:
    """Give the logarithm of the mean of the ratio, before it is normalised, by quadrature."""
    points, weights = quadrature()
    tag, tagged = tag_share(), np.exp(TAG_SLOPE)
    total = 0.0
    for num_jets, share in zip(NUM_JETS, num_jets_shares(), strict=True):
        ht = weights @ np.exp(_ht_term(ht_quantiles(points, num_jets)))
        eta = weights @ np.exp(_eta_term(eta_mean_quantiles(points, num_jets)))
        tags = (1.0 - tag + tag * tagged) ** num_jets  # of a binomial number
        total += share * np.exp(JET_SLOPE * num_jets) * ht * eta * tags
    no_lepton = LEPTON_SHARES[0] ** len(LEPTONS)
    total *= no_lepton + (1.0 - no_lepton) * np.exp(LEPTON_STEP)
    return float(np.log(total))


def _ht_term(ht: Array) -> Array:
    return HT_SLOPE * busyness(ht)


def _eta_term(eta_mean: Array) -> Array:
    return ETA_SLOPE * eta_mean**2 / (1.0 + eta_mean**2)


def _count_term(sums: Sums) -> Array:
    leptons = LEPTON_STEP * (sums.num_leptons > 0)
    return JET_SLOPE * sums.num_jets + TAG_SLOPE * sums.num_btags + leptons
