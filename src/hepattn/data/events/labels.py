"""From the process of an event to its class, and which events to use."""

# J events, C classes

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.events.write import LABEL, UNLABELLED


@dataclass(frozen=True)
class Labels:
    """The classes of events and where a source stores their process.

    Args:
        column: Column with the number of the process; null where there is none, such as for
            events to predict.
        classes: For each class the processes in it, by number or by the name that the source has
            for it; events of other processes are left out. By default every process of the
            source is a class, in the order of their numbers. With two classes, the second one
            is the signal.

    Raises:
        ValueError: If there are fewer than two classes, or a process is in none or in two.
    """

    column: str | None = LABEL
    classes: dict[str, list[int | str]] | None = None

    def __post_init__(self) -> None:
        if self.classes is None:
            return
        if len(self.classes) < 2:
            raise ValueError(f"classes={self.classes} must be two at least")
        if empty := [name for name, processes in self.classes.items() if not processes]:
            raise ValueError(f"class {empty[0]} must have a process at least")
        processes = [process for group in self.classes.values() for process in group]
        if twice := [process for process in processes if processes.count(process) > 1]:
            raise ValueError(f"process {twice[0]} must be in one class alone")

    def names(self, processes: Mapping[str, int], source: str) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers.

        Args:
            processes: Number of each process by its name, as the source says.
            source: What messages call the source.

        Raises:
            DataError: If neither the options nor the source name any.
        """
        if self.classes is not None:
            return tuple(self.classes)
        if not processes:
            raise DataError.of(
                source,
                "classes",
                found="none in the files",
                expected="names of the processes",
                remedy="give labels.classes",
            )
        return tuple(self._groups(processes))

    def decode(self, column: np.ndarray, processes: Mapping[str, int], source: str) -> np.ndarray:
        """Find the class of events.

        Args:
            column: Number of the process (J).
            processes: Number of each process by its name, as the source says.
            source: What messages call the source.

        Returns:
            Number of the class (J) in int64, -1 for those of no class.

        Raises:
            DataError: If a number is not whole, or it is no process of the source where every
                process is a class.
        """
        self.names(processes, source)
        values = column.astype(np.int64)
        if (wrong := np.flatnonzero(values != column)).size:
            raise DataError.of(
                source, str(self.column), found=column[wrong[0]], expected="whole numbers"
            )
        for group in self._groups(processes).values():
            _require_named(group, processes, source)
        number = self.decode_known(values, processes)
        outside = (number == UNLABELLED) & (values != UNLABELLED)
        if self.classes is None and outside.any():
            row = int(np.argmax(outside))
            raise DataError.of(
                source,
                str(self.column),
                found=values[row],
                expected=f"a number of {dict(processes)}",
                remedy="give labels.classes",
            )
        return number

    def decode_known(self, column: np.ndarray, processes: Mapping[str, int]) -> np.ndarray:
        """Find the class of events, such as those to predict, as far as there is one.

        Args:
            column: Number of the process (J).
            processes: Number of each process by its name, as the source says.

        Returns:
            Number of the class (J) in int64, -1 for those of no class.
        """
        number = np.full(len(column), UNLABELLED)
        for place, group in enumerate(self._groups(processes).values()):
            members = [processes.get(x) if isinstance(x, str) else x for x in group]
            number[np.isin(column, [x for x in members if x is not None])] = place
        return number

    def _groups(self, processes: Mapping[str, int]) -> Mapping[str, Sequence[int | str]]:
        """Processes of each class, in the order of the classes' numbers."""
        if self.classes is not None:
            return self.classes
        return {name: [name] for name in sorted(processes, key=processes.__getitem__)}


def _require_named(group: Sequence[int | str], processes: Mapping[str, int], source: str) -> None:
    unknown = [name for name in group if isinstance(name, str) and name not in processes]
    if unknown:
        raise DataError.of(
            source,
            "classes",
            found=f"no process {unknown[0]}",
            expected=f"processes among {', '.join(processes) or 'none'}",
            remedy="give the number of the process",
        )


@dataclass(frozen=True)
class Selection:
    """Which events to use; they meet all conditions.

    Args:
        values: For each column of the events the values that it may have.
        ranges: For each column of the events its lowest value, and the one that it stays below.

    Raises:
        ValueError: If a column may have no value.
    """

    values: dict[str, list[float]] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if empty := [name for name, values in self.values.items() if not values]:
            raise ValueError(f"selection of {empty[0]} must have a value at least")
        for name, (low, high) in self.ranges.items():
            if not low < high:
                raise ValueError(f"selection of {name}: ({low}, {high}) must be (low, high)")

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns."""
        return frozenset({*self.values, *self.ranges})

    def holds(self, columns: Mapping[str, np.ndarray]) -> np.ndarray | bool:
        """Whether events are to be used (J).

        Args:
            columns: At least those of ``columns`` (J).
        """
        conditions: Sequence[np.ndarray] = [
            *(_is_any(columns[name], values) for name, values in self.values.items()),
            *(
                (columns[name] >= low) & (columns[name] < high)
                for name, (low, high) in self.ranges.items()
            ),
        ]
        return np.logical_and.reduce(conditions) if conditions else True

    def includes(self, other: "Selection") -> bool:
        """Whether the conditions alone say that all events of another selection are in this one.

        Args:
            other: The other selection.
        """
        return all(
            name in other.values and set(other.values[name]) <= set(values)
            for name, values in self.values.items()
        ) and all(
            name in other.ranges and low <= other.ranges[name][0] and other.ranges[name][1] <= high
            for name, (low, high) in self.ranges.items()
        )


def _is_any(column: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """Whether entries are one of some values, rounded as the column stores them (J)."""
    is_float = column.dtype.kind == "f"
    return np.isin(column, np.asarray(values, column.dtype if is_float else None))
