"""Balanced sets of reconstructed jets from either generator."""

import numpy as np

from hepattn.simulate.jets.config import CLASSES, JetConfig
from hepattn.simulate.jets.detector import Jets, join_jets
from hepattn.simulate.jets.pythia import PythiaSource
from hepattn.simulate.jets.shower import ShowerSource

MAX_BATCH = 2000
"""Jets generated at once, which bounds the memory."""
MAX_TRIES = 100_000
"""Jets tried before giving up on a class of which none passes the cuts."""
SOURCES = {"shower": ShowerSource, "pythia": PythiaSource}


def make_jets(config: JetConfig, num: int, number: int = 0) -> Jets:
    """Make the jets of one file.

    Args:
        config: What to make.
        num: How many jets.
        number: Number of the file; other numbers give other jets.

    Returns:
        Jets of all classes in equal numbers (up to one), shuffled.
    """
    rngs = np.random.default_rng([config.seed, number]).spawn(len(CLASSES) + 1)
    parts = []
    for place, name in enumerate(config.classes):
        wanted = len(range(place, num, len(config.classes)))
        if wanted:
            label = CLASSES.index(name)
            parts.append(_collect(name, wanted, config, rngs[label]))
    return join_jets(parts).take(rngs[-1].permutation(num))


def _collect(name: str, wanted: int, config: JetConfig, rng: np.random.Generator) -> Jets:
    """Generate jets of a class until enough pass the cuts."""
    source = SOURCES[config.generator](name, config, rng)
    parts: list[Jets] = []
    found, tried = 0, 0
    while found < wanted:
        share = max(found, 1) / max(tried, 2)
        size = min(MAX_BATCH, int(1.1 * (wanted - found) / share) + 8)
        parts.append(source.batch(size))
        found += len(parts[-1].label)
        tried += size
        if not found and tried > MAX_TRIES:
            raise RuntimeError(
                f"none of {tried} {name} jets passed the cuts min_pt={config.min_pt}, "
                f"max_pt={config.max_pt}, max_eta={config.max_eta}, "
                f"radius={config.radius}; widen them"
            )
    return join_jets(parts).take(np.arange(wanted))
