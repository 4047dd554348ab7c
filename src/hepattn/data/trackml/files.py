"""Bytes of files in a folder or in a zip."""

import gzip
import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hepattn.data.error import DataError


class Files(Protocol):
    """A flat view of a folder or a zip."""

    path: Path
    sizes: dict[str, int]

    def read(self, name: str) -> bytes:
        """The decompressed content of a file."""

    def label(self, name: str) -> str:
        """How messages call a file."""


class FolderFiles:
    """Files directly in a folder.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with os.scandir(path) as entries:
                self.sizes = {e.name: e.stat().st_size for e in entries if e.is_file()}
        except OSError as error:
            raise DataError(f"{path}: the folder cannot be listed: {error}") from error

    def read(self, name: str) -> bytes:
        """The decompressed content of a file."""
        try:
            content = (self.path / name).read_bytes()
        except OSError as error:
            raise DataError(f"{self.label(name)}: the file cannot be read: {error}") from error
        return decompressed(content, self.label(name))

    def label(self, name: str) -> str:
        """How messages call a file."""
        return str(self.path / name)


ZIP_FAULTS = (
    OSError,
    EOFError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,  # an unknown version or compression
    RuntimeError,  # encrypted
    ValueError,
)
"""What the standard library raises for a damaged zip."""


class ZipFiles:
    """Files of a zip, in whatever sub-folder, called by their base names.

    Each process opens the archive for itself, since a handle that forked processes share would
    mix up their reads.

    Args:
        path: The zip.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: tuple[int, zipfile.ZipFile] | None = None
        self.sizes: dict[str, int] = {}
        self._members: dict[str, str] = {}
        for info in self._archive().infolist():
            name = info.filename.rsplit("/", 1)[-1]
            if info.is_dir() or info.filename.startswith("__MACOSX/"):
                continue
            if name.startswith("event") and name in self._members:
                raise DataError.of(
                    path,
                    name,
                    found=f"{self._members[name]} and {info.filename}",
                    expected="each file once",
                    remedy="make one zip for each data set",
                )
            self._members[name] = info.filename
            self.sizes[name] = info.file_size

    def _archive(self) -> zipfile.ZipFile:
        if self._handle is None or self._handle[0] != os.getpid():
            try:
                self._handle = (os.getpid(), zipfile.ZipFile(self.path))
            except ZIP_FAULTS as error:
                raise DataError(f"{self.path}: the zip cannot be opened: {error}") from error
        return self._handle[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None}

    def read(self, name: str) -> bytes:
        """The decompressed content of a file."""
        archive = self._archive()
        try:
            content = archive.read(self._members[name])
        except ZIP_FAULTS as error:
            raise DataError(f"{self.label(name)}: the file cannot be read: {error}") from error
        return decompressed(content, self.label(name))

    def label(self, name: str) -> str:
        """How messages call a file."""
        return f"{self.path}:{self._members[name]}"


def decompressed(content: bytes, label: str) -> bytes:
    """Undo gzip where the file name says so.

    Args:
        content: The raw bytes.
        label: Name of the file.
    """
    if not label.endswith(".gz"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError.of(
            label,
            "gzip stream",
            found=f"{len(content)} bytes that are truncated or damaged ({error})",
            expected="a complete gzip file",
            remedy="fetch the file again",
        ) from error


def hash_sizes(sizes: Mapping[str, int]) -> str:
    """Hash file names and sizes, whatever their order.

    Args:
        sizes: Size of each file in bytes.
    """
    lines = "".join(f"{name}:{sizes[name]}\n" for name in sorted(sizes))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
