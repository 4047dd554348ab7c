"""Every layout gives the jets that were written to it."""

import itertools
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from data.jets.make_jets import (
    CLASSES,
    Columns,
    draw_jets,
    write_flat,
    write_jetnet,
    write_lists,
    write_npz,
    write_root,
    write_table,
)
from hepattn.data import DataError
from hepattn.data.chunks import chunk_ranges
from hepattn.data.jets import FirstJets, JetLabels, JetTable, open_jets

NUM = 25
JETS = draw_jets(NUM)
VECTOR = ("part_px", "part_py", "part_pz", "part_energy")


def expected(name: str, rows: range) -> np.ndarray:
    return np.concatenate([JETS[name][row] for row in rows]).astype(np.float32)


def spoilt(name: str, jet: int, value: float) -> Columns:
    """The jets with one wrong value, at the first particle if there are several."""
    column = [np.array(x) for x in JETS[name]] if isinstance(JETS[name], list) else JETS[name] * 1
    if isinstance(column, list):
        column[jet][0] = value
    else:
        column[jet] = value
    return JETS | {name: column}


FILLED = int(np.argmax([len(x) > 0 for x in JETS["part_px"]]))
LABEL = np.argmax([JETS[f"label_{name}"] for name in CLASSES], 0)


@pytest.mark.parametrize(("write", "suffix"), [(write_root, "root"), (write_lists, "parquet")])
@pytest.mark.parametrize("rows", [range(NUM), range(7, 23), range(3, 4), range(20, 20)])
def test_jagged_files(tmp_path: Path, write: Callable, suffix: str, rows: range) -> None:
    source = open_jets(write(tmp_path / f"jets.{suffix}", JETS))
    assert (source.num_jets, source.classes) == (NUM, CLASSES)
    table = source.read(rows.start, rows.stop)
    assert table.counts.tolist() == [len(JETS["part_px"][row]) for row in rows]
    assert set(table.particles) == {name for name in JETS if name.startswith("part_")}
    for name in table.particles if len(rows) else ():
        assert (table.particles[name] == expected(name, rows)).all()
    for name in table.jets:
        assert (table.jets[name] == JETS[name][rows.start : rows.stop].astype(np.float32)).all()
    assert (table.label == LABEL[rows.start : rows.stop]).all()
    assert (table.index == np.array(rows)).all()


@pytest.mark.parametrize(("write", "suffix"), [(write_flat, "parquet"), (write_table, "h5")])
@pytest.mark.parametrize("rows", [range(NUM), range(9, 21)])
def test_files_of_the_top_tagging_reference(
    tmp_path: Path, write: Callable, suffix: str, rows: range
) -> None:
    source = open_jets(write(tmp_path / f"jets.{suffix}", JETS))
    table = source.read(rows.start, rows.stop)
    assert (source.classes, source.columns) == (("QCD", "top"), set(VECTOR))
    assert table.counts.tolist() == [len(JETS["part_px"][row]) for row in rows]
    for name in VECTOR:
        assert (table.particles[name] == expected(name, rows)).all()
    assert (table.label == JETS["label_Tbqq"][rows.start : rows.stop]).all()


def test_pandas_columns_may_come_in_any_order(tmp_path: Path) -> None:
    first = open_jets(write_table(tmp_path / "a.h5", JETS)).read(0, NUM)
    second = open_jets(write_table(tmp_path / "b.h5", JETS, reverse=True)).read(0, NUM)
    assert all((first.particles[name] == second.particles[name]).all() for name in VECTOR)


def test_pandas_names_are_read_without_unpickling(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.h5", JETS)
    with h5py.File(path, "r+") as file:
        trap = b"cos\nsystem\n(S'touch " + str(tmp_path / "trap").encode() + b"'\ntR."
        file["table/table"].attrs["values_block_0_kind"] = np.bytes_(trap)
    with pytest.raises(DataError, match="values_block_0_kind"):
        open_jets(path)
    assert not (tmp_path / "trap").exists()


def test_jetnet_particles_are_massless_and_relative_to_their_jet(tmp_path: Path) -> None:
    path = write_jetnet(tmp_path / "jets.h5")
    source = open_jets(path)
    table = source.read(2, 9)
    with h5py.File(path) as file:
        particles, jets = file["particle_features"][2:9], file["jet_features"][2:9]
    assert source.classes == ("q", "W", "t")
    assert (table.label == jets[:, 0]).all()
    assert (table.counts == jets[:, 4]).all()
    vectors = [
        (ptrel * jet[1], etarel + jet[2], phirel)
        for rows, jet in zip(particles, jets, strict=True)
        for etarel, phirel, ptrel, mask in rows
        if mask
    ]
    pt, eta, phi = np.array(vectors).T
    close = {"rtol": 1e-5, "atol": 1e-4}
    assert np.allclose(table.particles["part_px"], pt * np.cos(phi), **close)
    assert np.allclose(table.particles["part_pz"], pt * np.sinh(eta), **close)
    assert np.allclose(table.particles["part_energy"], pt * np.cosh(eta), **close)
    energy = np.sqrt((jets[:, 1] * np.cosh(jets[:, 2])) ** 2 + jets[:, 3] ** 2)
    assert np.allclose(table.jets["jet_energy"], energy)
    assert (table.jets["jet_phi"] == 0).all()


def test_energyflow_particles_are_massless(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "qg.npz")
    source = open_jets(path)
    table = source.read(0, source.num_jets)
    with np.load(path) as file:
        x, y = file["X"], file["y"]
    pt, rapidity, phi, pdgid = x[x[..., 0] > 0].T
    assert source.classes == ("gluon", "quark")
    assert (table.label == y).all()
    assert (table.particles["part_pdgid"] == pdgid).all()
    for name, values in {
        "part_px": pt * np.cos(phi),
        "part_py": pt * np.sin(phi),
        "part_pz": pt * np.sinh(rapidity),
        "part_energy": pt * np.cosh(rapidity),
    }.items():
        assert np.allclose(table.particles[name], values, rtol=1e-5, atol=1e-4)


def same(first: JetTable, second: JetTable) -> bool:
    return (
        (first.counts == second.counts).all()
        and (first.label == second.label).all()
        and (first.index == second.index).all()
        and all((first.particles[x] == second.particles[x]).all() for x in first.particles)
    )


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    whole = open_jets(write_root(tmp_path / "whole.root", JETS))
    for i, (start, stop) in enumerate([(0, 4), (4, 5), (5, NUM)]):
        part = {name: values[start:stop] for name, values in JETS.items()}
        write_root(tmp_path / f"part{i}.root", part)
    source = open_jets(tmp_path / "part*.root")
    assert (source.num_jets, len(source.files)) == (NUM, 3)
    for start, stop in [(0, NUM), (2, 5), (4, 5), (5, 9), (3, 8)]:
        assert same(source.read(start, stop), whole.read(start, stop))
    assert source.block_ends.tolist() == [4, 5, 15, 25]
    listed = open_jets([tmp_path / "part0.root", tmp_path / "part1.root", tmp_path / "part2.root"])
    assert listed.fingerprint() == source.fingerprint() != whole.fingerprint()


def test_only_wanted_columns_are_read(tmp_path: Path) -> None:
    source = open_jets(write_root(tmp_path / "jets.root", JETS))
    table = source.read(0, 3, ["part_d0val", "jet_pt"])
    assert set(table.particles) == {*VECTOR, "part_d0val"}
    assert set(table.jets) == {"jet_pt"}
    with pytest.raises(DataError, match=r"no part_colour.*columns among"):
        source.read(0, 3, ["part_colour"])


def test_integer_labels(tmp_path: Path) -> None:
    jets = {name: x for name, x in JETS.items() if not name.startswith("label_")}
    path = write_root(tmp_path / "jets.root", jets | {"jet_label": LABEL % 3})
    source = open_jets(path, JetLabels(("a", "b", "c"), column="jet_label"))
    assert (source.read(0, NUM).label == LABEL % 3).all()
    with pytest.raises(DataError, match=r"jet \d+: label: found 2, expected one of 0 to 1 \(a, b"):
        open_jets(path, JetLabels(("a", "b"), column="jet_label")).read(0, NUM)


def test_jets_without_label_branches_have_no_label(tmp_path: Path) -> None:
    jets = {name: x for name, x in JETS.items() if not name.startswith("label_")}
    source = open_jets(write_root(tmp_path / "jets.root", jets))
    assert source.classes == ()
    assert (source.read(0, NUM).label == -1).all()


def test_some_label_branches_are_an_error(tmp_path: Path) -> None:
    jets = {name: x for name, x in JETS.items() if name != "label_Hgg"}
    with pytest.raises(DataError, match="no label_Hgg"):
        open_jets(write_root(tmp_path / "jets.root", jets))


@pytest.mark.parametrize("labels", [{"classes": ("a", "a")}, {"classes": ()}])
def test_labels_need_different_classes(labels: dict) -> None:
    with pytest.raises(ValueError, match="different names"):
        JetLabels(**labels)


@pytest.mark.parametrize(
    ("name", "value"), [("part_energy", np.nan), ("part_d0val", np.inf), ("jet_pt", -np.inf)]
)
def test_values_that_are_not_finite_name_file_and_jet(
    tmp_path: Path, name: str, value: float
) -> None:
    source = open_jets(write_root(tmp_path / "jets.root", spoilt(name, FILLED, value)))
    with pytest.raises(DataError, match=rf"jets.root, jet {FILLED}: {name}: found -?(nan|inf)"):
        source.read(0, NUM)


@pytest.mark.parametrize("suffix", ["parquet", "h5"])
def test_nan_is_not_taken_for_padding(tmp_path: Path, suffix: str) -> None:
    write = write_flat if suffix == "parquet" else write_table
    jets = spoilt("part_energy", FILLED, np.nan)
    with pytest.raises(DataError, match=rf"jet {FILLED}: part_energy: found nan"):
        open_jets(write(tmp_path / f"jets.{suffix}", jets)).read(0, NUM)


@pytest.mark.parametrize(("value", "found"), [(True, "several classes"), (False, "no class")])
def test_labels_that_are_not_one_hot_name_file_and_jet(
    tmp_path: Path, value: bool, found: str
) -> None:
    jets = JETS | {"label_QCD": JETS["label_QCD"].copy(), "label_Tbl": JETS["label_Tbl"].copy()}
    jet = int(np.argmax(LABEL == 9))
    jets["label_QCD"][jet] = jets["label_Tbl"][jet] = value
    source = open_jets(write_root(tmp_path / "jets.root", jets))
    with pytest.raises(DataError, match=rf"jets.root, jet {jet}: label: found {found}"):
        source.read(0, NUM)


def test_bad_jets_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jets = spoilt("part_energy", FILLED, np.nan)
    table = open_jets(write_root(tmp_path / "jets.root", jets)).read(0, NUM, skip_bad=True)
    good = open_jets(write_root(tmp_path / "good.root", JETS)).read(0, NUM)
    assert f"jet {FILLED}" in caplog.text
    assert (table.counts[FILLED], table.label[FILLED], table.weight[FILLED]) == (0, -1, 0)
    assert table.weight.sum() == NUM - 1
    others = np.delete(np.arange(NUM), FILLED)
    assert same(table.take(others), replace(good.take(others), jets=table.take(others).jets))


@pytest.mark.parametrize(("write", "suffix"), [(write_root, "root"), (write_lists, "parquet")])
def test_particle_columns_of_different_length_are_an_error(
    tmp_path: Path, write: Callable, suffix: str
) -> None:
    shorter = [np.array(x) for x in JETS["part_dphi"]]
    shorter[FILLED] = shorter[FILLED][:-1]
    source = open_jets(write(tmp_path / f"jets.{suffix}", JETS | {"part_dphi": shorter}))
    with pytest.raises(DataError, match=rf"jet {FILLED}: part_.*values, expected \d+"):
        source.read(0, NUM)


def test_missing_four_vectors_are_an_error(tmp_path: Path) -> None:
    jets = {name: x for name, x in JETS.items() if name != "part_pz"}
    with pytest.raises(DataError, match="no part_pz"):
        open_jets(write_root(tmp_path / "jets.root", jets))


def test_empty_files_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty file"):
        open_jets(write_lists(tmp_path / "jets.parquet", draw_jets(0)))
    with pytest.raises(DataError, match="empty file"):
        open_jets(write_table(tmp_path / "jets.h5", draw_jets(0)))
    np.savez(tmp_path / "jets.npz", X=np.zeros((0, 3, 4)), y=np.zeros(0))
    with pytest.raises(DataError, match="empty file"):
        open_jets(tmp_path / "jets.npz")


def test_wrong_paths_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="files: found none"):
        open_jets(tmp_path)
    with pytest.raises(DataError, match="files: found none"):
        open_jets(tmp_path / "*.root")
    (tmp_path / "jets.tar").touch()
    with pytest.raises(DataError, match=r"jets.tar is an archive: unpack it first"):
        open_jets(tmp_path)
    with pytest.raises(DataError, match=r"found \.tar, .*; unpack the archive"):
        open_jets(tmp_path / "jets.tar")
    (tmp_path / "jets.csv").touch()
    with pytest.raises(DataError, match=r"suffix: found \.csv"):
        open_jets(tmp_path / "jets.csv")
    write_root(tmp_path / "jets.root", JETS)
    write_npz(tmp_path / "jets.npz")
    with pytest.raises(DataError, match="npz and root"):
        open_jets(tmp_path)
    with pytest.raises(DataError, match="tree: found only"):
        open_jets(tmp_path / "jets.root", tree="events")


def test_files_in_folders_of_a_folder_are_named_and_asked_for_by_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "part_1").mkdir()
    write_root(tmp_path / "part_1/jets.root", JETS)
    with pytest.raises(DataError, match=r"some in .*part_1: ask for '(.*/\*\*/\*\.root)'") as error:
        open_jets(tmp_path)
    assert open_jets(str(error.value).split("'")[1]).num_jets == NUM


def test_files_of_different_kinds_do_not_mix(tmp_path: Path) -> None:
    write_flat(tmp_path / "a.parquet", JETS)
    write_lists(tmp_path / "b.parquet", JETS)
    with pytest.raises(DataError, match="expected those of"):
        open_jets(tmp_path)


REAL = {
    "jetclass/JetClass_top200_full.root": 200,
    "jetclass/JetClass_small500_p4.root": 500,
    "toptagging/test_1000.parquet": 1000,
    "toptagging/test_500.h5": 500,
    "quarkgluon/qg_1000.npz": 1000,
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read(data_dir: Path, name: str) -> None:
    source = open_jets(data_dir / name)
    table = source.read(0, source.num_jets)
    assert source.num_jets == REAL[name]
    assert table.counts.min() >= 3
    assert table.sort_by_pt() is table
    assert set(np.unique(table.label)) <= set(range(len(source.classes)))


@pytest.mark.data
def test_both_layouts_of_the_top_tagging_reference_hold_the_same_jets(data_dir: Path) -> None:
    first = open_jets(data_dir / "toptagging/test_1000.parquet").read(0, 500)
    assert same(first, open_jets(data_dir / "toptagging/test_500.h5").read(0, 500))


def test_the_first_jets_of_a_source_are_a_source(tmp_path: Path) -> None:
    whole = open_jets(write_root(tmp_path / "jets.root", JETS, basket=10))
    some = FirstJets(whole, 13)
    assert some.block_ends.tolist() == [*[end for end in whole.block_ends if end < 13], 13]
    assert some.num_jets == 13
    assert some.read(5, 13).index.tolist() == list(range(5, 13))
    assert some.fingerprint() != whole.fingerprint()
    with pytest.raises(ValueError, match="within the 13 jets"):
        some.read(5, 14)
    with pytest.raises(DataError, match=f"found {NUM}, expected at least {NUM + 1}"):
        FirstJets(whole, NUM + 1)


def test_the_first_jets_are_the_same_source_when_more_are_added(tmp_path: Path) -> None:
    def first(num_jets: int, jets: Columns, ends: list[int]) -> FirstJets:
        for i, (start, stop) in enumerate(itertools.pairwise([0, *ends])):
            part = {name: values[start:stop] for name, values in jets.items()}
            write_root(tmp_path / f"{i}.root", part)
        return FirstJets(open_jets(tmp_path), num_jets)

    short = first(13, JETS, [10, 13])
    prints = [short.fingerprint(), first(13, JETS, [10, 20, NUM]).fingerprint()]
    assert prints[0] == prints[1]
    assert [file.name for file in short.files] == ["0.root", "1.root"]
    other = [first(12, JETS, [10, 20]), first(13, spoilt("part_px", 12, 1.0), [10, 20])]
    assert len({prints[0], *(source.fingerprint() for source in other)}) == 3


def test_chunks_of_a_row_group_decode_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    decode = pq.ParquetFile.read_row_groups

    def count(self: pq.ParquetFile, groups: range, **options: object) -> object:
        decoded.append(list(groups))
        return decode(self, groups, **options)

    for name in ("a", "b"):
        write_lists(tmp_path / f"{name}.parquet", JETS, rows=10)
    source = open_jets(tmp_path)
    whole = source.read(0, 2 * NUM)
    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", count)
    for start, stop in chunk_ranges(source.block_ends, 4):
        assert same(source.read(start, stop), whole.take(np.arange(start, stop)))
    assert decoded == 2 * [[0], [1], [2]]
    kept = [part for part in source.parts if part._kept is not None]
    assert len(kept) <= 1  # the memory does not grow with the number of files
    assert all(part._kept is None for part in pickle.loads(pickle.dumps(source)).parts)
