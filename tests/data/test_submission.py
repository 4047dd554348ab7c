"""Submissions that come back as they went, and those that are refused."""

import csv
from pathlib import Path

import numpy as np
import pytest

from hepattn.data import DataError
from hepattn.data.trackml import (
    EventSource,
    SubmissionWriter,
    open_events,
    read_submission,
    write_submission,
)


@pytest.fixture
def source(raw_events: Path) -> EventSource:
    return open_events(raw_events)


@pytest.fixture
def submission(source: EventSource, tmp_path: Path) -> Path:
    """A submission of both events, in which every third hit is in no track."""
    path = tmp_path / "deep" / "submission.csv"
    write_submission(path, source, (tracks_of(source, place) for place in (1, 0)))
    return path


def tracks_of(source: EventSource, place: int) -> tuple[int, np.ndarray, np.ndarray]:
    event = source.read(place)
    track = np.arange(event.num_hits) % 7
    return event.number, event.hits["hit_id"], np.where(np.arange(event.num_hits) % 3, track, -1)


def test_tracks_come_back_in_the_order_of_the_hits(source: EventSource, submission: Path) -> None:
    for place, (event, found) in enumerate(read_submission(submission, source)):
        number, hit_id, track = tracks_of(source, place)
        assert event.number == number
        np.testing.assert_array_equal(event.hits["hit_id"], hit_id)
        np.testing.assert_array_equal(found, np.where(track < 0, -1, track + 1))


def test_the_file_holds_every_hit_with_tracks_from_one(source: EventSource, tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    with SubmissionWriter(path, source) as writer:
        hits = source.read(1).hits["hit_id"]
        writer.add(1001, hits[[4, 2, 0, 9]], np.array([70, 3, 70, -1]))
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["event_id", "hit_id", "track_id"]
    assert {row["event_id"] for row in rows} == {"1001"}
    assert [int(row["hit_id"]) for row in rows] == hits.tolist()
    tracks = [int(row["track_id"]) for row in rows]
    assert [tracks[i] for i in (4, 2, 0, 9)] == [2, 1, 2, 0]
    assert sum(track > 0 for track in tracks) == 3


def test_an_event_without_tracks_is_written_whole(source: EventSource, tmp_path: Path) -> None:
    none = np.empty(0, dtype=np.int64)
    write_submission(tmp_path / "a.csv", source, [(1000, none, none), (1001, none, none)])
    for event, track in read_submission(tmp_path / "a.csv", source):
        assert track.tolist() == [-1] * event.num_hits


def test_the_order_of_the_rows_does_not_matter(source: EventSource, submission: Path) -> None:
    expected = [track for _, track in read_submission(submission, source)]
    header, *rows = submission.read_text().splitlines(keepends=True)
    shuffled = np.random.default_rng(0).permutation(rows)
    submission.write_text(header + "".join(shuffled))
    for (_, track), wanted in zip(read_submission(submission, source), expected, strict=True):
        np.testing.assert_array_equal(track, wanted)


def test_an_earlier_file_is_kept(source: EventSource, submission: Path) -> None:
    before = submission.read_bytes()
    with pytest.raises(DataError, match=r"submission\.csv: file: found an earlier one.*move it"):
        SubmissionWriter(submission, source)
    assert submission.read_bytes() == before


def test_a_file_that_appears_meanwhile_is_kept(source: EventSource, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    writer = SubmissionWriter(path, source)
    path.write_text("of another process")
    with pytest.raises(DataError, match="found an earlier one"):
        writer.close()
    assert path.read_text() == "of another process"


def test_the_file_appears_when_it_is_complete(source: EventSource, tmp_path: Path) -> None:
    with SubmissionWriter(tmp_path / "a.csv", source) as writer:
        writer.add(*tracks_of(source, 0))
        assert not (tmp_path / "a.csv").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_an_error_leaves_no_file(source: EventSource, tmp_path: Path) -> None:
    event = tracks_of(source, 0)
    with pytest.raises(DataError, match="it twice"):
        write_submission(tmp_path / "a.csv", source, [event, event])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("event", "hits", "message"),
    [
        (7, [], r"event 7: event_id: found an unknown event"),
        (1001, [], r"event 1001: event_id: found it twice"),
        (1000, [10**9], r"event 1000: hit_id: found 1 values that .* lacks, first 1000000000"),
        (1000, "twice", r"event 1000: hit_id: found \d+ 2 times"),
    ],
    ids=["unknown event", "event twice", "unknown hit", "hit twice"],
)
def test_what_the_events_do_not_have_cannot_be_added(
    event: int, hits: list | str, message: str, source: EventSource, tmp_path: Path
) -> None:
    if hits == "twice":
        hits = source.read(0).hits["hit_id"][[3, 3]].tolist()
    hit_id = np.array(hits, dtype=np.int64)
    with SubmissionWriter(tmp_path / "a.csv", source) as writer:
        writer.add(*tracks_of(source, 1))
        with pytest.raises(DataError, match=message):
            writer.add(event, hit_id, np.zeros_like(hit_id))


def damaged(submission: Path, fault: str) -> None:
    header, *rows = submission.read_text().splitlines(keepends=True)
    event, hit, track = rows[0].strip().split(",")  # of event 1001, which was written first
    rows = {
        "missing hit": rows[1:],
        "hit twice": [rows[1], *rows[1:]],
        "unknown hit": [f"{event},{10**9},{track}\n", *rows[1:]],
        "missing event": [row for row in rows if not row.startswith("1000,")],
        "unknown event": [*rows, f"12,{hit},1\n"],
        "no number": [f"{event},{hit},first\n", *rows[1:]],
        "missing column": rows,
    }[fault]
    header = "event_id,hit_id\n" if fault == "missing column" else header
    submission.write_text(header + "".join(rows))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing hit", r"submission\.csv: event 1001: hit_id: found no row for 1 of \d+ values"),
        ("hit twice", r"submission\.csv: event 1001: hit_id: found \d+ 2 times"),
        ("unknown hit", r"submission\.csv: event 1001: hit_id: found 1 values that"),
        ("missing event", r"submission\.csv: event_id: found no row for 1 of 2.*first 1000"),
        ("unknown event", r"submission\.csv: event_id: found 1 values that.*first 12"),
        ("no number", r"submission\.csv: track_id: .*first"),
        ("missing column", r"submission\.csv: column track_id"),
    ],
)
def test_a_submission_of_other_hits_is_refused(
    fault: str, message: str, source: EventSource, submission: Path
) -> None:
    damaged(submission, fault)
    with pytest.raises(DataError, match=message):
        list(read_submission(submission, source))


def test_a_file_that_is_not_there_is_named(source: EventSource, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: the file cannot be read"):
        list(read_submission(tmp_path / "absent.csv", source))
