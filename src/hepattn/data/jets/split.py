"""Training, validation and test jets, by row."""

# J jets

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hepattn.data.hashing import spread_rows
from hepattn.data.split import check_fractions

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class JetSplit:
    """Divide the rows of a source into three parts.

    A hash of the seed and the row alone decides, so that the parts are disjoint and complete, the
    same in every process, and need no memory. Their sizes fluctuate around the shares as
    those of a random draw do. The rows are those of all files together: a set with more files, or
    files of other names, is divided anew.

    Args:
        fractions: Shares of training, validation and test; their sum is 1.
        seed: Seed of the hash.
        offset: Turns the parts by this share: with a test share of 0.2, the test parts at the
            offsets 0, 0.2, 0.4, 0.6 and 0.8 are the folds of a cross-validation.

    Raises:
        ValueError: If the fractions are negative or do not sum to 1.
    """

    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    offset: float = 0.0

    def __post_init__(self) -> None:
        check_fractions(self.fractions)

    def save(self, path: str | Path) -> None:
        """Write the rule down as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n")

    def part(self, name: Part) -> "JetPart":
        """Return one of the parts."""
        return JetPart(self, name)

    def number(self, rows: np.ndarray) -> np.ndarray:
        """Number of the part of each row (J): 0 training, 1 validation, 2 test.

        Args:
            rows: Rows of the source (J).
        """
        place = spread_rows(rows, self.seed)  # (J)
        place = (place + self.offset) % 1.0
        return (place >= self.fractions[0]).astype(np.int64) + (
            place >= self.fractions[0] + self.fractions[1]
        )


@dataclass(frozen=True)
class JetPart:
    """One part of a split.

    Args:
        split: The split.
        name: Which of its parts.

    Raises:
        ValueError: If there is no such part.
    """

    split: JetSplit
    name: Part

    def __post_init__(self) -> None:
        if self.name not in PARTS:
            raise ValueError(f"part {self.name!r} must be one of {', '.join(PARTS)}")

    def holds(self, rows: np.ndarray) -> np.ndarray:
        """Whether rows belong to the part (J).

        Args:
            rows: Rows of the source (J).
        """
        return self.split.number(rows) == PARTS.index(self.name)
