import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest

from hepattn.simulate.tracker import (
    TrackerConfig,
    detector_table,
    main,
    simulate_event,
    simulate_events,
)

SMALL = TrackerConfig(num_particles=20)


def write(directory: Path, num_events: int = 2, config: TrackerConfig = SMALL, **more: int) -> list:
    return simulate_events(directory, num_events, config=config, progress=False, **more)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def read(path: Path) -> dict[str, np.ndarray]:
    table = pyarrow.csv.read_csv(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def test_files_hold_the_tables_exactly(tmp_path: Path) -> None:
    names = write(tmp_path, 1, first=7)
    assert names == ["event000000007"]
    event = simulate_event(SMALL, 7)
    tables = {table: getattr(event, table) for table in ("hits", "cells", "particles", "truth")}
    files = {f"{names[0]}-{name}": table for name, table in tables.items()}
    for name, table in {**files, "detectors": detector_table()}.items():
        found = read(tmp_path / f"{name}.csv.gz")
        assert list(found) == list(table)
        for column, values in table.items():
            np.testing.assert_array_equal(found[column].astype(values.dtype), values)


def test_files_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    write(tmp_path / "one", 3)
    write(tmp_path / "two", 3, num_workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_only_incomplete_events_are_made_again(tmp_path: Path) -> None:
    write(tmp_path, 3)
    before = contents(tmp_path)
    lost = tmp_path / "event000000001-cells.csv.gz"
    lost.unlink()
    untouched = tmp_path / "event000000002-hits.csv.gz"
    stamp = untouched.stat().st_mtime_ns
    write(tmp_path, 3)
    assert contents(tmp_path) == before
    assert untouched.stat().st_mtime_ns == stamp


def test_a_killed_run_leaves_no_truncated_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1)
    before = contents(tmp_path)
    whole = Path.write_bytes

    def stop_half_way(path: Path, content: bytes) -> int:
        whole(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", stop_half_way)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, 2)
    assert contents(tmp_path) == before
    write(tmp_path, 2)
    assert len(contents(tmp_path)) == len(before) + 4


def test_another_config_is_refused_and_nothing_overwritten(tmp_path: Path) -> None:
    write(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="seed=0 there, 1 asked"):
        write(tmp_path, 4, config=replace(SMALL, seed=1))
    assert contents(tmp_path) == before


def test_events_of_unknown_origin_are_refused(tmp_path: Path) -> None:
    (tmp_path / "event000000000-hits.csv").write_text("hit_id\n")
    with pytest.raises(FileExistsError, match=r"no simulation\.json"):
        write(tmp_path)


def test_the_config_is_recorded(tmp_path: Path) -> None:
    write(tmp_path)
    record = json.loads((tmp_path / "simulation.json").read_text())
    assert TrackerConfig(**record["config"]) == SMALL


def test_negative_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_events=-1"):
        write(tmp_path, -1)
    with pytest.raises(ValueError, match="num_workers=0"):
        write(tmp_path, 1, num_workers=0)


def test_command_line_writes_what_the_function_writes(tmp_path: Path) -> None:
    options = ["--num_events", "2", "--config.num_particles", "20", "--progress", "false"]
    main([str(tmp_path / "command"), *options])
    write(tmp_path / "function")
    assert contents(tmp_path / "command") == contents(tmp_path / "function")


def test_command_line_names_a_bad_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--config.num_particle", "20"])
    assert "num_particle" in capsys.readouterr().err


def test_command_line_names_a_value_out_of_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--first", "-1"])
    assert "first=-1 must not be negative" in capsys.readouterr().err
