"""Parts of a source by row, and weights by class and pt."""

import json
from pathlib import Path

import numpy as np
import pytest

from data.jets.make_jets import CLASSES, draw_jets, write_root
from hepattn.data import DataError
from hepattn.data.hashing import hash_rows
from hepattn.data.jets import JetInput, JetSplit, JetWeights, open_jets
from hepattn.data.jets.split import PARTS
from hepattn.nn.normalise import Feature

ROWS = np.arange(20_000)


def test_parts_are_disjoint_complete_and_of_their_shares() -> None:
    split = JetSplit((0.7, 0.2, 0.1), seed=5)
    holds = np.stack([split.part(name).holds(ROWS) for name in PARTS])
    assert (holds.sum(0) == 1).all()
    assert holds.mean(1) == pytest.approx([0.7, 0.2, 0.1], abs=0.015)


def test_part_of_a_row_does_not_depend_on_the_other_rows() -> None:
    split = JetSplit(seed=1)
    whole = split.number(ROWS)
    assert (split.number(ROWS[123:456]) == whole[123:456]).all()
    assert (JetSplit(seed=2).number(ROWS) != whole).mean() > 0.2


def test_hash_mixes_rows_and_seeds() -> None:
    bits = np.unpackbits(hash_rows(ROWS, 0).view(np.uint8).reshape(-1, 8), axis=1)
    assert bits.mean(0) == pytest.approx(np.full(64, 0.5), abs=0.02)
    assert len(np.unique(np.concatenate([hash_rows(ROWS, seed) for seed in range(3)]))) == 60_000


def test_wrong_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        JetSplit((0.5, 0.1, 0.1))
    with pytest.raises(ValueError, match="one of train, val, test"):
        JetSplit().part("validation")


@pytest.mark.parametrize("drop", [(), ("jet_pt",)])
def test_fitted_weights_flatten_pt_in_each_class(tmp_path: Path, drop: tuple[str, ...]) -> None:
    jets = draw_jets(300, seed=1)
    source = open_jets(
        write_root(tmp_path / "jets.root", {x: jets[x] for x in jets if x not in drop}, 300)
    )
    edges = [0, 60, 150, 500]
    weights = JetWeights.fit(source, edges, chunk_size=100)
    pt = np.array([np.hypot(x.sum(), y.sum()) for x, y in zip(jets["part_px"], jets["part_py"])])  # noqa: B905
    pt = pt if drop else jets["jet_pt"]
    label = source.read(0, 300).label
    weight = weights.of(pt, label)
    for number in range(len(CLASSES)):
        own = label == number
        sums = np.histogram(pt[own], edges, weights=weight[own])[0]
        filled = np.histogram(pt[own], edges)[0] > 0
        assert sums[filled] == pytest.approx(
            np.full(filled.sum(), own.sum() / filled.sum()), rel=1e-4
        )


def test_weights_are_fitted_on_the_given_part_alone(tmp_path: Path) -> None:
    source = open_jets(write_root(tmp_path / "jets.root", draw_jets(300, seed=1), 300))
    part = JetSplit((0.6, 0.2, 0.2)).part("train")
    weights = JetWeights.fit(source, [0, 250, 500], part)
    table = source.read(0, 300)
    table = table.take(np.flatnonzero(part.holds(table.index)))
    weight = weights.of(table.jets["jet_pt"], table.label)
    assert [weight[table.label == i].mean() for i in range(10)] == pytest.approx([1] * 10, rel=1e-5)


def test_weights_outside_the_edges_are_those_of_the_nearest_bin() -> None:
    weights = JetWeights((10.0, 20.0, 30.0), ((1.0, 2.0), (3.0, 4.0)))
    found = weights.of(np.array([0, 15, 20, 99, 15]), np.array([0, 1, 0, 1, -1]))
    assert found.tolist() == [1, 3, 2, 4, 1]


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rise"):
        JetWeights((1.0, 1.0), ((1.0,),))
    with pytest.raises(ValueError, match="a row of 1"):
        JetWeights((1.0, 2.0), ((1.0, 2.0),))
    with pytest.raises(ValueError, match="not negative"):
        JetWeights((1.0, 2.0), ((-1.0,),))
    source = open_jets(write_root(tmp_path / "jets.root", draw_jets(30)))
    with pytest.raises(DataError, match="widen the edges"):
        JetWeights.fit(source, [1000, 2000])
    weights = JetWeights((1.0, 2.0), ((1.0,),))
    with pytest.raises(DataError, match="1 rows, expected one for each class"):
        JetInput([Feature("part_pt_log")], weights=weights).check(source)


def test_offsets_of_one_test_share_make_the_folds_of_a_cross_validation() -> None:
    rows = np.arange(1000)
    splits = [JetSplit((0.7, 0.1, 0.2), seed=3, offset=0.2 * fold) for fold in range(5)]
    held = [split.part("test").holds(rows) for split in splits]
    assert (np.sum(held, 0) == 1).all()
    assert all(150 < part.sum() < 250 for part in held)


def test_the_rule_of_a_split_is_written_down(tmp_path: Path) -> None:
    JetSplit((0.5, 0.25, 0.25), seed=4, offset=0.25).save(tmp_path / "split.json")
    rule = json.loads((tmp_path / "split.json").read_text())
    assert JetSplit(tuple(rule["fractions"]), rule["seed"], rule["offset"]) == JetSplit(
        (0.5, 0.25, 0.25), 4, 0.25
    )
