"""Files that a path stands for, and how messages call them."""

import glob
import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

from hepattn.data.error import DataError

ARCHIVES = (".tar", ".gz", ".tgz")


def find_files(path: str | Path, suffixes: Collection[str]) -> list[Path]:
    """Files that a path stands for, by name.

    Args:
        path: A file, a folder whose files are taken (not those of folders in it), or a pattern
            such as ``train/*.root`` or ``train/**/*.root``.
        suffixes: Suffixes of the files to take from a folder.

    Raises:
        DataError: If there are none.
    """
    place = Path(path)
    if place.is_dir():
        files = sorted(file for file in place.iterdir() if file.suffix in suffixes)
    elif place.exists():
        files = [place]
    else:
        files = sorted(Path(found) for found in glob.glob(str(path), recursive=True))  # noqa: PTH207
    if not files:
        raise DataError.of(
            path,
            "files",
            found="none",
            expected=f"files that end in {', '.join(suffixes)}",
            remedy=_find_elsewhere(place, suffixes) if place.is_dir() else None,
        )
    return files


def name_files(files: Sequence[Path]) -> str:
    """How messages call some files.

    Args:
        files: The files, at least one.
    """
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0]}{more}"


def fingerprint_files(files: Sequence[Path], num_rows: int) -> str:
    """Hash of the names and sizes of files, and of their number of rows.

    Args:
        files: The files.
        num_rows: Number of rows of all files.
    """
    sizes = [f"{file.name}:{file.stat().st_size}" for file in files]
    return hashlib.sha256("\n".join([str(num_rows), *sizes]).encode()).hexdigest()[:16]


def _find_elsewhere(folder: Path, suffixes: Collection[str]) -> str | None:
    """What to do about a folder that holds no such file itself."""
    for file in sorted(folder.rglob("*")):
        if file.suffix in suffixes:
            return f"there are some in {file.parent}: ask for '{folder}/**/*{file.suffix}'"
        if file.suffix in ARCHIVES:
            return f"{file} is an archive: unpack it first"
    return None
