"""Events of the liquid-xenon detector in memory and as a stream, whole and in parts."""

from pathlib import Path

import pytest
import torch

from hepattn.data.error import DataError
from hepattn.data.events import EventPart, EventSplit
from hepattn.data.xec import StreamingLoader, StreamingXec, XecDataset, open_xec
from hepattn.data.xec.batch import XecBatch
from hepattn.data.xec.part import chosen_rows

SPLIT = EventSplit(0.5, 0.25, 0.25, 0.0)


def test_parts_are_disjoint_and_complete(xec_files: list[Path]) -> None:
    source = open_xec(xec_files)
    held = [chosen_rows(source, EventPart(SPLIT, part)) for part in ("train", "val", "test")]
    assert (sum(part.astype(int) for part in held) == 1).all()


def test_runs_stay_together_if_they_decide(xec_files: list[Path]) -> None:
    source = open_xec(xec_files)
    part = EventPart(EventSplit(0.5, 0.5, 0.0, 0.0, column="run"), "train")
    held = chosen_rows(source, part)
    run = source.read(0, 14).run
    for number in run.unique():
        assert len(set(held[(run == number).numpy()].tolist())) == 1


def test_the_split_does_not_depend_on_the_order_of_files(xec_files: list[Path]) -> None:
    part = EventPart(SPLIT, "train")
    forward, backward = open_xec(xec_files), open_xec(xec_files[::-1])
    chosen = [
        set(source.read(0, 14).event[torch.from_numpy(chosen_rows(source, part))].tolist())
        for source in (forward, backward)
    ]
    assert chosen[0] == chosen[1]


def test_a_part_without_events_and_a_wrong_column_are_named(xec_files: list[Path]) -> None:
    source = open_xec(xec_files)
    empty = EventPart(EventSplit(1.0, 0.0, 0.0, 0.0), "test")
    with pytest.raises(DataError, match=r"part test: found none of the 14 events"):
        chosen_rows(source, empty)
    with pytest.raises(DataError, match=r"column: found energy, expected one of run, event_number"):
        chosen_rows(source, EventPart(EventSplit(1.0, 0.0, 0.0, 0.0, column="energy"), "train"))


@pytest.mark.parametrize("chunk_size", [3, 1000])
def test_a_dataset_has_the_events_of_its_part(xec_files: list[Path], chunk_size: int) -> None:
    source = open_xec(xec_files)
    part = EventPart(SPLIT, "train")
    dataset = XecDataset(source, part, chunk_size)
    rows = torch.from_numpy(chosen_rows(source, part)).nonzero()[:, 0]
    assert torch.equal(dataset.events.index, rows)
    batch, everything = dataset.__getitems__([2, 0]), source.read(0, 14)
    assert batch.index.tolist() == rows[[2, 0]].tolist()
    assert torch.equal(batch.photons, everything.photons[batch.index])
    assert dataset[1].photons.shape == (1, 4760)


def collect(stream: StreamingXec, num_workers: int = 0) -> XecBatch:
    batches = list(StreamingLoader(stream, num_workers))
    return XecBatch(*map(torch.cat, zip(*batches, strict=True)))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_every_event_is_streamed_once(
    xec_files: list[Path], num_workers: int, num_ranks: int
) -> None:
    source = open_xec(xec_files)
    streams = [
        StreamingXec(source, 2, chunk_size=3, buffer_size=4, rank=rank, num_ranks=num_ranks)
        for rank in range(num_ranks)
    ]
    ranks = [collect(stream, num_workers) for stream in streams]
    assert len({len(rank.index) for rank in ranks}) == 1
    real = torch.cat([rank.index[rank.weight > 0] for rank in ranks])
    assert sorted(real.tolist()) == list(range(14))
    everything = source.read(0, 14)
    assert torch.equal(ranks[0].photons, everything.photons[ranks[0].index])


def test_a_stream_continues_in_the_middle_of_an_epoch(xec_files: list[Path]) -> None:
    source = open_xec(xec_files)
    loader = StreamingLoader(StreamingXec(source, 3, chunk_size=3, buffer_size=6))
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    state = loader.state_dict()
    rest = [batch.index.tolist() for batch in iterator]
    other = StreamingLoader(StreamingXec(source, 3, chunk_size=3, buffer_size=6))
    other.load_state_dict(state)
    assert [batch.index.tolist() for batch in other] == rest


def test_a_stream_without_shuffling_keeps_the_order(xec_files: list[Path]) -> None:
    part = EventPart(SPLIT, "train")
    source = open_xec(xec_files)
    stream = collect(StreamingXec(source, 3, part, shuffle=False))
    assert torch.equal(stream.index, XecDataset(source, part).events.index)
