"""From columns of a file to the number of a class."""

# J jets, C classes

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

JETCLASS = ("QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl")
NONE_TRUE, SEVERAL_TRUE = -2, -3  # instead of a label, for one-hot columns that name no class


@dataclass(frozen=True)
class JetLabels:
    """The classes of a source and where it stores them.

    Args:
        classes: Names of the classes, in the order of their numbers.
        branches: One column a class that is true for its jets; by default ``label_`` and the
            name of the class.
        column: One column with the number of the class instead, as in JetClass-II; -1 in it says
            that the class is unknown.

    Raises:
        ValueError: If names repeat, or there are not as many branches as classes.
    """

    classes: tuple[str, ...] = JETCLASS
    branches: tuple[str, ...] | None = None
    column: str | None = None

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes={self.classes} must be different names, at least one")
        if self.branches is not None and self.column is not None:
            raise ValueError(f"branches and column={self.column!r} exclude each other; give one")
        if self.branches is not None and len(self.branches) != len(self.classes):
            raise ValueError(
                f"{len(self.branches)} branches must be as many as the {len(self.classes)} classes"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that hold the labels."""
        if self.column is not None:
            return (self.column,)
        return self.branches or tuple(f"label_{name}" for name in self.classes)

    def decode(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Read the number of the class.

        Args:
            columns: Those of ``columns`` (J).

        Returns:
            Number of the class (J) in int64; below -1 where one-hot columns contradict.
        """
        if self.column is not None:
            return columns[self.column].astype(np.int64)
        one_hot = np.stack([columns[name] for name in self.columns], 1) != 0  # (J, C)
        number = one_hot.sum(1)
        label = np.where(number == 1, one_hot.argmax(1), NONE_TRUE)
        return np.where(number > 1, SEVERAL_TRUE, label).astype(np.int64)
