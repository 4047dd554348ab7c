"""Open files of events, whatever their format."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hepattn.data.error import DataError
from hepattn.data.events.hdf5 import EventHDF5
from hepattn.data.events.joined import EventFiles, ProcessEvents
from hepattn.data.events.reader import EventReader
from hepattn.data.events.source import EventSource
from hepattn.data.files import find_files

Paths = str | Path | Sequence[str | Path]


def open_events(
    path: Paths | Mapping[str, Paths], reader: EventReader | None = None
) -> EventSource:
    """Open events.

    Args:
        path: A file, a folder whose files are read (not those of folders in it), a pattern such
            as ``data/*.h5`` or ``data/**/*.h5``, or a list of these. Files come in the order of
            the list and, within a folder or a pattern, of their names, never in that of the
            disk. Or a map from the name of a process to such paths, for files of one process
            each: the processes are numbered from 0 in the order of the map, and the number is the
            column ``label``.
        reader: Knows the format of the files; by default our HDF5 format.

    Raises:
        DataError: If there is no file, a file comes twice or cannot be read, or they do not fit
            together.
    """
    reader = reader or EventHDF5()
    by_process = path if isinstance(path, Mapping) else {None: path}
    classes = {name: number for number, name in enumerate(by_process)}
    parts: list[EventSource] = []
    for process, paths in by_process.items():
        for file in _find_all(paths, reader):
            part: EventSource = reader.open_file(file)
            parts.append(part if process is None else ProcessEvents(part, process, classes))
    if not parts:
        raise DataError.of(path, "files", found="an empty list", expected="at least one file")
    files = [part.files[0].resolve() for part in parts]
    if len(set(files)) < len(files):
        twice = next(file for file in files if files.count(file) > 1)
        raise DataError.of(path, "files", found=f"{twice} twice", expected="each file once")
    return parts[0] if len(parts) == 1 else EventFiles(parts)


def _find_all(paths: Paths, reader: EventReader) -> list[Path]:
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    return [file for one in several for file in find_files(one, reader.suffixes)]
