"""Sets of simulated events of any kind."""

from collections.abc import Callable
from itertools import count

import numpy as np

from hepattn.simulate.events.calibration import make_calibration
from hepattn.simulate.events.config import PROCESSES, EventsConfig
from hepattn.simulate.events.fakes import make_fakes
from hepattn.simulate.events.ratio import make_ratio
from hepattn.simulate.events.search import make_search
from hepattn.simulate.events.table import Tables, join, take

FIRST_BATCH = 64
"""Events tried at first; each further batch is ``BATCH_GROWTH`` times as large, up to
``MAX_BATCH``, however many are wanted: so the first events are the same."""
BATCH_GROWTH = 4
MAX_BATCH = 16_384
MAKERS: dict[str, Callable[[str, int, EventsConfig, np.random.Generator], Tables]] = {
    "search": make_search,
    "ratio": make_ratio,
    "calibration": make_calibration,
    "fakes": make_fakes,
}
"""What tries to make events of a class; some may not pass its selection."""


def make_events(config: EventsConfig, num: int, number: int = 0) -> Tables:
    """Make the events of one file.

    The first events are the same whatever ``num``.

    Args:
        config: What to make.
        num: How many events, at least one.
        number: Number of the file; other numbers give other events.

    Returns:
        ``events`` (num,) and objects of each kind (num, P). Processes of a search, and the
        numerator and the denominator of a ratio, come in turn, in another order each turn; the
        classes of other sets come as they are drawn.
    """
    in_turn = config.kind in ("search", "ratio")
    names = tuple(config.classes) if in_turn else ("all",)
    rngs = np.random.default_rng([config.seed, number]).spawn(len(PROCESSES) + 1)
    turns = -(-num // len(names))
    place = rngs[-1].random((turns, len(names))).argsort(1).reshape(-1)[:num]  # (num,)
    wanted = np.bincount(place, minlength=len(names))
    parts = [
        _collect(name, size, config, rngs[config.classes.get(name, 0)])
        for name, size in zip(names, wanted.tolist(), strict=True)
        if size
    ]
    first = np.cumsum(wanted) - wanted
    tables = take(join(parts), first[place] + np.arange(num) // len(names))
    tables["events"]["event_number"] = number * config.shard_size + np.arange(num)
    return tables


def _collect(name: str, wanted: int, config: EventsConfig, rng: np.random.Generator) -> Tables:
    """Make events of a class until enough pass its selection."""
    parts: list[Tables] = []
    found = 0
    for step in count():
        size = min(FIRST_BATCH * BATCH_GROWTH**step, MAX_BATCH)
        parts.append(MAKERS[config.kind](name, size, config, rng))
        found += len(parts[-1]["events"])
        if found >= wanted:
            break
    return take(join(parts), np.arange(wanted))
