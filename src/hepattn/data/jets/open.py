"""Open files of jets, whatever their format."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hepattn.data.error import DataError
from hepattn.data.files import ARCHIVES, find_files
from hepattn.data.jets.labels import JetLabels
from hepattn.data.jets.source import JetFile, JetFiles, JetSource

FORMATS = {
    ".root": "root",
    ".parquet": "parquet",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".npz": "npz",
}


def open_jets(
    path: str | Path | Sequence[str | Path], labels: JetLabels | None = None, tree: str = "tree"
) -> JetSource:
    """Open jets; the suffix says the format.

    Args:
        path: A file, a folder whose files are read (not those of folders in it), a pattern such
            as ``train/*.root`` or ``train/**/*.root``, or a list of these. Files come in the
            order of the list and, within a folder or a pattern, of their names.
        labels: Where the labels of ROOT files and of parquet files with lists are; by default
            the ten classes of JetClass.
        tree: Name of the tree in ROOT files.

    Raises:
        DataError: If there is no file, one is of no known format or cannot be read, or they do
            not fit together.
    """
    labels = labels or JetLabels()
    paths = [path] if isinstance(path, str | Path) else list(path)
    files = [file for one in paths for file in find_files(one, FORMATS)]
    if not files:
        raise DataError.of(path, "files", found="an empty list", expected="at least one file")
    opener = _opener(files, labels, tree)
    parts = [opener(file) for file in files]
    return parts[0] if len(parts) == 1 else JetFiles(parts)


def _opener(files: Sequence[Path], labels: JetLabels, tree: str) -> Callable[[Path], JetFile]:
    for file in files:
        if file.suffix not in FORMATS:
            raise DataError.of(
                file,
                "suffix",
                found=file.suffix or "none",
                expected=", ".join(FORMATS),
                remedy="unpack the archive" if file.suffix in ARCHIVES else None,
            )
    formats = sorted({FORMATS[file.suffix] for file in files})
    if len(formats) > 1:
        raise DataError.of(
            files[0].parent,
            "formats",
            found=" and ".join(formats),
            expected="files of one format",
            remedy="name the files by a pattern such as *.root",
        )
    # Each format's library takes a while to load.
    match formats[0]:
        case "root":
            from hepattn.data.jets.root import RootJets

            return lambda file: RootJets(file, labels, tree)
        case "parquet":
            from hepattn.data.jets.parquet import ParquetJets

            return lambda file: ParquetJets(file, labels)
        case "hdf5":
            from hepattn.data.jets.hdf5 import open_hdf5

            return open_hdf5
        case _:
            from hepattn.data.jets.npz import NpzJets

            return NpzJets
