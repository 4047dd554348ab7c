import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import uproot
from numpy.testing import assert_array_equal

from hepattn.simulate.xec import XecConfig, main, make_events, simulate_xec
from hepattn.simulate.xec import write as write_module

SMALL = XecConfig(shard_size=6, num_deposits=3, run_size=4)


def write(directory: Path, num_events: int = 12, config: XecConfig = SMALL, **more: int) -> list:
    return simulate_xec(directory, num_events, config, progress=False, **more)


def read(path: Path) -> dict[str, np.ndarray]:
    with uproot.open(path) as file:
        return file["tree"].arrays(library="np")


def contents(directory: Path) -> dict[str, dict]:
    found = {path.name: read(path) for path in sorted(directory.glob("*.root"))}
    return {name: {k: v.tolist() for k, v in table.items()} for name, table in found.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("xec")
    write(directory)
    return directory


def test_files_are_trees_with_the_branches_of_the_experiment(folder: Path) -> None:
    with uproot.open(folder / "xec_0000.root") as file:
        tree = file["tree"]
        assert tree.classname == "TTree"
        assert {branch.name: branch.typename for branch in tree.branches} == {
            "npho": "float[4760]",
            "relative_time": "float[4760]",
            "time_min_used": "double",
            "ch_npho_max": "int32_t",
            "energyTruth": "float",
            "timeTruth": "double",
            "uvwTruth": "float[3]",
            "xyzTruth": "float[3]",
            "xyzVTX": "float[3]",
            "emiAng": "float[2]",
            "emiVec": "float[3]",
            "run": "int32_t",
            "event": "int32_t",
        }


def test_files_hold_the_events_in_order(folder: Path) -> None:
    made = make_events(SMALL, 12)
    parts = [read(folder / f"xec_000{number}.root") for number in range(2)]
    for name, column in made.items():
        assert_array_equal(np.concatenate([part[name] for part in parts]), column)


def test_blocks_of_a_file_make_no_difference(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_module, "BLOCK", 4)
    write(tmp_path)
    assert contents(tmp_path) == contents(folder)


def test_events_do_not_depend_on_the_number_of_workers_or_the_size_of_files(
    tmp_path: Path, folder: Path
) -> None:
    write(tmp_path / "two", num_workers=2)
    assert contents(tmp_path / "two") == contents(folder)
    (one,) = write(tmp_path / "one", config=replace(SMALL, shard_size=12))
    assert_array_equal(read(one)["npho"][:6], read(folder / "xec_0000.root")["npho"])


def test_only_missing_files_are_made_and_a_short_one_is_replaced(tmp_path: Path) -> None:
    paths = write(tmp_path, 8)
    before = contents(tmp_path)
    assert [len(table["event"]) for table in before.values()] == [6, 2]
    paths[0].unlink()
    stamp = paths[1].stat().st_mtime_ns
    write(tmp_path, 8)
    assert contents(tmp_path) == before
    assert paths[1].stat().st_mtime_ns == stamp
    write(tmp_path, 12)
    after = contents(tmp_path)
    assert [len(table["event"]) for table in after.values()] == [6, 6]
    for name, table in before.items():
        assert all(after[name][k][: len(column)] == column for k, column in table.items())
    assert len(write(tmp_path, 3)) == 1
    assert contents(tmp_path) == after


def test_a_killed_run_leaves_no_truncated_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_half_way(path: Path, _: object) -> None:
        path.write_bytes(b"root")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(write_module, "write_tree", stop_half_way)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["simulation.json"]
    write(tmp_path)
    assert len(contents(tmp_path)) == 2


def test_another_config_is_refused_and_the_own_is_recorded(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="seed=0 there, 1 asked"):
        write(folder, config=replace(SMALL, seed=1))
    record = json.loads((folder / "simulation.json").read_text())
    assert XecConfig(**record["config"]) == SMALL


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_events=-1"):
        write(tmp_path, -1)
    with pytest.raises(ValueError, match="num_workers=0"):
        write(tmp_path, num_workers=0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"min_energy": 0.06, "max_energy": 0.05}, r"min_energy=0\.06"),
        ({"num_deposits": 0}, "num_deposits=0"),
        ({"sipm_pde": 1.5}, r"sipm_pde=1\.5"),
        ({"dead_share": 1.0}, r"dead_share=1\.0"),
        ({"time_spread": -1.0}, r"time_spread=-1\.0"),
    ],
)
def test_config_names_a_bad_value(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        XecConfig(**option)


def test_command_line_writes_what_the_function_writes(tmp_path: Path, folder: Path) -> None:
    options = ["--num_events", "12", "--config.shard_size", "6", "--config.num_deposits", "3"]
    options += ["--config.run_size", "4", "--progress", "false", "--num_workers", "1"]
    main([str(tmp_path), *options])
    assert contents(tmp_path) == contents(folder)


def test_command_line_names_a_value_out_of_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (["--num_events", "-1"], ["--config.seed", "-1"]):
        with pytest.raises(SystemExit):
            main([str(tmp_path), *options])
        assert "=-1 must not be negative" in capsys.readouterr().err
