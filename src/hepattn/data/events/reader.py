"""What a configured reader of event files can do."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from hepattn.data.events.source import EventFile


class EventReader(ABC):
    """Knows how files of one format hold events.

    Attributes:
        suffixes: What names of such files end in.
    """

    suffixes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def open_file(self, path: Path) -> EventFile:
        """Open a file.

        Args:
            path: The file.

        Raises:
            DataError: If it cannot be read or is not of this format.
        """
