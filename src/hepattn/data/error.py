"""The one error of every reader."""

from typing import Any, Self


class DataError(ValueError):
    """Data that cannot be read or that contradicts itself.

    Its message names the file, the field, what was found and what was expected, and, where there
    is one, the remedy.
    """

    @classmethod
    def of(
        cls, file: object, field: str, *, found: Any, expected: object, remedy: str | None = None
    ) -> Self:
        """Compose the message from its parts.

        Args:
            file: File (or event) that holds the fault.
            field: Column, table or property at fault.
            found: What is there.
            expected: What should be there.
            remedy: What the user can do.
        """
        message = f"{file}: {field}: found {found}, expected {expected}"
        return cls(f"{message}; {remedy}" if remedy else message)
