import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hepattn.data.events import open_events
from hepattn.simulate import shards
from hepattn.simulate.events import EventsConfig, main, make_events, simulate_events
from hepattn.simulate.events import write as write_module

SMALL = EventsConfig(processes=("qcd", "x_to_bb"), shard_size=6)
Contents = dict[str, dict[str, np.ndarray]]


def write(directory: Path, num: int = 12, config: EventsConfig = SMALL, **more: int) -> list[Path]:
    return simulate_events(directory, num, config, progress=False, **more)


def contents(directory: Path) -> Contents:
    found = {}
    for path in sorted(directory.glob("*.h5")):
        with h5py.File(path) as file:
            found[path.name] = {name: table[...] for name, table in file.items()}
    return found


def assert_same(one: Contents, two: Contents) -> None:
    assert list(one) == list(two)
    for name, tables in one.items():
        assert list(tables) == list(two[name])
        for kind, table in tables.items():
            assert_array_equal(table, two[name][kind])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("events")
    write(directory)
    return directory


def test_files_hold_the_tables_and_the_classes(folder: Path) -> None:
    assert_same(
        contents(folder),
        {f"events_000{n}.h5": dict(sorted(make_events(SMALL, 6, n).items())) for n in range(2)},
    )
    with h5py.File(folder / "events_0000.h5") as file:
        assert json.loads(file.attrs["classes"]) == {"qcd": 0, "x_to_bb": 4}


def test_every_event_has_its_own_number(folder: Path) -> None:
    numbers = [tables["events"]["event_number"] for tables in contents(folder).values()]
    assert_array_equal(np.concatenate(numbers), np.arange(12))


def test_events_do_not_depend_on_where_and_when_a_file_is_made(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As other processes would, without the time that they take to start.
    def run_elsewhere(work: Callable, tasks: list[tuple], num_workers: int) -> Iterator[int]:
        assert num_workers == 2
        for task in reversed(tasks):
            remote, arguments = pickle.loads(pickle.dumps((work, task)))
            yield remote(*arguments)

    monkeypatch.setattr(shards, "run_tasks", run_elsewhere)
    write(tmp_path, num_workers=2)
    assert_same(contents(tmp_path), contents(folder))


def test_our_reader_reads_the_files(folder: Path) -> None:
    source = open_events(folder)
    assert source.num_events == 12
    assert dict(source.classes) == {"qcd": 0, "x_to_bb": 4}
    assert source.columns.events >= {"label", "weight", "event_number", "m_jj"}
    assert set(source.columns.objects) == {"jets", "electrons", "muons"}


def test_another_seed_and_another_file_give_other_events(folder: Path) -> None:
    first, second = (tables["events"]["met"] for tables in contents(folder).values())
    other = make_events(replace(SMALL, seed=1), 6)["events"]["met"]
    assert not np.isin(first, second).any()
    assert not np.isin(first, other).any()


def test_only_missing_files_are_made(tmp_path: Path) -> None:
    paths = write(tmp_path)
    before = contents(tmp_path)
    paths[0].unlink()
    stamp = paths[1].stat().st_mtime_ns
    write(tmp_path)
    assert_same(contents(tmp_path), before)
    assert paths[1].stat().st_mtime_ns == stamp


def test_more_events_are_added_and_fewer_leave_all(tmp_path: Path) -> None:
    write(tmp_path, 8)
    before = contents(tmp_path)
    write(tmp_path, 12)
    after = contents(tmp_path)
    assert [len(tables["events"]) for tables in before.values()] == [6, 2]
    assert [len(tables["events"]) for tables in after.values()] == [6, 6]
    first = {
        name: {kind: table[: len(before[name][kind])] for kind, table in tables.items()}
        for name, tables in after.items()
    }
    assert_same(first, before)
    assert len(write(tmp_path, 3)) == 1
    assert_same(contents(tmp_path), after)


def test_a_killed_run_leaves_no_truncated_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 6)
    before = {path.name for path in tmp_path.iterdir()}

    def stop_half_way(path: Path, *_: object) -> None:
        path.write_bytes(b"hdf")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(write_module, "write_events", stop_half_way)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before
    write(tmp_path)
    assert len(contents(tmp_path)) == 2


def test_another_config_is_refused(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="seed=0 there, 1 asked"):
        write(folder, config=replace(SMALL, seed=1))


def test_the_config_is_recorded(folder: Path) -> None:
    record = json.loads((folder / "simulation.json").read_text())
    assert EventsConfig(**record["config"]) == SMALL


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_events=-1"):
        write(tmp_path, -1)
    with pytest.raises(ValueError, match="num_workers=0"):
        write(tmp_path, num_workers=0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"kind": "signal"}, "kind='signal'"),
        ({"processes": ("higgs",)}, "'higgs'"),
        ({"processes": ("qcd", "qcd")}, "each once"),
        ({"num_classes": 1}, "num_classes=1"),
        ({"temperature": 0.0}, r"temperature=0\.0"),
        ({"mc_per_data": -1.0}, r"mc_per_data=-1\.0"),
        ({"negative_share": 0.5}, r"negative_share=0\.5"),
        ({"seed": -1}, "seed=-1"),
        ({"shard_size": 0}, "shard_size=0"),
    ],
)
def test_config_names_a_bad_value(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EventsConfig(**option)


def test_command_line_writes_what_the_function_writes(tmp_path: Path, folder: Path) -> None:
    options = ["--config.processes", "[qcd, x_to_bb]", "--config.shard_size", "6"]
    main([str(tmp_path), "--num_events", "12", *options, "--progress", "false"])
    assert_same(contents(tmp_path), contents(folder))


def test_command_line_names_a_value_out_of_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--num_events", "-1"])
    assert "num_events=-1 must not be negative" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["search", "ratio", "calibration", "fakes"])
@pytest.mark.parametrize("num", [1, 2, 100])
def test_the_first_events_are_the_same_however_many_are_made(kind: str, num: int) -> None:
    few, many = (make_events(EventsConfig(kind=kind), n) for n in (num, 300))
    for name, table in few.items():
        assert_array_equal(table, many[name][:num])


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("ratio", ["denominator", "numerator"]),
        ("calibration", ["class_0", "class_1", "class_2"]),
        ("fakes", ["mc_loose", "mc_tight", "data_loose", "data_tight"]),
    ],
)
def test_labels_are_numbers_of_the_classes(kind: str, names: list[str]) -> None:
    config = EventsConfig(kind=kind)
    assert list(config.classes) == names
    labels = make_events(config, 300)["events"]["label"]
    assert set(labels) == set(config.classes.values())


def test_a_process_is_the_same_beside_others() -> None:
    alone = make_events(EventsConfig(processes=("ttbar",)), 20)["events"]
    events = make_events(EventsConfig(), 70)["events"]
    beside = events[events["label"] == 3]
    assert_array_equal(alone["met"][: len(beside)], beside["met"])
