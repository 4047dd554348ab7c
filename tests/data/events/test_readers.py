"""Files of all formats hold the same events, and faults are found."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import uproot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.events.make_events import (
    CLASSES,
    draw_tables,
    write_grouped,
    write_ours,
    write_padded,
    write_root,
)
from hepattn.data import DataError
from hepattn.data.events import (
    EventHDF5,
    EventReader,
    EventSource,
    GroupedHDF5,
    PaddedHDF5,
    RootEvents,
    open_events,
)
from hepattn.data.events.source import Columns
from hepattn.data.events.table import EventTable

TABLES = draw_tables(20)
PREFIXES = {"jets": "Jet_", "muons": "Muon_"}
GROUPS = {"jets": "INPUTS/Jets", "muons": "INPUTS/Muons"}
READERS: dict[str, EventReader] = {
    "ours.h5": EventHDF5(),
    "grouped.h5": GroupedHDF5(GROUPS),
    "padded.h5": PaddedHDF5(-999.0),
    "jagged.root": RootEvents(objects=PREFIXES),
}
METADATA = json.dumps({"labels": CLASSES, "pad_values": {"jets": -999}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same events in each format."""
    place = tmp_path_factory.mktemp("events")
    write_ours(place / "ours.h5", TABLES)
    write_grouped(place / "grouped.h5", TABLES, GROUPS)
    write_padded(place / "padded.h5", TABLES, -999, METADATA)
    write_root(place / "jagged.root", TABLES, PREFIXES)
    return place


def open_one(folder: Path, name: str) -> EventSource:
    return open_events(folder / name, READERS[name])


def read_all(path: Path) -> EventTable:
    source = open_events(path, READERS[path.name.removeprefix("damaged_")])
    return source.read(0, source.num_events, source.columns)


def compact(valid: np.ndarray, values: np.ndarray) -> list[list[float]]:
    return [row[real].tolist() for row, real in zip(values, valid, strict=True)]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("rows", [(0, 20), (7, 13), (5, 5)])
def test_every_format_gives_the_same_events(folder: Path, name: str, rows: tuple[int, int]) -> None:
    source = open_one(folder, name)
    prefix = "INPUTS/Event/" if name == "grouped.h5" else ""
    wanted = Columns(
        frozenset({f"{prefix}met", f"{prefix}event_number"}),
        {"jets": frozenset({"pt", "btag"}), "muons": frozenset({"charge"})},
    )
    table = source.read(*rows, wanted)
    assert source.num_events == 20
    assert source.block_ends[-1] == 20
    for column in ("met", "event_number"):
        assert (table.events[prefix + column] == TABLES["events"][column][slice(*rows)]).all()
    for kind, columns in wanted.objects.items():
        assert set(table.objects[kind].columns) == columns
        for column in columns:
            read = compact(table.objects[kind].valid, table.objects[kind].columns[column])
            written = TABLES[kind][slice(*rows)]
            assert read == compact(written["valid"], written[column])


@pytest.mark.parametrize("name", READERS)
def test_missing_columns_are_named_with_those_there(folder: Path, name: str) -> None:
    source = open_one(folder, name)
    with pytest.raises(DataError, match=r"columns of events: found no ht, .*event_number"):
        source.read(0, 2, Columns(frozenset({"ht"})))
    with pytest.raises(DataError, match=r"columns of jets: found no charge, .*btag, eta"):
        source.read(0, 2, Columns(objects={"jets": frozenset({"charge", "pt"})}))
    with pytest.raises(DataError, match=r"kinds of objects: found no taus, .*jets"):
        source.read(0, 2, Columns(objects={"taus": frozenset()}))


@pytest.mark.parametrize("name", READERS)
def test_truncated_files_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"(?s){name}: contents: .*fetch the file again"):
        read_all(tmp_path / name)


FUZZ = settings(
    max_examples=24,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(name=st.sampled_from(list(READERS)), share=st.floats(0, 0.999), value=st.binary(max_size=9))
def test_damaged_files_give_events_or_one_error(
    folder: Path, name: str, share: float, value: bytes
) -> None:
    damaged = folder / f"damaged_{name}"
    content = (folder / name).read_bytes()
    place = int(share * len(content))
    rest = content[place + len(value) :] if value else b""  # nothing: truncated
    damaged.write_bytes(content[:place] + value + rest)
    try:
        assert len(read_all(damaged).index)
    except DataError:
        pass
    finally:
        damaged.unlink()


@pytest.mark.parametrize("kind", ["events", "jets"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, kind: str, value: float) -> None:
    tables = draw_tables(9)
    if kind == "events":
        tables["events"]["met"][7] = value
    else:
        tables["jets"]["valid"][7, 3] = True
        tables["jets"][7, 3] = (value, 1, 1, 1, 0, True)
    source = open_events(write_ours(tmp_path / "a.h5", tables))
    name = "met" if kind == "events" else "jets.pt"
    wanted = Columns(frozenset({"met"}), {"jets": frozenset({"pt"})})
    source.read(0, 7, wanted)
    with pytest.raises(DataError, match=rf"event 7: {name}: found (nan|inf), expected finite"):
        source.read(5, 9, wanted)


def test_datasets_of_other_lengths_are_refused(tmp_path: Path) -> None:
    path = write_ours(tmp_path / "ours.h5", TABLES)
    with h5py.File(path, "a") as file:
        jets = file["jets"][:12]
        del file["jets"]
        file["jets"] = jets
    with pytest.raises(DataError, match=r"ours.h5: jets: rows: found 12, expected 20"):
        open_events(path)
    path = write_grouped(tmp_path / "grouped.h5", TABLES, GROUPS)
    with h5py.File(path, "a") as file:
        del file["INPUTS/Event/met"], file["INPUTS/Jets/pt"]
        file["INPUTS/Event/met"], file["INPUTS/Jets/pt"] = np.ones(12), np.ones((20, 3))
    source = open_events(path, READERS["grouped.h5"])
    with pytest.raises(DataError, match=r"INPUTS/Event/met: rows: found 12, expected 20"):
        source.read(0, 5, Columns(frozenset({"INPUTS/Event/met"})))
    with pytest.raises(DataError, match=r"Jets/pt: shape: found \(20, 3\), expected \(20, 4\)"):
        source.read(0, 5, Columns(objects={"jets": frozenset({"pt"})}))


def test_our_reader_refuses_other_formats(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"attribute version: found none, .*choose the reader"):
        open_events(folder / "padded.h5")
    with pytest.raises(DataError, match=r"datasets: found INPUTS, .*choose the reader"):
        open_events(folder / "grouped.h5")
    shutil.copy(folder / "padded.h5", tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["version"] = 1
        del file["metadata"]
    with pytest.raises(DataError, match=r"jets: columns: .*expected a boolean column valid"):
        open_events(tmp_path / "a.h5")


@pytest.mark.parametrize("pad_value", [999.0, float("nan")])
def test_only_slots_that_hold_nothing_but_the_value_are_padding(
    tmp_path: Path, pad_value: float
) -> None:
    tables = draw_tables(20)
    tables["jets"]["eta"][tables["jets"]["valid"]] = 999.0  # one column alone
    path = write_padded(tmp_path / "a.h5", {**tables, "muons": TABLES["muons"]}, pad_value, None)
    values = {"jets": pad_value, "muons": pad_value}
    source = open_events(path, PaddedHDF5(values, objects=("jets",)))
    table = source.read(0, 20, Columns(objects={"jets": frozenset({"btag"})}))
    assert set(source.columns.objects) == {"jets"}
    assert source.classes == {}
    assert (table.objects["jets"].valid == tables["jets"]["valid"]).all()


def test_every_kind_needs_a_pad_value(folder: Path) -> None:
    with pytest.raises(DataError, match=r"pad_value: found none for muons"):
        open_events(folder / "padded.h5", PaddedHDF5({"jets": -999}))


def test_processes_in_metadata_are_read(folder: Path) -> None:
    assert open_one(folder, "padded.h5").classes == CLASSES


def test_branches_may_be_renamed(folder: Path) -> None:
    reader = RootEvents(objects={"jets": {"momentum": "Jet_pt"}}, events={"missing": "met"})
    source = open_events(folder / "jagged.root", reader)
    assert source.columns == Columns(frozenset({"missing"}), {"jets": frozenset({"momentum"})})
    table = source.read(0, 20, source.columns)
    assert (table.events["missing"] == TABLES["events"]["met"]).all()


def test_faults_of_trees_are_named(folder: Path, tmp_path: Path) -> None:
    path = folder / "jagged.root"
    with pytest.raises(DataError, match=r"tree: found only .*events.*, expected nominal"):
        open_events(path, RootEvents("nominal"))
    with pytest.raises(DataError, match=r"branches of taus: found none, .*Jet_btag"):
        open_events(path, RootEvents(objects={"taus": "Tau_"}))
    with pytest.raises(DataError, match=r"branches of events: found no ht"):
        open_events(path, RootEvents(events={"ht": "ht"}))
    unequal = RootEvents(objects={"leptons": {"pt": "Muon_pt", "btag": "Jet_btag"}})
    source = open_events(path, unequal)
    with pytest.raises(DataError, match=r"event \d+: \w+: found \d values, expected \d"):
        source.read(0, 20, source.columns)
    with uproot.recreate(tmp_path / "empty.root") as file:
        file.mktree("events", {"met": "f4"}).extend({"met": np.empty(0, "f4")})
    with pytest.raises(DataError, match=r"found an empty file"):
        open_events(tmp_path / "empty.root", RootEvents())


@pytest.mark.parametrize("options", [RootEvents, GroupedHDF5])
def test_two_kinds_may_not_be_the_same(options: type[EventReader]) -> None:
    with pytest.raises(ValueError, match=r"must (be|have) different"):
        options(objects={"jets": "a", "fat_jets": "a"})


def test_a_group_that_is_a_dataset_is_refused(folder: Path) -> None:
    reader = GroupedHDF5({"jets": "INPUTS/Jets/pt"})
    with pytest.raises(DataError, match=r"INPUTS/Jets/pt: group: found a dataset of shape"):
        open_events(folder / "grouped.h5", reader)
