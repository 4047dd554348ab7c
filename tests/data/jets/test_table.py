"""Operations on jagged columns against loops over jets."""

import numpy as np
import pytest

from hepattn.data.jets import JetTable
from hepattn.data.jets.table import concatenate, pack

COUNTS = [3, 0, 2, 4]


def make_table() -> JetTable:
    rng = np.random.default_rng(0)
    names = ("part_px", "part_py", "part_x")
    particles = {name: rng.normal(size=sum(COUNTS)).astype(np.float32) for name in names}
    jets = {"jet_pt": rng.random(4)}
    return JetTable(np.array(COUNTS), particles, jets, np.arange(4), np.arange(4) + 10)


def split(table: JetTable, name: str) -> list[list[float]]:
    return [x.tolist() for x in np.split(table.particles[name], np.cumsum(table.counts)[:-1])]


@pytest.mark.parametrize("jets", [[2, 0, 2], [1], [3, 1, 0, 2], []])
def test_take(jets: list[int]) -> None:
    table = make_table()
    taken = table.take(np.array(jets, dtype=int))
    assert taken.index.tolist() == [10 + jet for jet in jets]
    if jets:
        assert split(taken, "part_x") == [split(table, "part_x")[jet] for jet in jets]


def test_sort_by_pt() -> None:
    table = make_table()
    jets = zip(*(split(table, name) for name in table.particles), strict=True)
    wanted = [
        [x for _, x in sorted((-(a * a + b * b), c) for a, b, c in zip(px, py, xs, strict=True))]
        for px, py, xs in jets
    ]
    ordered = table.sort_by_pt()
    assert split(ordered, "part_x") == wanted
    assert ordered.sort_by_pt() is ordered


def test_jets_in_order_are_left_alone_when_another_is_sorted() -> None:
    px = np.array([5, 5 * (1 + 1e-7), 1, 2], np.float32)  # order but for rounding, then wrong
    particles = {"part_px": px, "part_py": 0 * px, "part_x": np.arange(4.0)}
    table = JetTable(np.array([2, 2]), particles, {}, np.zeros(2), np.arange(2))
    assert table.sort_by_pt().particles["part_x"].tolist() == [0, 1, 3, 2]


@pytest.mark.parametrize("most", [1, 2, 3, 9])
def test_keep_leading(most: int) -> None:
    table = make_table()
    wanted = [x[:most] for x in split(table, "part_x")]
    assert split(table.keep_leading(most), "part_x") == wanted


def test_empty_takes_particles_label_and_weight_away() -> None:
    table = make_table()
    emptied = table.empty(np.array([True, False, False, False]))
    assert emptied.counts.tolist() == [0, 0, 2, 4]
    assert split(emptied, "part_x")[2:] == split(table, "part_x")[2:]
    assert emptied.label.tolist() == [-1, 1, 2, 3]
    assert emptied.weight.tolist() == [0, 1, 1, 1]


def test_sum_of_particles() -> None:
    table = make_table()
    wanted = [sum(x) for x in split(table, "part_x")]
    assert table.sum_of_particles("part_x") == pytest.approx(wanted)


def test_concatenate_undoes_take() -> None:
    table = make_table()
    parts = [table.take(np.array(jets)) for jets in ([0, 1], [2], [3])]
    joined = concatenate(parts)
    assert split(joined, "part_x") == split(table, "part_x")
    assert joined.index.tolist() == table.index.tolist()


def test_pack_keeps_holes_out_and_nan_in() -> None:
    padded = np.array([[[1, 2], [0, 0], [np.nan, 0]], [[0, 0], [0, 0], [0, 0]]])
    counts, columns = pack(padded, ["a", "b"])
    assert counts.tolist() == [2, 0]
    assert columns["a"][0] == 1
    assert np.isnan(columns["a"][1])
    assert columns["b"].tolist() == [2, 0]
