import json
from dataclasses import replace
from pathlib import Path

import awkward as ak
import h5py
import numpy as np
import pytest
import uproot
from numpy.testing import assert_allclose, assert_array_equal

from hepattn.data.jets import FirstJets, JetLabels, open_jets
from hepattn.simulate.jets import CLASSES, JETNET_CLASSES, JetConfig, main, make_jets, simulate_jets
from hepattn.simulate.jets import write as write_module

SMALL = JetConfig(classes=("QCD", "Wqq"), shard_size=6)


def write(directory: Path, num_jets: int = 12, config: JetConfig = SMALL, **more: int) -> list:
    return simulate_jets(directory, num_jets, config, progress=False, **more)


def contents(directory: Path) -> dict[str, list]:
    found = {}
    for path in sorted(directory.iterdir()):
        if path.suffix == ".root":
            with uproot.open(path) as file:
                found[path.name] = file["tree"].arrays().to_list()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("jets")
    write(directory)
    return directory


@pytest.mark.data
def test_branches_are_those_of_jetclass(folder: Path, data_dir: Path) -> None:
    real = data_dir / "jetclass" / "JetClass_top200_full.root"
    with uproot.open(folder / "jets_0000.root") as ours, uproot.open(real) as theirs:
        names = [
            [(branch.name, branch.typename) for branch in file["tree"].branches]
            for file in (ours, theirs)
        ]
        assert names[0] == names[1]
        assert ours.classnames() == theirs.classnames()


def test_relative_directions_follow_the_convention_of_jetclass(folder: Path) -> None:
    with uproot.open(folder / "jets_0000.root") as file:
        table = file["tree"].arrays()
    pt = np.hypot(table.part_px, table.part_py)
    deta = (np.arcsinh(table.part_pz / pt) - table.jet_eta) * np.sign(table.jet_eta)
    dphi = np.arctan2(table.part_py, table.part_px) - table.jet_phi
    dphi = (dphi + np.pi) % (2 * np.pi) - np.pi
    assert_allclose(ak.flatten(table.part_deta), ak.flatten(deta), atol=1e-5)
    assert_allclose(ak.flatten(table.part_dphi), ak.flatten(dphi), atol=1e-5)


def test_flags_agree_with_the_charge(folder: Path) -> None:
    with uproot.open(folder / "jets_0000.root") as file:
        table = file["tree"].arrays()
    flags = ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")
    kinds = np.stack([ak.to_numpy(ak.flatten(table[f"part_is{name}"])) for name in flags])
    charge = ak.to_numpy(ak.flatten(table.part_charge))
    assert_array_equal(kinds.sum(0), 1)
    assert_array_equal(np.abs(charge), kinds[[0, 3, 4]].sum(0))


def test_jetnet_layout_holds_the_same_jets(tmp_path: Path, folder: Path) -> None:
    config = replace(SMALL, layout="jetnet", max_particles=10)
    (path,) = write(tmp_path, 6, config)
    jets = make_jets(config, 6)
    with h5py.File(path) as file:
        assert list(file.attrs["classes"]) == ["QCD", "Wqq"]
        particles, table = file["particle_features"], file["jet_features"]
        assert list(particles.attrs["names"]) == ["etarel", "phirel", "ptrel", "mask"]
        assert list(table.attrs["names"]) == ["type", "pt", "eta", "mass", "num_particles"]
        assert particles.shape == (6, 10, 4)
        assert_array_equal(table[:, 0], jets.label == CLASSES.index("Wqq"))
        assert_array_equal(particles[:, :, 3].sum(1), table[:, 4])
        assert_array_equal(table[:, 4], np.minimum(jets.num_particles, 10))
    with uproot.open(folder / "jets_0000.root") as root:
        assert_allclose(root["tree"]["jet_pt"].array(), np.hypot(*jets.momentum[:, 1:3].T))


@pytest.mark.parametrize("layout", ["jetclass", "jetnet"])
@pytest.mark.parametrize("classes", [("QCD", "Hbb", "Tbl"), ("Tbl", "Hbb", "QCD")])
def test_labels_follow_the_classes_of_the_config(
    tmp_path: Path, layout: str, classes: tuple[str, ...]
) -> None:
    config = JetConfig(classes=classes, layout=layout)
    write(tmp_path, 9, config)
    source = open_jets(tmp_path, JetLabels(classes))
    assert source.classes == classes
    names = [CLASSES[label] for label in make_jets(config, 9).label]
    assert [classes[label] for label in source.read(0, 9).label] == names


def test_types_of_jetnet_are_numbered_as_jetnet_does(tmp_path: Path) -> None:
    config = JetConfig(classes=JETNET_CLASSES, layout="jetnet", max_particles=30)
    write(tmp_path, 90, config)
    source = open_jets(tmp_path)
    assert source.classes == ("g", "q", "t")
    table = source.read(0, 90)
    gluon, quark, top = (np.median(table.counts[table.label == i]) for i in range(3))
    assert quark < gluon <= top


def test_jetclass_files_take_no_types_of_jetnet() -> None:
    with pytest.raises(ValueError, match="choose layout='jetnet'"):
        JetConfig(classes=("q", "t"))


def test_jets_do_not_depend_on_the_number_of_workers(tmp_path: Path, folder: Path) -> None:
    write(tmp_path, num_workers=2)
    assert contents(tmp_path) == contents(folder)


def test_another_seed_and_another_file_give_other_jets(folder: Path) -> None:
    first, second = contents(folder).values()
    other = make_jets(replace(SMALL, seed=1), 6)
    assert first != second
    assert not np.isin([jet["jet_pt"] for jet in first], other.momentum[:, 1]).any()


def test_only_missing_files_are_made(tmp_path: Path) -> None:
    paths = write(tmp_path)
    before = contents(tmp_path)
    paths[0].unlink()
    stamp = paths[1].stat().st_mtime_ns
    write(tmp_path)
    assert contents(tmp_path) == before
    assert paths[1].stat().st_mtime_ns == stamp


def test_more_jets_are_added_and_fewer_leave_all(tmp_path: Path) -> None:
    write(tmp_path, 8)
    before = contents(tmp_path)
    assert [len(jets) for jets in before.values()] == [6, 2]
    write(tmp_path, 12)
    after = contents(tmp_path)
    assert [len(jets) for jets in after.values()] == [6, 6]
    assert {name: jets[: len(before[name])] for name, jets in after.items()} == before
    assert len(write(tmp_path, 3)) == 1
    assert contents(tmp_path) == after


def test_the_fingerprint_of_the_first_jets_outlives_a_growing_directory(tmp_path: Path) -> None:
    found = []
    for num_jets in (8, 12, 14):
        write(tmp_path, num_jets)
        found.append(FirstJets(open_jets(tmp_path), 8).fingerprint())
    assert len(set(found)) == 1


def test_a_killed_run_leaves_no_truncated_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 6)
    before = {path.name for path in tmp_path.iterdir()}

    def stop_half_way(path: Path, *_: object) -> None:
        path.write_bytes(b"root")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(write_module, "write_jets", stop_half_way)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before
    write(tmp_path)
    assert len(contents(tmp_path)) == 2


def test_another_config_is_refused(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="seed=0 there, 1 asked"):
        write(folder, config=replace(SMALL, seed=1))


def test_jets_of_unknown_origin_are_refused(tmp_path: Path) -> None:
    (tmp_path / "jets_0000.root").touch()
    with pytest.raises(FileExistsError, match=r"no simulation\.json"):
        write(tmp_path)


def test_the_config_is_recorded(folder: Path) -> None:
    record = json.loads((folder / "simulation.json").read_text())
    assert JetConfig(**record["config"]) == SMALL


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_jets=-1"):
        write(tmp_path, -1)
    with pytest.raises(ValueError, match="num_workers=0"):
        write(tmp_path, num_workers=0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"classes": ("Hxx",)}, "'Hxx'"),
        ({"classes": ()}, "at least one class"),
        ({"generator": "herwig"}, "generator='herwig'"),
        ({"min_pt": 2000.0}, r"min_pt=2000\.0"),
        ({"seed": -1}, "seed=-1"),
        ({"max_particles": 0}, "max_particles=0"),
    ],
)
def test_config_names_a_bad_value(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JetConfig(**option)


def test_command_line_writes_what_the_function_writes(tmp_path: Path, folder: Path) -> None:
    options = ["--num_jets", "12", "--config.classes", "[QCD, Wqq]", "--config.shard_size", "6"]
    main([str(tmp_path), *options, "--progress", "false", "--num_workers", "1"])
    assert contents(tmp_path) == contents(folder)


@pytest.mark.parametrize("num", [1, 2, 29])
def test_the_first_jets_are_the_same_however_many_are_made(num: int) -> None:
    config = JetConfig(classes=("QCD", "Tbl", "Hbb"))
    few, many = make_jets(config, num), make_jets(config, 120)
    for first, all_ in zip(few, many.take(np.arange(num)), strict=True):
        assert_array_equal(first, all_)
    counts = np.bincount(few.label, minlength=len(CLASSES))[[0, 1, 9]]
    assert counts.max() - counts.min() <= 1


def test_command_line_names_a_value_out_of_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (["--num_jets", "-1"], ["--config.seed", "-1"]):
        with pytest.raises(SystemExit):
            main([str(tmp_path), *options])
        assert "=-1 must not be negative" in capsys.readouterr().err


def test_cuts_that_nothing_passes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepattn.simulate.jets.make.MAX_TRIES", 20)
    with pytest.raises(RuntimeError, match=r"radius=0\.001"):
        make_jets(replace(SMALL, classes=("Wqq",), radius=0.001), 2)
