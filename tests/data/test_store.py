import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data.make_trackml import make_events, make_zip
from data.test_reader import same
from hepattn.data import DataError
from hepattn.data.trackml import StoredEvents, fingerprint, main, open_events, prepare


@pytest.fixture
def store(raw_events: Path, tmp_path: Path) -> Path:
    """A finished store of the two events, to be damaged."""
    return prepare(raw_events, tmp_path / "store", progress=False).path


def times(store: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in store.glob("event*.parquet")}


def test_a_store_reads_like_its_source(raw_events: Path, store: Path) -> None:
    stored, raw = open_events(store), open_events(raw_events)
    assert isinstance(stored, StoredEvents)
    assert stored.names == raw.names
    assert all(same(stored.read(i), raw.read(i)) for i in range(2))
    assert [stored.num_hits(i) for i in range(2)] == [raw.num_hits(i) for i in range(2)]
    assert fingerprint(store) == fingerprint(raw_events)


@pytest.mark.data
@pytest.mark.parametrize("folder", ["", "barrel"])
def test_a_store_of_a_real_event_reads_like_its_source(
    data_dir: Path, tmp_path: Path, folder: str
) -> None:
    source = data_dir / "trackml" / folder
    stored = prepare(source, tmp_path / "store", progress=False)
    assert same(stored.read(0), open_events(source).read(0))


@pytest.mark.slow
def test_two_processes_make_the_same_store(raw_events: Path, store: Path, tmp_path: Path) -> None:
    archive = make_zip(raw_events, tmp_path / "events.zip")
    other = prepare(archive, tmp_path / "other", num_workers=2, progress=False)
    assert [same(other.read(i), StoredEvents(store).read(i)) for i in range(2)] == [True, True]


def test_hits_alone_make_a_store(one_event: Path, tmp_path: Path) -> None:
    for path in one_event.glob("*"):
        if "hits" not in path.name:
            path.unlink()
    stored = prepare(one_event, tmp_path / "store", progress=False)
    assert same(stored.read(0), open_events(one_event).read(0))


def test_a_stopped_preparation_continues_where_it_stopped(raw_events: Path, store: Path) -> None:
    before = times(store)
    contents = json.loads((store / "store.json").read_text())
    (store / "store.json").write_text(json.dumps(contents | {"complete": False, "events": {}}))
    (store / "event000001001-hits.parquet").write_bytes(b"PAR1 cut")
    (store / ".temporary-event000001001-hits.parquet").touch()
    with pytest.raises(DataError, match=r"unfinished preparation.*continues where it stopped"):
        open_events(store)
    stored = prepare(raw_events, store, progress=False)
    assert same(stored.read(1), open_events(raw_events).read(1))
    after = times(store)
    assert {name for name in after if after[name] == before[name]} == {
        "event000001000-hits.parquet",
        "event000001000-particles.parquet",
    }
    assert not list(store.glob(".*"))


def test_a_killed_preparation_leaves_a_store_that_can_be_finished(tmp_path: Path) -> None:
    raw = make_events(tmp_path / "raw", numbers=range(6), num_particles=5)
    script = (
        "import os, sys\n"
        "from hepattn.data.trackml import prepare\n"
        "import hepattn.data.trackml.preparation as module\n"
        "write, count = module.to_parquet, [0]\n"
        "def dying(columns, path, source_hash):\n"
        "    count[0] += 1\n"
        "    if count[0] == 6:\n"
        "        path.write_bytes(b'PAR1')\n"
        "        os.kill(os.getpid(), 9)\n"
        "    write(columns, path, source_hash)\n"
        "module.to_parquet = dying\n"
        "prepare(sys.argv[1], sys.argv[2], progress=False)\n"
    )
    store = tmp_path / "store"
    process = subprocess.run([sys.executable, "-c", script, raw, store], check=False)
    assert process.returncode == -9
    done = times(store)
    assert len(done) == 5
    stored = prepare(raw, store, progress=False)
    assert len(stored) == 6
    assert all(same(stored.read(i), open_events(raw).read(i)) for i in range(6))
    assert {name: times(store)[name] for name in done if "000002-" not in name} == {
        name: time for name, time in done.items() if "000002-" not in name
    }


def test_new_events_of_the_source_are_added(
    raw_events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    raw = tmp_path / "raw"
    shutil.copytree(raw_events, raw)
    store = prepare(raw, tmp_path / "store", progress=False).path
    before = times(store)
    make_events(raw, numbers=[5], num_particles=3)
    with monkeypatch.context() as patch:
        patch.setattr("hepattn.data.trackml.preparation.to_parquet", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(raw, store, progress=False)
    assert len(open_events(store)) == 2  # what was complete stays usable
    assert prepare(raw, store, progress=False).names[0] == "event000000005"
    assert before.items() <= times(store).items()


def test_a_bad_event_stops_the_preparation(raw_events: Path, tmp_path: Path) -> None:
    shutil.copytree(raw_events, tmp_path / "raw")
    (tmp_path / "raw" / "event000001000-cells.csv.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"event000001000-cells\.csv\.gz: header: found an empty"):
        prepare(tmp_path / "raw", tmp_path / "store", progress=False)


def test_a_bad_event_is_skipped_when_asked(
    raw_events: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(raw_events, tmp_path / "raw")
    (tmp_path / "raw" / "event000001000-cells.csv.gz").write_bytes(b"")
    stored = prepare(tmp_path / "raw", tmp_path / "store", progress=False, skip_bad=True)
    assert stored.names == ("event000001001",)
    assert "skipped 1 of 2 events" in caplog.text
    assert "cells.csv.gz: header" in stored.contents.skipped["event000001000"]


def test_only_bad_events_make_no_store(one_event: Path, tmp_path: Path) -> None:
    (one_event / "event000000007-hits.csv").write_bytes(b"")
    with pytest.raises(DataError, match="events: found none readable"):
        prepare(one_event, tmp_path / "store", progress=False, skip_bad=True)


def test_a_folder_of_something_else_is_refused(raw_events: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"1 files of something else, as thesis\.tex"):
        prepare(raw_events, tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_store_is_refused(raw_events: Path, tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(DataError, match="the store's folder cannot be made"):
        prepare(raw_events, tmp_path / "store", progress=False)


def test_a_store_of_other_events_is_refused(store: Path, one_event: Path) -> None:
    with pytest.raises(DataError, match=r"found 2 events that .* lacks.*choose another folder"):
        prepare(one_event, store, progress=False)


def test_a_store_of_other_files_with_the_same_names_is_refused(store: Path, tmp_path: Path) -> None:
    other = make_events(tmp_path / "other", num_particles=4)
    with pytest.raises(DataError, match=r"event000001000-hits\.parquet: source: .*other files"):
        prepare(other, store, progress=False)


def test_a_full_disk_names_the_file(
    raw_events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hepattn.data.trackml.preparation.to_parquet", full)
    with pytest.raises(DataError, match=r"particles\.parquet: the file cannot .*No space left"):
        prepare(raw_events, tmp_path / "store", progress=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"store\.json: JSON"),
        (b"\xff\xfe", r"store\.json: JSON"),
        (b"[1]", r"store\.json: format: .*hepattn-trackml"),
        (b'{"format": "hepattn-trackml", "version": 99}', "version: found 99, expected 1"),
        (b'{"format": "hepattn-trackml", "version": 1}', "entries: found TypeError: .*fingerprint"),
    ],
)
def test_damaged_contents(store: Path, content: bytes, message: str) -> None:
    (store / "store.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_events(store)


@pytest.mark.parametrize("entry", [{}, {"num_hits": "3", "particles": True}, 3])
def test_damaged_entries_of_events(store: Path, entry: object) -> None:
    contents = json.loads((store / "store.json").read_text())
    contents["events"]["event000001000"] = entry
    (store / "store.json").write_text(json.dumps(contents))
    with pytest.raises(DataError, match="prepare the events again"):
        open_events(store)


@pytest.mark.parametrize("table", ["hits", "particles"])
@pytest.mark.parametrize("size", [None, 0, 1000])
def test_damaged_files_of_a_store(store: Path, table: str, size: int | None) -> None:
    path = store / f"event000001000-{table}.parquet"
    if size is None:
        path.unlink()
    else:
        os.truncate(path, size)
    with pytest.raises(DataError, match=rf"event000001000-{table}\.parquet: parquet"):
        open_events(store).read(0)


def test_hits_that_do_not_fit_the_contents(store: Path) -> None:
    first, second = (store / f"event00000100{i}-hits.parquet" for i in (0, 1))
    second.replace(first)
    with pytest.raises(DataError, match=r"rows: found \d+, expected \d+ as in store\.json"):
        open_events(store).read(0)


def test_a_file_with_other_columns_in_a_store(store: Path) -> None:
    particles = store / "event000001000-particles.parquet"
    particles.replace(store / "event000001000-hits.parquet")
    with pytest.raises(DataError, match=r"column hit_id: found no such column, expected int64"):
        open_events(store).read(0)


def test_the_command_line_prepares(
    raw_events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(raw_events), str(tmp_path / "store"), "--num_workers", "1"])
    captured = capsys.readouterr()
    assert captured.out == f"2 events in {tmp_path / 'store'}\n"
    assert "preparing events" in captured.err


def test_the_command_line_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*nowhere: path: found nothing"):
        main([str(tmp_path / "nowhere"), str(tmp_path / "store")])
    with pytest.raises(SystemExit, match=r"^error: num_workers=0 must be at least 1"):
        main([str(tmp_path), str(tmp_path / "store"), "--num_workers=0"])


def test_the_fingerprint_changes_with_a_file(one_event: Path) -> None:
    before = fingerprint(one_event)
    (one_event / "unrelated.txt").touch()
    assert fingerprint(one_event) == before
    with (one_event / "event000000007-hits.csv").open("a") as file:
        file.write("1,2,3,4,8,2,1\n")
    assert fingerprint(one_event) != before
