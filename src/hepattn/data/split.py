"""Training, validation and test events."""

import hashlib
import itertools
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hepattn.data.error import DataError


@dataclass(frozen=True)
class Split:
    """Names of the events of each part, and what they were drawn with."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    fractions: tuple[float, float, float]
    seed: int

    def save(self, path: str | Path) -> None:
        """Write the split down as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n")


def split_events(
    names: Sequence[str],
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Split:
    """Draw the training, validation and test events.

    The events are ordered by a hash of the seed and their name, so the order in which a disk
    lists them does not matter. The parts are disjoint and complete, and each part with a
    nonzero fraction has at least one event. Where there are fewer events than such parts, every
    one of these parts holds all events, with a warning.

    Args:
        names: Names of all events, each once.
        fractions: Shares of training, validation and test; their sum is 1.
        seed: Seed of the draw.

    Raises:
        ValueError: If the fractions are negative or do not sum to 1.
        DataError: If there are no events or a name comes twice.
    """
    fractions = (fractions[0], fractions[1], fractions[2])
    check_fractions(fractions)
    if not names:
        raise DataError("no events to split; expected at least one name")
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise DataError.of("split", "names", found=f"{twice} twice", expected="each name once")
    ordered = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    num_parts = sum(fraction > 0 for fraction in fractions)
    if len(names) < num_parts:
        warnings.warn(
            f"{len(names)} event(s) cannot be split into {num_parts} parts: training, validation "
            "and test share them, and no figure will be one of unseen events",
            UserWarning,
            stacklevel=2,
        )
        parts = [tuple(ordered) if fraction > 0 else () for fraction in fractions]
    else:
        ends = [0]
        for size in _part_sizes(len(names), fractions):
            ends.append(ends[-1] + size)
        parts = [tuple(ordered[start:end]) for start, end in itertools.pairwise(ends)]
    return Split(parts[0], parts[1], parts[2], fractions, seed)


def check_fractions(fractions: tuple[float, ...], name: str = "fractions") -> None:
    """Refuse shares of training, validation and test that make no whole.

    Args:
        fractions: The shares.
        name: What the message calls them.

    Raises:
        ValueError: If one is negative or their sum is not 1.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"{name}={fractions} must not be negative and must sum to 1")


def _part_sizes(num_events: int, fractions: tuple[float, ...]) -> list[int]:
    """Round the shares to whole events that sum up, none empty where its share is not zero."""
    exact = [fraction * num_events for fraction in fractions]
    sizes = [max(int(share), int(share > 0)) for share in exact]
    while (excess := sum(sizes) - num_events) != 0:
        step = -1 if excess > 0 else 1
        adjustable = [i for i, share in enumerate(exact) if share > 0 and sizes[i] + step > 0]
        # The part that is furthest from its exact share gives way.
        sizes[max(adjustable, key=lambda i: step * (exact[i] - sizes[i]))] += step
    return sizes
