"""Balanced sets of reconstructed jets from either generator."""

# C classes

import numpy as np

from hepattn.simulate.jets.config import ALL_CLASSES, CLASSES, JetConfig
from hepattn.simulate.jets.detector import Jets, join_jets
from hepattn.simulate.jets.pythia import PythiaSource
from hepattn.simulate.jets.shower import ShowerSource

FIRST_BATCH = 16
"""Jets tried at first; each further batch is ``BATCH_GROWTH`` times as large, up to the source's
``max_batch``. The sizes do not depend on how many jets are wanted, nor do the jets."""
BATCH_GROWTH = 4
MAX_TRIES = 100_000
"""Jets tried before giving up on a class of which none passes the cuts."""
SOURCES = {"shower": ShowerSource, "pythia": PythiaSource}


def make_jets(config: JetConfig, num: int, number: int = 0) -> Jets:
    """Make the jets of one file.

    The first jets are the same whatever ``num``.

    Args:
        config: What to make.
        num: How many jets, at least one.
        number: Number of the file; other numbers give other jets.

    Returns:
        Jets of all classes in turn, in another order each turn: their numbers differ by one at
        most, also among the first jets.

    Raises:
        RuntimeError: If no jet of a class passes the cuts.
    """
    rngs = np.random.default_rng([config.seed, number]).spawn(len(ALL_CLASSES) + 1)
    order = rngs.pop(len(CLASSES))  # where it was before there were more classes: the jets stay
    num_classes = len(config.classes)
    turns = -(-num // num_classes)
    place = order.random((turns, num_classes)).argsort(1).reshape(-1)[:num]  # (num,)
    wanted = np.bincount(place, minlength=num_classes)  # (C,)
    parts = []
    for name, size in zip(config.classes, wanted.tolist(), strict=True):
        if size:
            parts.append(_collect(name, size, config, rngs[ALL_CLASSES.index(name)]))
    first = np.cumsum(wanted) - wanted
    return join_jets(parts).take(first[place] + np.arange(num) // num_classes)


def _collect(name: str, wanted: int, config: JetConfig, rng: np.random.Generator) -> Jets:
    """Generate jets of a class until enough pass the cuts."""
    source = SOURCES[config.generator](name, config, rng)
    parts: list[Jets] = []
    found, tried, size = 0, 0, FIRST_BATCH
    while found < wanted:
        parts.append(source.batch(size))
        found += len(parts[-1].label)
        tried += size
        size = min(BATCH_GROWTH * size, source.max_batch)
        if not found and tried > MAX_TRIES:
            raise RuntimeError(
                f"none of {tried} {name} jets passed the cuts min_pt={config.min_pt}, "
                f"max_pt={config.max_pt}, max_eta={config.max_eta}, "
                f"radius={config.radius}; widen them"
            )
    return join_jets(parts).take(np.arange(wanted))
