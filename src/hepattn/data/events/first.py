"""The first events of a source."""

import bisect
import hashlib

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.events.joined import EventFiles
from hepattn.data.events.source import Columns, EventSource
from hepattn.data.events.table import EventTable


class FirstEvents(EventSource):
    """The first events of a source.

    They stay the same source while files are added behind, or a last file grows.

    Args:
        source: All its events.
        num_events: How many are left.

    Raises:
        DataError: If it has fewer.
    """

    def __init__(self, source: EventSource, num_events: int) -> None:
        if num_events > source.num_events:
            raise DataError.of(
                source.name, "events", found=source.num_events, expected=f"at least {num_events}"
            )
        self.source = source
        self.num_events = num_events
        self.classes, self.columns = source.classes, source.columns
        self.files = source.files
        if isinstance(source, EventFiles):
            num_parts = 1 + bisect.bisect_left(source.ends, num_events)
            self.files = tuple(file for part in source.parts[:num_parts] for file in part.files)

    @property
    def block_ends(self) -> np.ndarray:
        """Ends of the blocks, the last of which may be cut."""
        ends = self.source.block_ends
        return np.append(ends[ends < self.num_events], self.num_events)

    def require(self, columns: Columns) -> None:
        """Refuse columns that there are not; see ``EventSource.require``."""
        self.source.require(columns)

    def read(self, start: int, stop: int, columns: Columns) -> EventTable:
        """Read and check some events; see ``EventSource.read``."""
        self.check_rows(start, stop)
        return self.source.read(start, stop, columns)

    def fingerprint(self) -> str:
        """Hash of the number of events and the names of the files that hold them."""
        lines = [str(self.num_events), *(file.name for file in self.files)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
