"""Predictions on disk, by event, in the order of the input."""

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import uproot
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from hepattn.training.run_directory import RunDirectoryError

Columns = dict[str, np.ndarray]
DEFAULT_NAME = "predictions.parquet"
TREE = "predictions"


class PredictionWriter(Callback):
    """Write the predictions of a test or prediction, batch by batch, so that memory stays flat.

    The module's ``predictions`` are a dictionary of columns of equal length, one row a real token
    or one row an event, among them the event's number, for example ``event``, ``hit_id``,
    ``score``. The file appears under its name only when it is complete. Every process of a
    distributed run writes its own file, ``predictions_rank1.parquet`` and so on.

    Args:
        path: File to write, ``.parquet``, ``.h5`` or ``.root`` (a tree ``predictions``); by default
            ``predictions.parquet`` in the evaluation's own new folder.
        overwrite: Whether an existing file may be replaced.
        rows_per_group: Number of rows kept in memory before they are written.

    Raises:
        ValueError: If the suffix of ``path`` names no known format.
    """

    def __init__(
        self, path: str | None = None, overwrite: bool = False, rows_per_group: int = 500_000
    ) -> None:
        self.path = path
        self.overwrite = overwrite
        self.rows_per_group = rows_per_group
        if path is not None and Path(path).suffix not in SINKS:
            raise ValueError(f"path={path} must end in {' or '.join(SINKS)}")
        self.file: Path | None = None
        self._sink: _Sink | None = None
        self._pending: list[Columns] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to replace an earlier file before any time is spent."""
        if self.path is None:
            return
        self.file = self._of_rank(Path(self.path), trainer)
        if self.file.exists() and not self.overwrite and not trainer.fast_dev_run:
            raise RunDirectoryError(
                f"{self.file} exists already; move it, or give the PredictionWriter another path "
                "or overwrite: true"
            )

    on_test_start = on_predict_start

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Take the columns of a batch."""
        self._take(outputs, trainer, pl_module)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Take the columns of a test batch, where the module makes any."""
        if outputs["predictions"]:
            self._take(outputs["predictions"], trainer, pl_module)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rest and give the file its name."""
        if not self._pending and self._sink is None:
            return
        self._flush()
        self._sink.close()
        self._sink.path.replace(self.file)
        self._sink = None
        print(f"predictions written to {self.file}")
        self.file = None

    on_test_end = on_predict_end

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Remove the incomplete file."""
        self._pending = []
        if self._sink is not None:
            self._sink.close()
            self._sink.path.unlink(missing_ok=True)
            self._sink = None

    def _take(self, outputs: Any, trainer: Trainer, pl_module: LightningModule) -> None:
        columns = _columns(outputs)
        if trainer.fast_dev_run:
            return
        if self.file is None:
            self.file = self._of_rank(pl_module.evaluation_folder / DEFAULT_NAME, trainer)
        self._pending.append(columns)
        rows = sum(len(next(iter(pending.values()))) for pending in self._pending)
        if rows >= self.rows_per_group:
            self._flush()

    def _of_rank(self, path: Path, trainer: Trainer) -> Path:
        rank = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        return path.with_name(f"{path.stem}{rank}{path.suffix}")

    def _flush(self) -> None:
        if not self._pending:
            return
        names = list(self._pending[0])
        for columns in self._pending:
            if list(columns) != names:
                raise ValueError(f"predictions returned {list(columns)} after {names}")
        merged = {n: np.concatenate([columns[n] for columns in self._pending]) for n in names}
        self._pending = []
        if self._sink is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            part = self.file.with_name(f"{self.file.name}.part")
            self._sink = SINKS[self.file.suffix](part, merged)
        self._sink.append(merged)


class _Sink(abc.ABC):
    path: Path

    @abc.abstractmethod
    def append(self, columns: Columns) -> None: ...

    @abc.abstractmethod
    def close(self) -> None: ...


class _Parquet(_Sink):
    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self._schema = pa.table(columns).schema
        self._writer = pq.ParquetWriter(path, self._schema)

    def append(self, columns: Columns) -> None:
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class _Hdf5(_Sink):
    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self._file = h5py.File(path, "w")
        for name, values in columns.items():
            self._file.create_dataset(
                name, shape=(0,), maxshape=(None,), dtype=values.dtype, chunks=True
            )

    def append(self, columns: Columns) -> None:
        for name, values in columns.items():
            data = self._file[name]
            data.resize(len(data) + len(values), axis=0)
            data[len(data) - len(values) :] = values

    def close(self) -> None:
        self._file.close()


class _Root(_Sink):
    """A tree with one entry a row, in the order of the rows, so that it can be a friend."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        types = {name: values.dtype for name, values in _branches(columns).items()}
        self._file = uproot.recreate(path)
        self._tree = self._file.mktree(TREE, types)

    def append(self, columns: Columns) -> None:
        if len(next(iter(columns.values()))):
            self._tree.extend(_branches(columns))

    def close(self) -> None:
        self._file.close()


def _branches(columns: Columns) -> Columns:
    """Columns as ROOT can hold them: it has no half precision."""
    for name, values in columns.items():
        if values.dtype.kind not in "biuf":
            raise ValueError(
                f"column {name!r} of predictions has the type {values.dtype}, which no branch of a "
                "ROOT tree holds; write .parquet"
            )
    is_half = {name: values.dtype == np.float16 for name, values in columns.items()}
    return {n: v.astype(np.float32) if is_half[n] else v for n, v in columns.items()}


SINKS: dict[str, type[_Sink]] = {
    ".parquet": _Parquet,
    ".h5": _Hdf5,
    ".hdf5": _Hdf5,
    ".root": _Root,
}


def _columns(outputs: Any) -> Columns:
    if not isinstance(outputs, Mapping) or not outputs:
        raise ValueError(
            f"predictions must be a dictionary of columns, got {type(outputs).__name__}"
        )
    columns = {name: _array(values) for name, values in outputs.items()}
    shapes = {name: values.shape for name, values in columns.items()}
    if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) != 1:
        raise ValueError(f"columns of predictions must be 1-D and of one length, got {shapes}")
    return columns


def _array(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        if values.dtype == torch.bfloat16:  # numpy has no such type
            values = values.float()
        values = values.detach().cpu().numpy()
    return np.asarray(values)
