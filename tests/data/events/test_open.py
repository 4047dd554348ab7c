"""Several files are one source, in an order that no disk decides."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from data.events.make_events import CLASSES, draw_tables, write_ours
from hepattn.data import DataError
from hepattn.data.events import open_events, write_events
from hepattn.data.events.first import FirstEvents
from hepattn.data.events.source import Columns

MET = Columns(frozenset({"met"}), {"jets": frozenset({"pt"})})


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three files, the last of which is written first."""
    sizes = {"c": 3, "a": 4, "b": 5}
    return [write_ours(tmp_path / f"{name}.h5", draw_tables(n)) for name, n in sizes.items()]


def test_files_come_by_name_or_in_the_order_of_the_list(files: list[Path], tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    assert [file.stem for file in open_events(tmp_path).files] == names
    assert [file.stem for file in open_events(f"{tmp_path}/*.h5").files] == names
    assert [file.stem for file in open_events(files).files] == ["c", "a", "b"]


def test_rows_run_through_all_files(files: list[Path]) -> None:
    source = open_events(files)
    met = [draw_tables(n)["events"]["met"] for n in (3, 4, 5)]
    table = source.read(2, 8, MET)
    assert (table.events["met"] == np.concatenate(met)[2:8]).all()
    assert (table.index == np.arange(2, 8)).all()
    assert source.block_ends.tolist() == [3, 7, 12]
    assert table.objects["jets"].valid.shape == (6, 4)


def test_files_of_other_widths_are_padded(tmp_path: Path) -> None:
    wide, narrow = draw_tables(3), draw_tables(4)
    narrow["jets"] = narrow["jets"][:, :2]
    paths = [write_ours(tmp_path / "a.h5", wide), write_ours(tmp_path / "b.h5", narrow)]
    jets = open_events(paths).read(0, 7, MET).objects["jets"]
    padded = np.pad(narrow["jets"]["valid"], ((0, 0), (0, 2)))
    assert (jets.valid == np.concatenate([wide["jets"]["valid"], padded])).all()


def test_a_file_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    fewer = draw_tables(4)
    fewer["events"] = fewer["events"][["label", "weight", "event_number"]]
    write_ours(tmp_path / "a.h5", draw_tables(4))
    write_ours(tmp_path / "b.h5", fewer)
    source = open_events(tmp_path)
    assert "met" not in source.columns.events
    with pytest.raises(DataError, match=r"b.h5: columns of events: found no met"):
        source.require(MET)


def test_files_must_number_their_processes_alike(tmp_path: Path) -> None:
    write_ours(tmp_path / "a.h5", draw_tables(4))
    write_events(tmp_path / "b.h5", draw_tables(4), {**CLASSES, "wjets": 7})
    assert open_events(tmp_path).classes == {**CLASSES, "wjets": 7}
    write_events(tmp_path / "c.h5", draw_tables(4), {"ttbar": 5, "x": 0, "y": 1})
    with pytest.raises(DataError, match=r"c.h5: classes: found ttbar: 5"):
        open_events(tmp_path)


def test_a_process_a_file_becomes_the_label(tmp_path: Path) -> None:
    for name in "ab":
        with h5py.File(write_ours(tmp_path / f"{name}.h5", draw_tables(3)), "a") as file:
            del file["events"]
            file["events"] = draw_tables(3)["events"][["met", "year"]]
    source = open_events({"zjets": tmp_path / "b.h5", "ttbar": [tmp_path / "a.h5"]})
    table = source.read(0, 6, Columns(frozenset({"label", "met"})))
    assert source.classes == {"zjets": 0, "ttbar": 1}
    assert table.events["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert len(source.read(0, 6, MET).events) == 1


def test_a_process_of_the_path_and_a_label_exclude_each_other(files: list[Path]) -> None:
    with pytest.raises(DataError, match=r"label: found a column beside the process data"):
        open_events({"data": files[0], "mc": files[1]})


def test_paths_without_files_and_double_ones_are_refused(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found none, expected files that end in .h5, .hdf5"):
        open_events(tmp_path / "*.root")
    with pytest.raises(DataError, match=r"found an empty list"):
        open_events([])
    with pytest.raises(DataError, match=r"c.h5 twice, expected each file once"):
        open_events([tmp_path, files[0]])


def test_fingerprint_knows_the_files(files: list[Path]) -> None:
    source = open_events(files)
    assert source.fingerprint() == open_events(files).fingerprint()
    assert source.fingerprint() != open_events(files[:2]).fingerprint()


def test_the_first_events_stay_the_same_when_files_are_added(files: list[Path]) -> None:
    few = FirstEvents(open_events(files[:2]), 5)
    more = FirstEvents(open_events(files), 5)
    assert few.block_ends.tolist() == more.block_ends.tolist() == [3, 5]
    tables = [source.read(1, 5, MET) for source in (few, more)]
    assert (tables[0].events["met"] == tables[1].events["met"]).all()
    assert few.fingerprint() == more.fingerprint()
    assert few.fingerprint() != FirstEvents(open_events(files), 6).fingerprint()
    with pytest.raises(ValueError, match=r"rows 4 to 6 must lie within 5 events"):
        more.read(4, 6, MET)
    with pytest.raises(DataError, match=r"events: found 7, expected at least 8"):
        FirstEvents(open_events(files[:2]), 8)
    write_ours(files[1], draw_tables(6))  # the last file grows
    grown = FirstEvents(open_events(files), 5)
    assert grown.fingerprint() == few.fingerprint()
    assert [file.stem for file in grown.files] == ["c", "a"]
