"""Jets in parquet files: flat columns of the top-tagging reference, or lists as in JetClass."""

# J jets, N slots

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hepattn.data.error import DataError
from hepattn.data.jets.labels import JetLabels
from hepattn.data.jets.root import find_label_columns, require_vectors
from hepattn.data.jets.source import JetFile
from hepattn.data.jets.table import NO_LABEL, JetTable, pack
from hepattn.data.jets.top import CLASSES, LABEL, SLOTS, VECTOR, find_slots
from hepattn.data.root_tree import check_counts


class ParquetJets(JetFile):
    """Jets of a parquet file.

    Either the flat columns ``E_0, PX_0, PY_0, PZ_0, E_1, …`` and ``is_signal_new``, or lists
    ``part_*`` with columns ``jet_*`` and labels.

    A part of a row group is decoded with all of it; the last such row group is kept, so that
    chunks of it that are read one after the other decode it once. So the memory is that of the
    largest row group, in the columns that are read, however long the file.

    Args:
        path: The file.
        labels: Where the labels of the second layout are.

    Raises:
        DataError: If the file or a needed column cannot be read, or it has no jets.
    """

    def __init__(self, path: Path, labels: JetLabels) -> None:
        super().__init__(path)
        self.labels = labels
        self._kept: tuple[int, list[str], pa.Table] | None = None
        try:
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
                self.num_jets = file.metadata.num_rows
                groups = range(file.metadata.num_row_groups)
                rows = [file.metadata.row_group(group).num_rows for group in groups]
        except (pa.ArrowException, OSError) as error:
            raise self.unreadable(error) from error
        self.require_jets()
        self.group_ends = np.cumsum(rows)
        self.is_flat = f"{SLOTS[0]}_0" in schema.names
        if self.is_flat:
            self.slots = find_slots(path, schema.names)
            self.columns = frozenset(VECTOR)
            self.label_columns: tuple[str, ...] = (LABEL,) if LABEL in schema.names else ()
            self.labels = JetLabels(CLASSES, column=LABEL)
        else:
            self.columns = frozenset(
                field.name
                for field in schema
                if field.name.startswith("part_" if _is_list(field.type) else "jet_")
            )
            self.label_columns = find_label_columns(path, labels, set(schema.names))
            require_vectors(path, self.columns)
        self.classes = self.labels.classes if self.label_columns else ()

    @property
    def block_ends(self) -> np.ndarray:
        """Ends of the row groups."""
        return self.group_ends

    def release(self) -> None:
        """Forget the row group that was decoded last."""
        self._kept = None

    def __getstate__(self) -> dict[str, Any]:
        """What a process that reads gets: not the row group."""
        return self.__dict__ | {"_kept": None}

    def read_raw(self, start: int, stop: int, columns: frozenset[str]) -> JetTable:
        """Read some jets; see ``JetFile.read_raw``."""
        wanted = [name for slot in self.slots for name in slot] if self.is_flat else None
        names = wanted or sorted(columns | set(VECTOR))
        try:
            table = self._read_rows(start, stop, [*names, *self.label_columns])
            if null := [name for name in table.column_names if table[name].null_count]:
                raise DataError.of(self.path, null[0], found="empty cells", expected="numbers only")
            flat = {name: table[name].to_numpy() for name in self.label_columns}
            label = self.labels.decode(flat) if flat else np.full(stop - start, NO_LABEL)
            index = np.arange(start, stop)
            if self.is_flat:
                padded = np.stack([table[name].to_numpy() for name in names], 1)
                counts, particles = pack(padded.reshape(stop - start, -1, len(VECTOR)), VECTOR)
                return JetTable(counts, particles, {}, label, index)
            counts, particles = self._unpack_lists(table, names, start)
            jets = {
                name: table[name].to_numpy().astype(np.float32)
                for name in names
                if not name.startswith("part_")
            }
            return JetTable(counts, particles, jets, label, index)
        except (pa.ArrowException, OSError) as error:
            raise self.unreadable(error) from error

    def _read_rows(self, start: int, stop: int, names: list[str]) -> pa.Table:
        first = int(np.searchsorted(self.group_ends, start, side="right"))
        last = int(np.searchsorted(self.group_ends, stop, side="left"))
        first, last = min(first, len(self.group_ends) - 1), min(last, len(self.group_ends) - 1)
        offset = int(self.group_ends[first - 1]) if first else 0
        if self._kept is not None and self._kept[:2] == (first, names) and first == last:
            return self._kept[2].slice(start - offset, stop - start)
        self._kept = None  # before more is decoded
        with pq.ParquetFile(self.path) as file:
            table = file.read_row_groups(range(first, last + 1), columns=names, use_threads=False)
        if first == last and stop - start < table.num_rows:
            self._kept = first, names, table
        return table.slice(start - offset, stop - start)

    def _unpack_lists(
        self, table: pa.Table, names: list[str], start: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        counts, particles = None, {}
        for name in names:
            if not name.startswith("part_"):
                continue
            column = table[name].combine_chunks()
            own = np.diff(column.offsets.to_numpy()).astype(np.int64)
            counts = own if counts is None else counts
            check_counts(self.path, name, own, counts, start)
            values = column.flatten()
            if values.null_count:
                raise DataError.of(self.path, name, found="empty cells", expected="numbers only")
            particles[name] = values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        return counts, particles


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)
