"""Our format of events: what is written is read back, and what is wrong is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.events.make_events import CLASSES, Tables, draw_tables, write_ours
from hepattn.data import DataError
from hepattn.data.events import open_events, write_events

TYPES = st.sampled_from(["f2", "f4", "f8", "i1", "i4", "i8", "u2", "?"])


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    """Any events with any kinds of objects and columns of any type."""
    num_events = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 100)))
    names = st.lists(st.sampled_from(["pt", "η", "a b", "x/y", "é_1"]), unique=True, max_size=3)
    kinds = draw(st.lists(st.sampled_from(["jets", "el", "τ"]), unique=True, max_size=3))
    shapes = {"events": (num_events,)}
    shapes |= {kind: (num_events, draw(st.integers(1, 3))) for kind in kinds}
    made = {}
    for place, shape in shapes.items():
        required = [("label", "i8"), ("weight", "f8"), ("event_number", "i8")]
        columns = required if place == "events" else [("valid", "?")]
        table = np.zeros(shape, columns + [(name, draw(TYPES)) for name in draw(names)])
        for name in table.dtype.names:
            table[name] = (
                rng.integers(0, 2, shape) if name == "label" else rng.integers(0, 9, shape)
            )
        made[place] = table
    return made


@settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(written=tables())
def test_any_tables_are_read_back_equal(tmp_path: Path, written: Tables) -> None:
    write_events(tmp_path / "events.h5", written, {"a": 0, "b": 1})
    source = open_events(tmp_path / "events.h5")
    read = source.read(0, source.num_events, source.columns)
    assert source.classes == {"a": 0, "b": 1}
    assert set(read.objects) == set(written) - {"events"}
    for name in written["events"].dtype.names:
        assert read.events[name].dtype == written["events"].dtype[name]
        assert (read.events[name] == written["events"][name]).all()
    for kind, objects in read.objects.items():
        assert (objects.valid == written[kind]["valid"]).all()
        assert {"valid", *objects.columns} == set(written[kind].dtype.names)
        assert all((x == written[kind][name]).all() for name, x in objects.columns.items())


def test_a_slab_is_that_part_of_the_file(tmp_path: Path) -> None:
    written = draw_tables(3000)
    source = open_events(write_ours(tmp_path / "events.h5", written))
    read = source.read(1020, 2050, source.columns)  # over chunks of 1024 rows
    assert source.block_ends.tolist() == [1024, 2048, 3000]
    assert (read.index == np.arange(1020, 2050)).all()
    assert (read.events["met"] == written["events"]["met"][1020:2050]).all()
    valid = written["jets"]["valid"][1020:2050]
    pt = written["jets"]["pt"][1020:2050]
    assert (read.objects["jets"].columns["pt"][valid] == pt[valid]).all()


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_ours(tmp_path / "events.h5", draw_tables(5))

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(h5py.File, "create_dataset", fail)
    with pytest.raises(OSError, match=r"disk full"):
        write_ours(path, draw_tables(9))
    assert open_events(path).num_events == 5


def spoil(name: str) -> Tables:
    made = draw_tables(4)
    events, jets = made["events"], made["jets"]
    match name:
        case "no events":
            del made["events"]
        case "no event number":
            made["events"] = events[["label", "weight"]]
        case "no valid":
            made["jets"] = jets[["pt"]]
        case "valid of numbers":
            made["jets"] = jets.astype([(n, "f4") for n in jets.dtype.names])
        case "fewer rows":
            made["jets"] = jets[:3]
        case "flat objects":
            made["jets"] = jets[:, 0]
        case "no slots":
            made["jets"] = jets[:, :0]
        case "label":
            events["label"][2] = 3
        case "text":
            made["jets"] = np.zeros((4, 4), [("valid", "?"), ("pt", "S3")])
    return made


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no events", "tables: found .*expected one called events"),
        ("no event number", "events: columns: .*expected event_number as well"),
        ("no valid", "jets: columns: .*expected valid as well"),
        ("valid of numbers", "jets: valid: found float32, expected booleans"),
        ("fewer rows", "jets: rows: found 3, expected 4"),
        ("flat objects", r"jets: shape: found \(4,\), expected \(events, slots\)"),
        ("no slots", r"jets: shape: found \(4, 0\)"),
        ("label", "label: found 3, expected a number of"),
        ("text", "jets: pt: found .*expected numbers"),
    ],
)
def test_wrong_tables_are_not_written(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_ours(tmp_path / "events.h5", spoil(name))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("classes", [{"a": 0, "b": 0}, {"a": -1, "b": 0}])
def test_processes_have_numbers_of_their_own(tmp_path: Path, classes: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"classes: .*different numbers, none of them -1"):
        write_events(tmp_path / "events.h5", draw_tables(4), classes)


def test_classes_are_kept(tmp_path: Path) -> None:
    assert open_events(write_ours(tmp_path / "a.h5", draw_tables(4))).classes == CLASSES
