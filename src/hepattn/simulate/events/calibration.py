"""Labels drawn from known probabilities, and logits of a classifier that is too sure."""

# N events, C classes

import numpy as np
from scipy.special import log_softmax

from hepattn.simulate.events.closed_form import Sums, busyness, draw_objects, finish, sums_of
from hepattn.simulate.events.config import EventsConfig
from hepattn.simulate.events.table import Tables, event_table, mc_weights
from hepattn.simulate.jets.kinematics import Array

STRENGTH = 1.8
"""How far the classes are apart."""
TAG_CENTRE = 0.8
"""Number of b tags of an event that counts as neither heavy nor light."""


def make_calibration(name: str, num: int, config: EventsConfig, rng: np.random.Generator) -> Tables:
    """Make events of all classes.

    Args:
        name: Not used: the classes are drawn together.
        num: How many.
        config: Gives the number of classes and the temperature.
        rng: Source of randomness.

    Returns:
        Events with, for each class c, the columns ``probability_c``, from which the label was
        drawn, and ``logit_c``, its logarithm times the temperature.
    """
    del name
    objects = draw_objects(num, rng)
    columns = finish(objects, rng)
    log_probabilities = known_log_probabilities(sums_of(objects), config.num_classes)
    probabilities = np.exp(log_probabilities)
    draw = rng.random((num, 1))
    # Compared with all but the last edge, so that rounding of the sum never gives class C.
    label = (draw > probabilities.cumsum(1)[:, :-1]).sum(1)
    for number in range(config.num_classes):
        columns[f"probability_{number}"] = probabilities[:, number]
        columns[f"logit_{number}"] = config.temperature * log_probabilities[:, number]
    weight = mc_weights(num, config.negative_share, rng)
    return {"events": event_table(label, weight, columns), **objects}


def known_log_probabilities(sums: Sums, num_classes: int) -> Array:
    """Give the logarithm of the probability of each class.

    Args:
        sums: Sums over the objects of each event.
        num_classes: Number of classes.

    Returns:
        (N, C).
    """
    busy = 2.0 * busyness(sums.ht)
    heavy = sums.num_btags - TAG_CENTRE + np.tanh(sums.eta_mean)
    angle = 2.0 * np.pi * np.arange(num_classes) / num_classes  # (C,)
    logits = np.outer(busy, np.cos(angle)) + np.outer(heavy, np.sin(angle))
    return log_softmax(STRENGTH * logits / np.sqrt(2.0), axis=1)
