"""Jets in arrays are read as the same jets in a file are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.jets.make_jets import Columns, draw_jets, write_lists
from hepattn.data import DataError
from hepattn.data.jets import ArrayJets, JetBatch, JetDataset, JetInput, open_jets
from hepattn.nn.normalise import Feature

NUM, SLOTS = 30, 11
JETS = draw_jets(NUM)
NAMES = ("part_pt_log", "part_logptrel", "part_dphi", "part_d0", "part_charge")
INPUT = JetInput([Feature(name) for name in NAMES], max_particles=5)


def pad(jets: Columns) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns of the particles (J, N) and of the jets (J); padding holds NaN."""
    counts = np.array([len(values) for values in jets["part_px"]])
    valid = np.arange(SLOTS) < counts[:, None]
    columns = {}
    for name, values in jets.items():
        if name.startswith("part_"):
            columns[name] = np.full(valid.shape, np.nan)
            columns[name][valid] = np.concatenate(values)
        elif name.startswith("jet_"):
            columns[name] = np.asarray(values)
    return columns, valid


COLUMNS, VALID = pad(JETS)


def assert_same(ours: JetBatch, theirs: JetBatch) -> None:
    for name in ("particles", "vectors", "valid", "weight", "index"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=0, atol=0)


@pytest.fixture
def expected(tmp_path: Path) -> JetBatch:
    dataset = JetDataset(open_jets(write_lists(tmp_path / "jets.parquet", JETS)), INPUT)
    return dataset.__getitems__(list(range(NUM)))


def test_arrays_give_the_batch_of_a_file(expected: JetBatch) -> None:
    batch = INPUT.batch(ArrayJets(COLUMNS, VALID))
    assert_same(batch, expected)
    assert (batch.label == -1).all()


def test_real_particles_may_be_in_any_order(expected: JetBatch) -> None:
    place = np.random.default_rng(0).permuted(np.tile(np.arange(SLOTS), (NUM, 1)), axis=1)
    moved = {
        name: np.take_along_axis(values, place, 1) if values.ndim == 2 else values
        for name, values in COLUMNS.items()
    }
    valid = np.take_along_axis(VALID, place, 1)
    assert_same(INPUT.batch(ArrayJets(moved, valid)), expected)


def test_columns_of_the_jets_may_be_left_out() -> None:
    vectors = {name: COLUMNS[name] for name in ("part_px", "part_py", "part_pz", "part_energy")}
    inputs = JetInput([Feature("part_logptrel")])
    batch = inputs.batch(ArrayJets(vectors, VALID))
    px, py = (np.where(VALID, vectors[name], 0) for name in ("part_px", "part_py"))
    ratio = np.hypot(px, py) / np.maximum(np.hypot(px.sum(1), py.sum(1)), 1e-8)[:, None]
    order = np.argsort(-np.where(VALID, ratio, -1), axis=1, kind="stable")
    logarithm = np.log(np.take_along_axis(np.where(VALID, ratio, 1), order, 1))
    found = batch.particles[..., 0].numpy()
    np.testing.assert_allclose(found, logarithm[:, : found.shape[1]], atol=1e-4)


def test_a_fingerprint_tells_arrays_apart() -> None:
    first = ArrayJets(COLUMNS, VALID).fingerprint()
    assert first == ArrayJets(COLUMNS, VALID).fingerprint()
    assert first != ArrayJets(COLUMNS, ~VALID).fingerprint()


@pytest.mark.parametrize(
    ("change", "valid", "message"),
    [
        ({"part_px": None}, VALID, "arrays: columns: found no part_px"),
        ({"part_px": VALID[:, :3]}, VALID, r"arrays: part_px: found bool \(30, 3\)"),
        ({"jet_pt": COLUMNS["part_px"]}, VALID, r"jet_pt: .* expected numbers \(30,\)"),
        ({"part_charge": np.full(VALID.shape, "a")}, VALID, "part_charge: found <U1"),
        ({}, VALID.astype(int), r"valid: found int64 \(30, 11\), expected bool"),
        ({}, VALID[0], r"valid: found bool \(11,\)"),
        ({"part_charge": None}, VALID, "no part_charge in"),
        ({"part_d0val": np.where(VALID, np.nan, 0)}, VALID, "jet 0: part_d0val: found nan"),
    ],
)
def test_faults_are_named(change: dict, valid: np.ndarray, message: str) -> None:
    columns = {name: x for name, x in (COLUMNS | change).items() if x is not None}
    with pytest.raises(DataError, match=message):
        INPUT.batch(ArrayJets(columns, valid))


def test_no_jets_are_refused() -> None:
    empty = {name: values[:0] for name, values in COLUMNS.items()}
    with pytest.raises(DataError, match="arrays: jets: found an empty"):
        ArrayJets(empty, VALID[:0])
