"""Downloads from a local server that breaks off, lies or sends everything anew."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from hepattn.data.download import RECORDS, DownloadError, download, main

CONTENT = {
    "train.h5": np.random.default_rng(0).bytes(50_000),
    "val.h5": np.random.default_rng(1).bytes(1000),
}


class Server(ThreadingHTTPServer):
    """Serves one record; what goes wrong is set by the tests."""

    daemon_threads = True
    break_after: int | None = None  # bytes of an answer
    knows_ranges = True
    md5: str | None = None  # instead of the right one
    record: bytes | None = None  # instead of the right one
    ranges: list[str | None]

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api/records"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if self.path == f"/api/records/{RECORDS['top']}":
            body = self.server.record or self.list_files()
            self.answer(200, body, len(body))
        elif name in CONTENT:
            asked = self.headers.get("Range")
            self.server.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            if not self.server.knows_ranges:
                start = 0
            body = CONTENT[name][start:]
            self.answer(206 if start else 200, body[: self.server.break_after], len(body))
        else:
            self.send_error(404)

    def list_files(self) -> bytes:
        files = [
            {
                "key": name,
                "size": len(content),
                "checksum": f"md5:{self.server.md5 or hashlib.md5(content).hexdigest()}",
                "links": {"self": f"{self.server.base}/files/{name}"},
            }
            for name, content in CONTENT.items()
        ]
        return json.dumps({"files": files}).encode()

    def answer(self, status: int, body: bytes, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.ranges = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def is_complete(folder: Path) -> bool:
    names = {file.name for file in folder.iterdir()}
    return names == set(CONTENT) and all(
        (folder / name).read_bytes() == content for name, content in CONTENT.items()
    )


def test_files_of_a_record_are_fetched_and_verified(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["top", "--folder", str(tmp_path / "new"), "--base", server.base])
    assert is_complete(tmp_path / "new")
    assert "2 files" in capsys.readouterr().out


def test_download_goes_on_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    server.break_after = 30_000
    with pytest.raises(DownloadError, match=r"train.h5: .* after 30000 of 50000 bytes; start aga"):
        download("top", tmp_path, server.base)
    assert [file.name for file in tmp_path.iterdir()] == ["train.h5.part"]
    server.break_after = None
    download("top", tmp_path, server.base)
    assert is_complete(tmp_path)
    assert server.ranges == [None, "bytes=30000-", None]


def test_server_that_knows_no_ranges_sends_all_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "train.h5.part").write_bytes(CONTENT["train.h5"][:100])
    server.knows_ranges = False
    download("top", tmp_path, server.base)
    assert is_complete(tmp_path)


def test_complete_part_is_only_verified(server: Server, tmp_path: Path) -> None:
    (tmp_path / "train.h5.part").write_bytes(CONTENT["train.h5"])
    download("top", tmp_path, server.base, only="train")
    assert (tmp_path / "train.h5").read_bytes() == CONTENT["train.h5"]
    assert server.ranges == []


def test_complete_files_are_not_fetched_again(server: Server, tmp_path: Path) -> None:
    download("top", tmp_path, server.base)
    server.ranges.clear()
    download("top", tmp_path, server.base)
    assert server.ranges == []


def test_wrong_checksum_is_an_error_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.md5 = "0" * 32
    with pytest.raises(DownloadError, match=r"train.h5: md5 [0-9a-f]{32} instead of 0{32}"):
        download("top", tmp_path, server.base)
    assert list(tmp_path.iterdir()) == []


def test_other_files_of_the_same_name_are_never_overwritten(server: Server, tmp_path: Path) -> None:
    (tmp_path / "train.h5").write_text("mine")
    with pytest.raises(DownloadError, match="exists and is not the published file"):
        download("top", tmp_path, server.base)
    assert (tmp_path / "train.h5").read_text() == "mine"


def test_no_network_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["jetclass", "--folder", str(tmp_path), "--base", "http://127.0.0.1:9"])
    assert stop.value.code == 1
    assert "needs a network" in capsys.readouterr().err


@pytest.mark.parametrize("record", [b"<html>", b"{}", b'{"files": [{"key": "../up"}]}', b"[]"])
def test_strange_answers_are_errors(server: Server, tmp_path: Path, record: bytes) -> None:
    server.record = record
    with pytest.raises(DownloadError, match="list of files"):
        download("top", tmp_path, server.base)


def test_unknown_part_of_a_name_is_an_error(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="'test'"):
        download("top", tmp_path, server.base, only="test")


def test_other_addresses_than_those_of_the_web_are_refused(tmp_path: Path) -> None:
    (tmp_path / str(RECORDS["top"])).write_text("{}")
    with pytest.raises(DownloadError, match=r"'file://.*' must begin with https:// or http://"):
        download("top", tmp_path / "new", tmp_path.as_uri())


def test_links_of_a_record_must_be_addresses_of_the_web(server: Server, tmp_path: Path) -> None:
    entry = {"key": "a.h5", "size": 1, "checksum": "md5:0", "links": {"self": "file:///etc/hosts"}}
    server.record = json.dumps({"files": [entry]}).encode()
    with pytest.raises(DownloadError, match=r"'file:///etc/hosts' must begin with"):
        download("top", tmp_path, server.base)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_disk_is_not_taken_for_a_broken_connection(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def open_full(path: Path, mode: str) -> IO[bytes]:
        path.touch()
        return open("/dev/full", mode, buffering=0)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        with pytest.raises(SystemExit):
            main(["top", "--folder", str(tmp_path), "--base", server.base])
    message = capsys.readouterr().err
    assert "No space left on device; free space" in message
    assert "broke off" not in message
