"""CSV bytes to checked columns."""

import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from hepattn.data.error import DataError
from hepattn.data.trackml.event import Columns

Schema = Mapping[str, np.dtype | type]

HITS: Schema = {
    "hit_id": np.int64,
    "x": np.float32,
    "y": np.float32,
    "z": np.float32,
    "volume_id": np.int64,
    "layer_id": np.int64,
    "module_id": np.int64,
}
TRUTH: Schema = {
    "hit_id": np.int64,
    "particle_id": np.int64,
    "tx": np.float32,
    "ty": np.float32,
    "tz": np.float32,
    "tpx": np.float32,
    "tpy": np.float32,
    "tpz": np.float32,
    "weight": np.float32,
}
PARTICLES: Schema = {"particle_id": np.int64} | dict.fromkeys(
    ("vx", "vy", "vz", "px", "py", "pz", "q"), np.float64
)
CELLS: Schema = {"hit_id": np.int64, "ch0": np.int64, "ch1": np.int64, "value": np.float64}
ROTATION = tuple(f"rot_{row}{column}" for row in "xyz" for column in "uvw")
DETECTORS: Schema = dict.fromkeys(("volume_id", "layer_id", "module_id"), np.int64) | dict.fromkeys(
    (*ROTATION, "module_t", "pitch_u", "pitch_v"), np.float64
)

CONVERSION = re.compile(r"In CSV column #(\d+): (?:Row #(\d+): )?(.*)", re.DOTALL)


def read_table(content: bytes, schema: Schema, label: str) -> Columns:
    """Parse a CSV file; other columns than the wanted ones are ignored.

    Args:
        content: The file.
        schema: Names and types of the wanted columns.
        label: Name of the file, for messages.

    Raises:
        DataError: If a column is missing or there twice, a row is too short or too long, a value
            is empty, not a number of its type, or not finite, or the last line has no end.
    """
    header = _header(content, label)
    if not content.endswith(b"\n"):
        # The only trace of a file that was cut in the middle of its last number.
        raise DataError.of(
            label,
            "last line",
            found="no end of line: the file looks truncated",
            expected="a line feed",
            remedy="fetch the file again, or end the line if the file is complete",
        )
    for name in schema:
        if header.count(name) != 1:
            raise DataError.of(
                label,
                f"column {name}",
                found="it twice" if name in header else f"only the columns {header}"[:300],
                expected=f"each of {list(schema)} once",
            )
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(content),
            read_options=pa_csv.ReadOptions(use_threads=False),  # workers are processes
            convert_options=pa_csv.ConvertOptions(
                include_columns=list(schema),
                column_types={name: pa.from_numpy_dtype(dtype) for name, dtype in schema.items()},
            ),
        )
    except (pa.ArrowException, OSError) as error:
        raise _parse_error(str(error), header, schema, label) from error
    return to_columns(table, label)


def to_columns(table: pa.Table, label: str) -> Columns:
    """Copy an Arrow table into arrays, all of whose values are there and finite."""
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy()))
            raise DataError.of(
                label, name, found=f"no number in data row {row + 1}", expected="numbers only"
            )
        values = np.array(column.to_numpy())
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            raise DataError.of(
                label, name, found=f"{values[row]} in data row {row + 1}", expected="finite values"
            )
        columns[name] = values
    return columns


def _header(content: bytes, label: str) -> list[str]:
    """Column names: the first line that is not empty."""
    lines = content.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    if not lines:
        raise DataError.of(label, "header", found="an empty file", expected="a line of names")
    line = lines[: lines.find(b"\n")] if b"\n" in lines else lines
    return [name.strip('"') for name in line.decode(errors="replace").rstrip("\r").split(",")]


def _parse_error(message: str, header: list[str], schema: Schema, label: str) -> DataError:
    """Say in terms of the file what Arrow says in terms of column numbers."""
    match = CONVERSION.match(message)
    if match is None:
        return DataError.of(
            label, "rows", found=message[:300], expected=f"{len(header)} values a row"
        )
    name = header[int(match[1])] if int(match[1]) < len(header) else f"column {match[1]}"
    place = f" in line {match[2]}" if match[2] else ""
    dtype = np.dtype(schema[name]).name if name in schema else "a number"
    return DataError.of(label, name, found=f"{match[3][:200]}{place}", expected=f"{dtype} values")


def find_rows(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Row of each wanted key, -1 where it is absent.

    Args:
        keys: Unique keys, in any order.
        wanted: Keys to look for.
    """
    if not len(keys):
        return np.full(len(wanted), -1)
    order = np.argsort(keys, kind="stable")
    place = np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)
    rows = order[place]
    return np.where(keys[rows] == wanted, rows, -1)


def check_unique(keys: np.ndarray, field: str, label: str) -> None:
    """Raise if a key comes twice."""
    values, counts = np.unique(keys, return_counts=True)
    if len(values) < len(keys):
        key = values[np.argmax(counts > 1)]
        raise DataError.of(
            label, field, found=f"{key} {counts.max()} times", expected="each value once"
        )


def check_known(rows: np.ndarray, wanted: np.ndarray, field: str, label: str, where: str) -> None:
    """Raise if ``find_rows`` did not find a key.

    Args:
        rows: What ``find_rows`` returned.
        wanted: The keys it looked for.
        field: Name of the key.
        label: File that holds the wanted keys.
        where: File that should hold them too.
    """
    if (rows < 0).any():
        absent = wanted[rows < 0]
        raise DataError.of(
            label,
            field,
            found=f"{len(absent)} values that {where} lacks, first {absent[0]}",
            expected=f"only values of {where}",
        )
