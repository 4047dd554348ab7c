import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.make_trackml import make_events, make_zip, rows_of, write, write_text
from hepattn.data import DataError
from hepattn.data.trackml import CsvEvents, Event, event_number, open_events

Damage = Callable[[Path], object]
PREFIX = "event000000007-"


def same(first: Event, second: Event) -> bool:
    """Whether two events hold the same columns, in order, type and value."""
    tables = [(first.hits, second.hits), (first.particles, second.particles)]
    return first.name == second.name and all(
        (a is None and b is None)
        or (
            a is not None
            and b is not None
            and list(a) == list(b)
            and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)
        )
        for a, b in tables
    )


def test_every_value_is_that_of_the_files_joined_by_hit_id(raw_events: Path) -> None:
    event = open_events(raw_events).read(1)
    truth = {row["hit_id"]: row for row in rows_of(raw_events / "event000001001-truth.csv.gz")}
    rows = rows_of(raw_events / "event000001001-hits.csv.gz")
    assert event.num_hits == len(rows) > 100
    for i, row in enumerate(rows):
        for name, text in (row | truth[row["hit_id"]]).items():
            value = event.hits[name][i]
            integer = name.endswith("_id")
            assert value == (int(text) if integer else np.float32(text))
            assert value.dtype == (np.int64 if integer else np.float32)


def test_particle_ids_beyond_float64_stay_exact(raw_events: Path) -> None:
    event = open_events(raw_events).read(0)
    assert event.particles is not None
    rows = rows_of(raw_events / "event000001000-particles.csv.gz")
    assert event.particles["particle_id"].tolist() == [int(row["particle_id"]) for row in rows]
    assert event.particles["px"].tolist() == [float(row["px"]) for row in rows]


def test_events_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    make_events(tmp_path, numbers=[12, 3, 100000002], num_particles=1)
    names = open_events(tmp_path).names
    assert [event_number(name) for name in names] == [3, 12, 100000002]


def test_quoted_names_and_values_read_like_plain_ones(one_event: Path) -> None:
    plain = open_events(one_event).read(0)
    for path in one_event.glob("*.csv"):
        lines = [line.split(",") for line in path.read_text().splitlines()]
        quoted = [",".join(f'"{value}"' for value in line) for line in lines]
        path.write_text("\n".join(quoted) + "\n")
    assert same(open_events(one_event).read(0), plain)


@pytest.mark.parametrize("inside", ["", "train_sample/"])
def test_a_zip_reads_like_its_folder(raw_events: Path, tmp_path: Path, inside: str) -> None:
    zipped = open_events(make_zip(raw_events, tmp_path / "events.zip", inside))
    folder = open_events(raw_events)
    assert zipped.names == folder.names
    assert all(same(zipped.read(i), folder.read(i)) for i in range(2))
    assert zipped.fingerprint() == folder.fingerprint()
    assert same(pickle.loads(pickle.dumps(zipped)).read(0), folder.read(0))  # as a worker gets it


def test_the_modules_may_lie_beside_the_zip(raw_events: Path, tmp_path: Path) -> None:
    events = make_events(tmp_path / "raw")
    table = events / "detectors.csv.gz"
    table.rename(tmp_path / table.name)
    zipped = open_events(make_zip(events, tmp_path / "events.zip"))
    assert same(zipped.read(0), open_events(raw_events).read(0))


def test_hits_alone_are_an_event(one_event: Path) -> None:
    for path in one_event.glob("*"):
        if "hits" not in path.name:
            path.unlink()
    event = open_events(one_event).read(0)
    assert list(event.hits) == ["hit_id", "x", "y", "z", "volume_id", "layer_id", "module_id"]
    assert not event.has_truth


def test_the_number_of_hits_needs_no_full_read(raw_events: Path) -> None:
    source = open_events(raw_events)
    assert [source.num_hits(i) for i in range(2)] == [source.read(i).num_hits for i in range(2)]


def test_columns_that_nobody_needs_do_not_matter(one_event: Path) -> None:
    before = open_events(one_event).read(0)
    for path in one_event.glob("*.csv"):
        rows = [{"": i, "note": 0.5} | row for i, row in enumerate(rows_of(path))]
        lines = [",".join(rows[0])] + [",".join(map(str, row.values())) for row in rows]
        path.write_text("\r\n".join(lines) + "\r\n")
    assert same(open_events(one_event).read(0), before)


@pytest.mark.data
def test_the_complete_real_event(data_dir: Path) -> None:
    source = CsvEvents(data_dir / "trackml")
    event = source.read(0)
    assert source.names == ("event000000001",)  # the barrel event lies in a sub-folder
    assert event.particles is not None
    assert (event.num_hits, len(event.particles["particle_id"])) == (5527, 548)
    assert event.hits["num_cells"].sum() == 18564
    assert event.hits["weight"].sum() == pytest.approx(0.051, abs=1e-3)
    assert (event.hits["particle_id"] == 0).mean() == pytest.approx(0.15, abs=1e-3)


@pytest.mark.data
def test_the_real_event_without_cells(data_dir: Path) -> None:
    event = open_events(data_dir / "trackml" / "barrel").read(0)
    assert event.particles is not None
    assert (event.num_hits, len(event.particles["particle_id"])) == (5587, 818)
    assert "num_cells" not in event.hits


def edit(table: str, change: Callable[[list[dict[str, str]]], object]) -> Damage:
    """Damage that rewrites the rows of one table."""

    def damage(folder: Path) -> None:
        path = folder / (table if table.startswith("detectors") else f"{PREFIX}{table}.csv")
        rows = [dict(row) for row in rows_of(path)]
        change(rows)
        lines = [",".join(rows[0])] + [",".join(row.values()) for row in rows]
        path.write_text("\n".join(lines) + "\n")

    return damage


def setting(row: int, **values: str) -> Callable[[list[dict[str, str]]], object]:
    return lambda rows: rows[row].update(values)


def truncate(folder: Path) -> None:
    path = folder / f"{PREFIX}hits.csv"
    write_text(path.with_suffix(".csv.gz"), path.read_text())
    path.unlink()
    path = path.with_suffix(".csv.gz")
    path.write_bytes(path.read_bytes()[:-100])


def empty(table: str) -> Damage:
    return lambda folder: (folder / f"{PREFIX}{table}.csv").write_bytes(b"")


def header_only(table: str) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / f"{PREFIX}{table}.csv"
        path.write_text(path.read_text().partition("\n")[0] + "\n")

    return damage


def cut_last_number(folder: Path) -> None:
    path = folder / f"{PREFIX}cells.csv"
    path.write_text(path.read_text()[:-2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"hits\.csv\.gz: gzip stream: found .* truncated"),
        (empty("truth"), r"truth\.csv: header: found an empty file"),
        (cut_last_number, r"cells\.csv: last line: .*truncated"),
        (header_only("hits"), r"hits\.csv: rows: found an event without hits"),
        (edit("hits", lambda rows: [r.pop("z") for r in rows]), r"hits\.csv: column z: .*'y', 'v"),
        (edit("hits", setting(3, x="12;5")), r"hits\.csv: x: .*'12;5' in line 5.*float32"),
        (edit("hits", setting(0, hit_id="1.5")), r"hits\.csv: hit_id: .*'1\.5'.*int64"),
        (edit("hits", setting(0, x="")), r"hits\.csv: x: found no number in data row 1"),
        (edit("hits", setting(4, y="nan")), r"hits\.csv: y: found no number in data row 5"),
        (edit("hits", setting(4, z="-inf")), r"hits\.csv: z: found -inf in data row 5"),
        (edit("hits", setting(4, z="1e39")), r"hits\.csv: z: found inf in data row 5"),
        (edit("hits", lambda rows: rows.append(rows[5])), r"hits\.csv: hit_id: found \d+ 2 times"),
        (edit("hits", lambda rows: rows[2].pop("z")), r"hits\.csv: rows: .*Expected 7 columns"),
        (edit("truth", list.pop), r"hits\.csv: hit_id: found 1 values that .*truth\.csv lacks"),
        (edit("hits", list.pop), r"truth\.csv: hit_id: found 1 values that .*hits\.csv lacks"),
        (edit("truth", setting(0, particle_id="5")), r"truth\.csv: particle_id: .* first 5,"),
        (edit("cells", setting(0, hit_id="99999")), r"cells\.csv: hit_id: .* first 99999"),
        (
            edit("particles", lambda rows: rows.append(rows[0])),
            r"particles\.csv: particle_id: found \d+ 2 times",
        ),
        (
            edit("hits", lambda rows: [r.update(module_id="99") for r in rows]),
            r"hits\.csv: \(volume_id, .* unknown modules, first \(\d+, \d+, 99\)",
        ),
        (edit("hits", setting(0, volume_id="-1")), r"1 hits on unknown modules, first \(-1,"),
        (edit("detectors.csv", setting(0, pitch_u="0")), r"detectors\.csv: pitch_u: found 0\.0 mm"),
        (edit("detectors.csv", lambda rows: rows.append(rows[0])), r"detectors\.csv: \(volume_id"),
        (lambda folder: (folder / f"{PREFIX}hits.csv").unlink(), rf"expected {PREFIX}hits"),
    ],
)
def test_bad_files_name_themselves(one_event: Path, damage: Damage, message: str) -> None:
    damage(one_event)
    with pytest.raises(DataError, match=message):
        open_events(one_event).read(0)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: path: found nothing, expected a folder or a zip"):
        open_events(tmp_path / "nowhere")


def test_a_folder_without_events(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"found 1 files, none of an event, .*event000001000-hits"):
        open_events(tmp_path)


def test_a_file_that_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "events.zip").write_bytes(b"PK but not really")
    with pytest.raises(DataError, match=r"events\.zip: the zip cannot be opened"):
        open_events(tmp_path / "events.zip")


def test_a_damaged_member_of_a_zip(raw_events: Path, tmp_path: Path) -> None:
    archive = make_zip(raw_events, tmp_path / "events.zip")
    source = open_events(archive)
    content = bytearray(archive.read_bytes())
    start = content.index(b"event000001000-hits.csv.gz")
    content[start + 100] ^= 255
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"events\.zip:event000001000-hits\.csv\.gz"):
        open_events(archive).read(0)
    assert len(source) == 2


def test_two_files_for_one_table(one_event: Path) -> None:
    write(one_event / f"{PREFIX}hits.csv.gz", [{"hit_id": 1}])
    with pytest.raises(DataError, match="remove one of them"):
        open_events(one_event)


def test_an_event_name_has_nine_digits() -> None:
    assert event_number("event000001000") == 1000
    with pytest.raises(ValueError, match="'event12' must be 'event' and at least nine digits"):
        event_number("event12")
