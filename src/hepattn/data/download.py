"""``hepattn download NAME``: fetch the published jet data sets."""

import argparse
import hashlib
import http.client
import json
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

RECORDS = {"jetclass": 6619768, "top": 2603256, "quarkgluon": 3164691}
BASE = "https://zenodo.org/api/records"
CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without an answer


class DownloadError(Exception):
    """A download that did not succeed; its message says what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a record.

    Args:
        name: Its name.
        size: Bytes.
        md5: Checksum, in hexadecimal digits.
        link: Where it is.
    """

    name: str
    size: int
    md5: str
    link: str


def list_files(url: str) -> list[RemoteFile]:
    """Read the list of files of a record.

    Args:
        url: Address of the record.

    Raises:
        DownloadError: If it cannot be read.
    """
    try:
        with _open(url) as answer:
            record = json.load(answer)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(
            f"{url} cannot be reached: {error}; this needs a network. On a machine that has one, "
            f"run the same command and copy the folder, or fetch the files of the record by hand; "
            "readers take any folder"
        ) from error
    except ValueError as error:
        raise DownloadError(f"{url} sent no list of files: {error}") from error
    try:
        files = [_to_file(entry) for entry in record["files"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DownloadError(f"{url} sent a list of files of another form: {error!r}") from error
    return sorted(files, key=lambda file: file.name)


def fetch(file: RemoteFile, folder: Path, progress: Progress, task: TaskID) -> bool:
    """Fetch a file, going on where an earlier attempt ended, and verify it.

    The bytes go to a file that ends in ``.part`` and gets its name when it is complete and
    verified. A complete file is never written to.

    Args:
        file: The file.
        folder: Where to.
        progress: What shows how far it is.
        task: Its line there.

    Returns:
        Whether anything had to be fetched.

    Raises:
        DownloadError: If the connection broke, or the checksum is wrong.
        OSError: If the file cannot be written, such as on a full disk; what is there is kept.
    """
    target, part = folder / file.name, folder / f"{file.name}.part"
    if target.exists():
        if target.stat().st_size == file.size and md5_of(target) == file.md5:
            progress.update(task, completed=file.size)
            return False
        raise DownloadError(
            f"{target} exists and is not the published file ({file.size} bytes, md5 {file.md5}); "
            "it is left as it is: move it away and start again"
        )
    if not part.exists() or part.stat().st_size < file.size:
        _transfer(file, part, progress, task)
    progress.update(task, completed=part.stat().st_size)
    if (size := part.stat().st_size) < file.size:
        raise DownloadError(
            f"{file.name}: the connection ended after {size} of {file.size} bytes; start again, "
            "what is here will be kept"
        )
    if size > file.size or (found := md5_of(part)) != file.md5:
        part.unlink()
        what = f"{size} bytes" if size > file.size else f"md5 {found}"
        expected = f"{file.size} bytes" if size > file.size else file.md5
        raise DownloadError(
            f"{file.name}: {what} instead of {expected}; what was fetched is removed, start again"
        )
    part.rename(target)
    return True


def _transfer(file: RemoteFile, part: Path, progress: Progress, task: TaskID) -> None:
    start = part.stat().st_size if part.exists() else 0
    with _broken_off(file.link):
        answer = _open(file.link, {"Range": f"bytes={start}-"} if start else {})
    with answer:
        goes_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        start = start if goes_on else 0  # the server sent all of it
        progress.update(task, completed=start)
        # What goes wrong with the file is no fault of the connection, and told as it is.
        with part.open("ab" if goes_on else "wb") as out:
            while block := _read_block(file.link, answer):
                out.write(block)
                progress.advance(task, len(block))


def _open(url: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"the address {url!r} must begin with https:// or http://")
    request = urllib.request.Request(url, headers=headers or {})
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _read_block(link: str, answer: http.client.HTTPResponse) -> bytes:
    with _broken_off(link):
        try:
            return answer.read(CHUNK)
        except http.client.IncompleteRead:
            return b""  # shorter than it said; the size tells


@contextmanager
def _broken_off(link: str) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(
            f"{link} broke off: {error}; start again, what is here will be kept"
        ) from error


def md5_of(path: Path) -> str:
    """Checksum of a file, in hexadecimal digits.

    Args:
        path: The file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def download(name: str, folder: Path, base: str = BASE, only: str = "") -> list[Path]:
    """Fetch a data set.

    Args:
        name: One of ``RECORDS``.
        folder: Where to; made if absent.
        base: Address under which the records are.
        only: Part of the names of the files to fetch.

    Returns:
        The files.

    Raises:
        DownloadError: If one cannot be fetched or is damaged.
        OSError: If one cannot be written.
    """
    files = [file for file in list_files(f"{base}/{RECORDS[name]}") if only in file.name]
    if not files:
        raise DownloadError(f"no file of {name} has {only!r} in its name")
    folder.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for file in files:
            task = progress.add_task(file.name, total=file.size)
            fetch(file, folder, progress, task)
    return [folder / file.name for file in files]


def main(args: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        args: Command line arguments, by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="hepattn download",
        description="Fetch a published set of jets from Zenodo. A download that was broken off "
        "goes on where it ended; every file is verified.",
        allow_abbrev=False,
    )
    parser.add_argument("name", choices=RECORDS, help="data set")
    parser.add_argument("--folder", type=Path, help="where to; data/NAME by default")
    parser.add_argument("--only", default="", help="only files with this in their names")
    parser.add_argument("--base", default=BASE, help="address under which the records are")
    options = parser.parse_args(args)
    folder = options.folder or Path("data") / options.name
    try:
        files = download(options.name, folder, options.base, options.only)
    except DownloadError as error:
        _stop(str(error))
    except OSError as error:
        _stop(f"{folder}: {error}; free space or choose another --folder")
    print(f"{len(files)} files in {folder}, all verified")


def _stop(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def _to_file(entry: dict) -> RemoteFile:
    name = entry["key"]
    if Path(name).name != name:
        raise ValueError(f"{name!r} is no name of a file")
    kind, _, digits = entry["checksum"].partition(":")
    if kind != "md5":
        raise ValueError(f"checksum {entry['checksum']!r} is no md5")
    links = entry["links"]
    return RemoteFile(name, int(entry["size"]), digits, links.get("content") or links["self"])


if __name__ == "__main__":
    main()
