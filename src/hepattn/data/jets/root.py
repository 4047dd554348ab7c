"""Jets in ROOT files, in the layout of JetClass."""

# J jets, P particles

from pathlib import Path

import awkward as ak
import numpy as np
import uproot

from hepattn.data.error import DataError
from hepattn.data.jets.labels import JetLabels
from hepattn.data.jets.source import JetFile
from hepattn.data.jets.table import NO_LABEL, JetTable
from hepattn.data.root_tree import check_counts, open_tree

VECTOR = ("part_px", "part_py", "part_pz", "part_energy")


class RootJets(JetFile):
    """Jets of one tree: jagged branches ``part_*``, flat branches ``jet_*`` and labels.

    Only the branches that are asked for are read.

    Args:
        path: The file.
        labels: Where the labels are. Without any of these branches jets have no labels.
        tree: Name of the tree.

    Raises:
        DataError: If the file, the tree or a needed branch cannot be read, or it has no jets.
    """

    def __init__(self, path: Path, labels: JetLabels, tree: str = "tree") -> None:
        super().__init__(path)
        self.labels = labels
        self.tree = tree
        try:
            found = open_tree(path, tree)
            self.num_jets = int(found.num_entries)
            types = {name: branch.typename for name, branch in found.items()}
            self._block_ends = _find_block_ends(found, self.num_jets)
        except DataError:
            raise
        except Exception as error:
            raise self.unreadable(error) from error
        self.columns = frozenset(
            name
            for name, typename in types.items()
            if (name.startswith("part_") and _is_jagged(typename))
            or (name.startswith("jet_") and not _is_jagged(typename))
        )
        self.label_columns = find_label_columns(path, labels, set(types))
        self.classes = labels.classes if self.label_columns else ()
        require_vectors(path, self.columns)
        self.require_jets()

    @property
    def block_ends(self) -> np.ndarray:
        """Ends of the baskets of the energies; those of most files are alike."""
        return self._block_ends

    def read_raw(self, start: int, stop: int, columns: frozenset[str]) -> JetTable:
        """Read some jets; see ``JetFile.read_raw``."""
        names = sorted(columns | set(VECTOR)) + list(self.label_columns)
        try:
            record = open_tree(self.path, self.tree).arrays(
                names, entry_start=start, entry_stop=stop, library="ak"
            )
            layout = ak.to_layout(ak.to_packed(record))
            return self._to_table({name: layout.content(name) for name in names}, start, stop)
        except DataError:
            raise
        except Exception as error:
            raise self.unreadable(error) from error

    def _to_table(
        self, contents: dict[str, ak.contents.Content], start: int, stop: int
    ) -> JetTable:
        counts = None
        particles, flat = {}, {}
        for name, content in contents.items():
            if not name.startswith("part_"):
                flat[name] = np.asarray(content.data)  # (J)
                continue
            own = np.diff(np.asarray(content.offsets.data))
            counts = own if counts is None else counts
            check_counts(self.path, name, own, counts, start)
            particles[name] = np.asarray(content.content.data).astype(np.float32, copy=False)
        label = self.labels.decode(flat) if self.label_columns else np.full(stop - start, NO_LABEL)
        if len(label) != stop - start or len(counts) != stop - start:
            raise ValueError(f"{len(label)} jets instead of {stop - start}")
        jets = {
            name: values.astype(np.float32)
            for name, values in flat.items()
            if name not in self.label_columns
        }
        return JetTable(counts, particles, jets, label, np.arange(start, stop))


def require_vectors(path: Path, columns: frozenset[str]) -> None:
    """Refuse a file without four-vectors."""
    if missing := [name for name in VECTOR if name not in columns]:
        raise DataError.of(
            path,
            "columns",
            found=f"no {', '.join(missing)} among {', '.join(sorted(columns))}"[:400],
            expected=f"all of {', '.join(VECTOR)}",
        )


def find_label_columns(path: Path, labels: JetLabels, names: set[str]) -> tuple[str, ...]:
    """The columns of the labels; none if the file has none of them.

    Raises:
        DataError: If the file has some of them and lacks others.
    """
    missing = [name for name in labels.columns if name not in names]
    if len(missing) == len(labels.columns):
        return ()
    if missing:
        raise DataError.of(
            path,
            "columns",
            found=f"no {', '.join(missing)}",
            expected=f"all of {', '.join(labels.columns)}, or none",
            remedy="name the classes of this file in labels",
        )
    return labels.columns


def _is_jagged(typename: str) -> bool:
    return "[" in typename or "vector" in typename


def _find_block_ends(tree: uproot.TTree, num_jets: int) -> np.ndarray:
    if VECTOR[-1] not in tree:
        return np.array([num_jets])
    ends = np.asarray(tree[VECTOR[-1]].entry_offsets[1:], dtype=np.int64)
    return ends if len(ends) and ends[-1] == num_jets else np.array([num_jets])
