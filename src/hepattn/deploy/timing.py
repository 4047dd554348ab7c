"""Time pieces of work that are to be compared."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Literal

Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def interleave(
    contenders: Mapping[str, Callable[[], object]], num_rounds: int = 5, clock: Clock = "wall"
) -> dict[str, float]:
    """Median seconds of each contender over rounds in which all of them run in turn.

    So they see the same machine; a first round warms up.

    Args:
        contenders: Work by name.
        num_rounds: Rounds that count.
        clock: ``cpu`` counts CPU seconds, for one thread on a machine that others use.

    Raises:
        ValueError: If there are no rounds.
    """
    if num_rounds < 1:
        raise ValueError(f"num_rounds={num_rounds} must be at least 1")
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(num_rounds + 1):
        for name, work in contenders.items():
            start = now()
            work()
            took = now() - start
            if round_number:
                seconds[name].append(took)
    return {name: statistics.median(values) for name, values in seconds.items()}
