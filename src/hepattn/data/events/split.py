"""Training, validation, test and calibration events, by event number."""

# J events

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.events.write import EVENT_NUMBER
from hepattn.data.hashing import spread_rows
from hepattn.data.split import check_fractions

Part = Literal["train", "val", "test", "calib"]
PARTS: tuple[Part, ...] = ("train", "val", "test", "calib")


@dataclass(frozen=True)
class EventSplit:
    """Divide events into parts by their number.

    The number alone decides, so that the parts are disjoint and complete, the same in every
    process, whatever the files and their order; events of the same number, such as variations of
    one, stay together.

    Args:
        train: Share of the training.
        val: Share of the validation.
        test: Share of the test.
        calib: Share of the calibration; all shares sum to 1.
        method: Whether a hash of the number decides, or the number modulo ``modulus``.
        seed: Seed of the hash.
        modulus: Number of equal pieces that the parts consist of, for ``modulo``.
        offset: Turns the parts by this share: with a test share of 0.2, the test parts at the
            offsets 0, 0.2, 0.4, 0.6 and 0.8 are the folds of a cross-validation.
        column: Column with the number; null takes the row in the source instead, for files
            without numbers: more files, or others, are then divided anew.

    Raises:
        ValueError: If the shares are negative or do not sum to 1, or are no multiples of
            1 / ``modulus`` where that decides.
    """

    train: float = 0.7
    val: float = 0.1
    test: float = 0.1
    calib: float = 0.1
    method: Literal["hash", "modulo"] = "hash"
    seed: int = 0
    modulus: int = 10
    offset: float = 0.0
    column: str | None = EVENT_NUMBER

    def __post_init__(self) -> None:
        check_fractions(self.shares, "shares (train, val, test, calib)")
        if self.modulus < 1:
            raise ValueError(f"modulus={self.modulus} must be at least 1")
        if self.method == "modulo":
            for share in (*self.shares, self.offset):
                if abs(share * self.modulus - round(share * self.modulus)) > 1e-6:
                    raise ValueError(
                        f"share {share} must be a multiple of 1 / modulus = 1 / {self.modulus}"
                    )

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the parts, in the order of ``PARTS``."""
        return (self.train, self.val, self.test, self.calib)

    def save(self, path: str | Path) -> None:
        """Write the rule down as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n")

    def part(self, name: Part) -> "EventPart":
        """Return one of the parts."""
        return EventPart(self, name)

    def number(self, event_number: np.ndarray) -> np.ndarray:
        """Number of the part of each event (J), in the order of ``PARTS``.

        Args:
            event_number: Numbers of the events (J), whole.
        """
        if self.method == "hash":
            place = (spread_rows(event_number, self.seed) + self.offset) % 1.0  # (J)
        else:
            piece = (event_number.astype(np.int64) + round(self.offset * self.modulus)) % (
                self.modulus
            )
            place = (piece + 0.5) / self.modulus
        # The last part with a share takes what rounding leaves of the sum.
        ends = np.cumsum(self.shares)
        last = max(number for number, share in enumerate(self.shares) if share > 0)
        return np.minimum(np.searchsorted(ends, place, side="right"), last)


@dataclass(frozen=True)
class EventPart:
    """One part of a split.

    Args:
        split: The split.
        name: Which of its parts.

    Raises:
        ValueError: If there is no such part.
    """

    split: EventSplit
    name: Part

    def __post_init__(self) -> None:
        if self.name not in PARTS:
            raise ValueError(f"part {self.name!r} must be one of {', '.join(PARTS)}")

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that decide."""
        return frozenset() if self.split.column is None else frozenset({self.split.column})

    def holds(self, columns: Mapping[str, np.ndarray], index: np.ndarray) -> np.ndarray:
        """Whether events belong to the part (J).

        Args:
            columns: At least those of ``columns`` (J).
            index: Rows in the source (J).

        Raises:
            DataError: If a number is not whole.
        """
        number = index if self.split.column is None else columns[self.split.column]
        whole = number.astype(np.int64)
        if (wrong := np.flatnonzero(whole != number)).size:
            raise DataError.of(
                f"event {index[wrong[0]]}",
                str(self.split.column),
                found=number[wrong[0]],
                expected="whole numbers",
            )
        return self.split.number(whole) == PARTS.index(self.name)
