"""Open files of the liquid-xenon detector."""

from collections.abc import Sequence
from pathlib import Path

from hepattn.data.error import DataError
from hepattn.data.files import find_files
from hepattn.data.xec.source import XecSource


def open_xec(
    path: str | Path | Sequence[str | Path],
    tree: str = "tree",
    min_photons: float = 100.0,
    num_events: int | None = None,
) -> XecSource:
    """Open events.

    Args:
        path: A ROOT file, a folder whose ROOT files are read, a pattern such as ``run*/*.root``, or
            a list of these.
        tree: Name of the tree.
        min_photons: Photons from which on a sensor's time is used.
        num_events: Only so many events, the first ones; all by default.

    Raises:
        DataError: If there is no file, or one cannot be read.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    files = [file for one in paths for file in find_files(one, (".root",))]
    if not files:
        raise DataError.of(path, "files", found="an empty list", expected="at least one file")
    return XecSource(files, tree, min_photons, num_events)
