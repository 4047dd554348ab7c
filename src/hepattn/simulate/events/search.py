"""A search: signals and backgrounds as a detector sees them."""

# N events

import numpy as np

from hepattn.simulate.events.config import PROCESSES, EventsConfig
from hepattn.simulate.events.detector import detect
from hepattn.simulate.events.processes import GENERATORS
from hepattn.simulate.events.table import Tables, event_columns, event_table, mc_weights, take

SOFT = 8.0
"""Width in GeV of each component of the soft part of the missing momentum."""


def make_search(name: str, num: int, config: EventsConfig, rng: np.random.Generator) -> Tables:
    """Try to make events of a process.

    Args:
        name: The process.
        num: How many to try.
        config: Names the processes; the mean of all their expected yields is a weight of 1.
        rng: Source of randomness.

    Returns:
        Events with at least two jets or a lepton.
    """
    process = GENERATORS[name]
    objects = detect(process.legs(num, rng), rng)
    expected = process.expected / np.mean([GENERATORS[p].expected for p in config.processes])
    weight = expected * mc_weights(num, config.negative_share, rng)
    columns = event_columns(objects, rng.normal(0.0, SOFT, (num, 2)))
    events = event_table(np.full(num, PROCESSES.index(name)), weight, columns)
    selected = (columns["num_jets"] >= 2) | (columns["num_leptons"] >= 1)
    return take({"events": events, **objects}, selected)
