"""Events in ROOT files with jagged branches."""

# J events, P slots of a kind

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import awkward as ak
import numpy as np
import uproot

from hepattn.data.error import DataError
from hepattn.data.events.reader import EventReader
from hepattn.data.events.source import Columns, EventFile
from hepattn.data.events.table import EventTable, ObjectTable
from hepattn.data.root_tree import check_counts, open_tree


@dataclass(frozen=True)
class RootEvents(EventReader):
    """Reads a tree with flat branches for the events and jagged ones for the objects.

    Args:
        tree: Name of the tree.
        objects: For each kind of object the prefix of its branches, such as ``Jet_``, which is
            left out of the names of the columns; or a map from the name of a column to the
            branch.
        events: Map from the name of a column of the events to the branch; null for all flat
            branches, under their names.

    Raises:
        ValueError: If two kinds have the same branches.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".root",)
    tree: str = "events"
    objects: dict[str, str | dict[str, str]] = field(default_factory=dict)
    events: dict[str, str] | None = None

    def __post_init__(self) -> None:
        places = list(self.objects.values())
        if any(place in places[:number] for number, place in enumerate(places)):
            raise ValueError(f"objects={self.objects} must have different branches")

    def open_file(self, path: Path) -> EventFile:
        """Open a file; see ``EventReader.open_file``."""
        return RootFile(path, self)


class RootFile(EventFile):
    """One file; only the branches that are asked for are read.

    Args:
        path: The file.
        options: What the reader was told.

    Raises:
        DataError: If the file, the tree or a named branch cannot be read, or it has no events.
    """

    def __init__(self, path: Path, options: RootEvents) -> None:
        super().__init__(path)
        self.tree = options.tree
        self.classes = {}
        try:
            tree = open_tree(path, options.tree)
            self.set_rows(int(tree.num_entries))
            flat = [name for name, branch in tree.items() if _is_flat(branch.interpretation)]
            jagged = [name for name, branch in tree.items() if _is_jagged(branch.interpretation)]
            offsets = tree[(jagged or flat)[0]].entry_offsets[1:] if jagged or flat else []
        except DataError:
            raise
        except Exception as error:
            raise self.unreadable(error) from error
        ends = np.asarray(offsets, np.int64)
        complete = len(ends) > 0 and ends[-1] == self.num_events
        self._block_ends = ends if complete else np.array([self.num_events])
        self.event_branches = {name: name for name in flat}
        if options.events is not None:
            self._require_branches("events", options.events, flat)
            self.event_branches = options.events
        self.object_branches: dict[str, dict[str, str]] = {}
        for kind, place in options.objects.items():
            if isinstance(place, str):
                place = {n.removeprefix(place): n for n in jagged if n.startswith(place)}
            self._require_branches(kind, place, jagged)
            self.object_branches[kind] = place
        self.columns = Columns(
            frozenset(self.event_branches),
            {kind: frozenset(names) for kind, names in self.object_branches.items()},
        )

    @property
    def block_ends(self) -> np.ndarray:
        """Ends of the baskets of the first branch; those of most files are alike."""
        return self._block_ends

    def read_raw(self, start: int, stop: int, columns: Columns) -> EventTable:
        """Read some events; see ``EventFile.read_raw``."""
        flat = {name: self.event_branches[name] for name in sorted(columns.events)}
        jagged = {
            kind: {
                # One branch at least says how many there are.
                name: self.object_branches[kind][name]
                for name in sorted(names) or sorted(self.object_branches[kind])[:1]
            }
            for kind, names in columns.objects.items()
        }
        branches = {*flat.values(), *(b for names in jagged.values() for b in names.values())}
        try:
            record = open_tree(self.path, self.tree).arrays(
                sorted(branches), entry_start=start, entry_stop=stop, library="ak"
            )
            events = {name: np.asarray(record[branch]) for name, branch in flat.items()}
            objects = {
                kind: self._pad({name: record[branch] for name, branch in names.items()}, start)
                for kind, names in jagged.items()
            }
            lengths = [len(values) for values in events.values()]
            lengths += [len(table.valid) for table in objects.values()]
            if any(length != stop - start for length in lengths):
                raise ValueError(f"{min(lengths)} events instead of {stop - start}")
        except DataError:
            raise
        except Exception as error:
            raise self.unreadable(error) from error
        return EventTable(events, objects, np.arange(start, stop))

    def _pad(self, columns: dict[str, ak.Array], start: int) -> ObjectTable:
        counts = np.asarray(ak.num(next(iter(columns.values())), axis=1))  # (J)
        valid = np.arange(counts.max(initial=0)) < counts[:, None]  # (J, P)
        padded = {}
        for name, values in columns.items():
            own = np.asarray(ak.num(values, axis=1))
            check_counts(self.path, name, own, counts, start, unit="event")
            flat = np.asarray(ak.flatten(values))
            padded[name] = np.zeros(valid.shape, flat.dtype)
            padded[name][valid] = flat
        return ObjectTable(valid, padded)

    def _require_branches(self, place: str, names: dict[str, str], there: list[str]) -> None:
        missing = sorted(set(names.values()) - set(there))
        if missing or not names:
            raise DataError.of(
                self.path,
                f"branches of {place}",
                found=f"no {', '.join(missing)}" if missing else "none",
                expected=f"branches among {', '.join(there)}"[:400],
            )


def _is_flat(interpretation: object) -> bool:
    return (
        isinstance(interpretation, uproot.AsDtype)
        and interpretation.inner_shape == ()
        and interpretation.to_dtype.kind in "biuf"
    )


def _is_jagged(interpretation: object) -> bool:
    return isinstance(interpretation, uproot.AsJagged) and _is_flat(interpretation.content)
