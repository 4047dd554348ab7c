"""Open files of jets, whatever their format."""

import glob
from collections.abc import Callable, Sequence
from pathlib import Path

from hepattn.data.error import DataError
from hepattn.data.jets.labels import JetLabels
from hepattn.data.jets.source import JetFile, JetFiles, JetSource

FORMATS = {
    ".root": "root",
    ".parquet": "parquet",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".npz": "npz",
}
ARCHIVES = (".tar", ".gz", ".tgz")


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
    files = [file for one in paths for file in find_files(one)]
    if not files:
        raise DataError.of(path, "files", found="an empty list", expected="at least one file")
    opener = _opener(files, labels, tree)
    parts = [opener(file) for file in files]
    return parts[0] if len(parts) == 1 else JetFiles(parts)


def find_files(path: str | Path) -> list[Path]:
    """Files of jets that a path stands for, by name.

    Args:
        path: A file, a folder or a pattern.

    Raises:
        DataError: If there are none.
    """
    place = Path(path)
    if place.is_dir():
        files = sorted(file for file in place.iterdir() if file.suffix in FORMATS)
    elif place.exists():
        files = [place]
    else:
        files = sorted(Path(found) for found in glob.glob(str(path), recursive=True))  # noqa: PTH207
    if not files:
        raise DataError.of(
            path,
            "files",
            found="none",
            expected=f"files that end in {', '.join(FORMATS)}",
            remedy=_find_elsewhere(place) if place.is_dir() else None,
        )
    return files


def _find_elsewhere(folder: Path) -> str | None:
    """What to do about a folder that holds no file of jets itself."""
    for file in sorted(folder.rglob("*")):
        if file.suffix in FORMATS:
            return f"there are some in {file.parent}: ask for '{folder}/**/*{file.suffix}'"
        if file.suffix in ARCHIVES:
            return f"{file} is an archive: unpack it first"
    return None


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
