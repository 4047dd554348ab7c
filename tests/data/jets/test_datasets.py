"""Batches in memory and by streaming hold every jet once, whoever reads them."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from data.jets.make_jets import draw_jets, write_lists
from hepattn.data import DataError, LengthBucketSampler
from hepattn.data.chunks import chunk_ranges
from hepattn.data.jets import (
    JetBatch,
    JetDataset,
    JetInput,
    JetSource,
    JetSplit,
    JetWeights,
    StreamingJets,
    StreamingLoader,
    collate,
    open_jets,
)
from hepattn.nn.normalise import Feature

# On a machine with few cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

NUM = 103
FEATURES = JetInput([Feature("part_pt_log"), Feature("part_d0"), Feature("part_dphi")])
STREAM = {"batch_size": 8, "chunk_size": 7, "buffer_size": 24}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> JetSource:
    """Jets in two files."""
    folder = tmp_path_factory.mktemp("jets")
    jets = draw_jets(NUM)
    for i, (start, stop) in enumerate([(0, 40), (40, NUM)]):
        part = {name: values[start:stop] for name, values in jets.items()}
        write_lists(folder / f"{i}.parquet", part, 20)
    return open_jets(folder)


def rows_of(batches: list[JetBatch]) -> list[int]:
    """Rows of the source that count."""
    return [
        row
        for batch in batches
        for row, weight in zip(batch.index.tolist(), batch.weight.tolist(), strict=True)
        if weight
    ]


def equal(first: list[JetBatch], second: list[JetBatch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(x, y)
        for a, b in zip(first, second, strict=True)
        for x, y in zip(a, b, strict=True)
    )


def test_batch_holds_the_jets_and_zeros(source: JetSource) -> None:
    jets = draw_jets(NUM)
    dataset = JetDataset(source, FEATURES)
    wanted = [4, 90, 4, 17]
    batch = dataset.__getitems__(wanted)
    lengths = [len(jets["part_px"][jet]) for jet in wanted]
    assert batch.particles.shape == (4, max(lengths), 3)
    assert batch.valid.sum(1).tolist() == lengths
    assert batch.index.tolist() == wanted
    assert (batch.weight == 1).all()
    for place, (jet, length) in enumerate(zip(wanted, lengths, strict=True)):
        px, py = (np.asarray(jets[f"part_{x}"][jet]) for x in ("px", "py"))
        assert batch.particles[place, :length, 0].numpy() == pytest.approx(
            np.log(np.hypot(px, py)), rel=1e-5
        )
        assert batch.vectors[place, :length, 1].numpy() == pytest.approx(px)
        assert (batch.particles[place, length:] == 0).all()
        assert (batch.vectors[place, length:] == 0).all()
    assert torch.equal(dataset[17].vectors[0], batch.vectors[3, : lengths[3]])


def test_batches_are_padded_as_asked(source: JetSource) -> None:
    features = JetInput(FEATURES.features, max_particles=3, pad_to=5)
    batch = JetDataset(source, features).__getitems__(range(10))
    assert batch.valid.shape == (10, 5)
    assert batch.valid.sum(1).max() == 3
    with pytest.raises(ValueError, match="pad_to=2 must be at least max_particles=3"):
        JetInput(FEATURES.features, max_particles=3, pad_to=2)


def test_batch_of_jets_without_particles_has_a_slot(source: JetSource) -> None:
    dataset = JetDataset(source, FEATURES)
    batch = dataset.__getitems__([dataset.lengths.index(0)])
    assert batch.valid.tolist() == [[False]]


def test_loader_takes_batches_of_like_lengths(source: JetSource) -> None:
    dataset = JetDataset(source, FEATURES)
    sampler = LengthBucketSampler(dataset.lengths, max_events=8)
    batches = list(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate))
    assert sorted(rows_of(batches)) == list(range(NUM))


def test_parts_in_memory_and_streamed_are_the_same_and_disjoint(source: JetSource) -> None:
    split = JetSplit((0.6, 0.2, 0.2), seed=3)
    seen = []
    for name in ("train", "val", "test"):
        dataset = JetDataset(source, FEATURES, split.part(name))
        rows = dataset.__getitems__(range(len(dataset))).index.tolist()
        streamed = list(StreamingJets(source, FEATURES, part=split.part(name), **STREAM))
        assert sorted(rows_of(streamed)) == rows
        seen += rows
    assert sorted(seen) == list(range(NUM))


def test_weights_reach_the_batch(source: JetSource) -> None:
    weights = JetWeights((0.0, 250.0, 500.0), tuple((i, i + 0.5) for i in range(10)))
    features = JetInput(FEATURES.features, weights=weights)
    batch = JetDataset(source, features).__getitems__(range(NUM))
    pt = draw_jets(NUM)["jet_pt"]
    wanted = batch.label.numpy() + 0.5 * (pt >= 250)
    assert batch.weight.numpy() == pytest.approx(wanted)


def test_epoch_streams_every_jet_once_in_its_own_order(source: JetSource) -> None:
    jets = StreamingJets(source, FEATURES, **STREAM)
    first, second = rows_of(list(jets)), rows_of(list(jets))
    assert sorted(first) == sorted(second) == list(range(NUM))
    assert first != second != list(range(NUM))
    jets.set_epoch(0)
    assert rows_of(list(jets)) == first
    other = StreamingJets(source, FEATURES, seed=1, **STREAM)
    assert rows_of(list(other)) != first


def test_stream_without_shuffling_keeps_the_order(source: JetSource) -> None:
    batches = list(StreamingJets(source, FEATURES, shuffle=False, **STREAM))
    assert rows_of(batches) == list(range(NUM))
    assert [len(batch.label) for batch in batches] == [8] * 12 + [7]
    dataset = JetDataset(source, FEATURES)
    wanted = [dataset.__getitems__(range(i, min(i + 8, NUM))) for i in range(0, NUM, 8)]
    assert equal(batches, wanted)


@pytest.mark.parametrize("num_ranks", [2, 4, 5])
def test_ranks_share_the_jets_and_have_equally_many_batches(
    source: JetSource, num_ranks: int
) -> None:
    ranks = [
        StreamingJets(source, FEATURES, rank=rank, num_ranks=num_ranks, **STREAM)
        for rank in range(num_ranks)
    ]
    batches = [list(jets) for jets in ranks]
    assert sorted(row for rank in batches for row in rows_of(rank)) == list(range(NUM))
    sizes = {tuple(len(batch.label) for batch in rank) for rank in batches}
    assert len(sizes) == 1
    assert {len(jets) for jets in ranks} == {len(batches[0])}


def test_ranks_beyond_the_jets_get_jets_of_weight_zero(source: JetSource) -> None:
    few = JetSplit((0.95, 0.02, 0.03)).part("val")
    num = len(JetDataset(source, FEATURES, few))
    ranks = [
        list(StreamingJets(source, FEATURES, part=few, rank=r, num_ranks=7, **STREAM))
        for r in range(7)
    ]
    assert 0 < num < 7
    assert len([row for rank in ranks for row in rows_of(rank)]) == num
    assert all(len(rank) == 1 for rank in ranks)


def on_from(source: JetSource, state: dict, num_workers: int = 0) -> list[JetBatch]:
    loader = StreamingLoader(StreamingJets(source, FEATURES, **STREAM), num_workers)
    loader.load_state_dict(pickle.loads(pickle.dumps(state)))
    return list(loader)


@pytest.mark.parametrize("served", [0, 1, 3, 4, 12, 13])
def test_stream_goes_on_where_it_stopped(source: JetSource, served: int) -> None:
    loader = StreamingLoader(StreamingJets(source, FEATURES, **STREAM))
    list(loader)  # so that it is the second epoch
    batches, states = [], [copy.deepcopy(loader.state_dict())]
    for batch in loader:
        batches.append(batch)
        states.append(copy.deepcopy(loader.state_dict()))
    if served:
        assert equal(on_from(source, states[served]), batches[served:])
    assert states[-1]["batches"] == 13


def test_workers_stream_every_jet_once_and_go_on_where_they_stopped(source: JetSource) -> None:
    loader = StreamingLoader(StreamingJets(source, FEATURES, **STREAM), num_workers=2)
    batches, states = [], []
    for batch in loader:
        batches.append(batch)
        states.append(copy.deepcopy(loader.state_dict()))
    assert sorted(rows_of(batches)) == list(range(NUM))
    assert len(batches) == len(loader)
    for served in (4, 5):
        rest = on_from(source, states[served - 1], num_workers=2)
        assert equal(rest, batches[served:])
    with pytest.raises(ValueError, match="num_workers=1 must be 2"):
        on_from(source, states[4], num_workers=1)


def test_workers_that_live_on_see_the_next_epoch(source: JetSource) -> None:
    jets = StreamingJets(source, FEATURES, **STREAM)
    loader = StreamingLoader(jets, num_workers=1)
    own = StreamingJets(source, FEATURES, **STREAM)
    assert rows_of(list(loader)) == rows_of(list(own))
    assert rows_of(list(loader)) == rows_of(list(own))


def test_broken_off_epoch_is_followed_by_the_next(source: JetSource) -> None:
    jets, whole = (StreamingJets(source, FEATURES, **STREAM) for _ in range(2))
    next(iter(jets))
    list(whole)
    assert rows_of(list(jets)) == rows_of(list(whole))


def test_state_of_another_order_is_refused(source: JetSource) -> None:
    state = StreamingJets(source, FEATURES, seed=1, **STREAM).state_dict()
    with pytest.raises(ValueError, match=r"seed: \[0\] must be \[1\]"):
        StreamingJets(source, FEATURES, **STREAM).load_state_dict(state)


def test_wrong_sizes_are_refused(source: JetSource) -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        StreamingJets(source, FEATURES, 0)
    with pytest.raises(ValueError, match="buffer_size=4 must be at least batch_size=8"):
        StreamingJets(source, FEATURES, 8, buffer_size=4)
    with pytest.raises(ValueError, match="rank=2"):
        StreamingJets(source, FEATURES, 8, rank=2, num_ranks=2)


def test_part_without_jets_is_an_error(source: JetSource) -> None:
    nothing = JetSplit((1.0, 0.0, 0.0)).part("test")
    for make in (JetDataset, lambda *args, part: StreamingJets(*args, 8, part=part)):
        with pytest.raises(DataError, match="part test: found none of the 103 jets"):
            make(source, FEATURES, part=nothing)


def test_faults_are_found_before_the_first_batch(source: JetSource) -> None:
    with pytest.raises(DataError, match="no part_colour"):
        StreamingJets(source, JetInput([Feature("part_colour")]), 8)


def test_chunks_end_with_blocks_where_these_are_small() -> None:
    assert chunk_ranges(np.array([4, 8, 12, 30, 32]), 10) == [
        (0, 8),
        (8, 12),
        (12, 22),
        (22, 32),
    ]


def test_a_shuffled_stream_decodes_a_row_group_once_a_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_jets(write_lists(tmp_path / "jets.parquet", draw_jets(60), rows=30))
    stream = StreamingJets(source, FEATURES, batch_size=5, chunk_size=6, buffer_size=20)
    decoded = []
    decode = pq.ParquetFile.read_row_groups

    def count(self: pq.ParquetFile, groups: range, **options: object) -> object:
        decoded.append(list(groups))
        return decode(self, groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", count)
    assert sorted(rows_of(list(stream))) == list(range(60))
    assert len(decoded) <= 2 * 3  # 12 chunks in 3 buffers
