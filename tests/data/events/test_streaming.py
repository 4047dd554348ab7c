"""Events that are streamed are those in memory, and a stream goes on where it stopped."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from data.events.make_events import MOMENTA, draw_tables, write_ours
from hepattn.data import DataError
from hepattn.data.events import (
    EventBatch,
    EventDataset,
    EventInput,
    EventSource,
    EventSplit,
    Labels,
    Selection,
    StreamingEvents,
    StreamingLoader,
    Weighting,
    open_events,
)
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Feature

SCHEMA = EventSchema(
    (Feature("met"),), {"jets": (Feature("pt"), Feature("btag"))}, {"jets": 3}, ("jets",)
)
INPUT = EventInput(
    SCHEMA,
    {"jets": MOMENTA["jets"]},
    Labels(classes={"background": ["ttbar"], "signal": ["signal"]}),
    selection=Selection({"year": [2016, 2018]}),
)
PART = EventSplit(0.8, 0.2, 0.0, 0.0).part("train")
STREAM = {"batch_size": 7, "chunk_size": 20, "buffer_size": 30}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> EventSource:
    folder = tmp_path_factory.mktemp("stream")
    for number in range(3):  # a file is one block
        write_ours(folder / f"{number}.h5", draw_tables(70, seed=number))
    return open_events(folder)


def flatten(batches: list[EventBatch]) -> list[torch.Tensor]:
    """Every field of the events, in the order of the source."""
    index = torch.cat([batch.index for batch in batches])
    order = index.argsort()
    fields = [torch.cat([batch.objects[0] for batch in batches])[order]]
    for name in ("events", "vectors", "valid", "label", "weight", "index"):
        fields.append(torch.cat([getattr(batch, name) for batch in batches])[order])
    return fields


@pytest.mark.parametrize("shuffle", [True, False])
def test_streamed_events_are_those_in_memory(source: EventSource, shuffle: bool) -> None:
    dataset = EventDataset(source, INPUT, PART)
    stream = StreamingEvents(source, INPUT, part=PART, shuffle=shuffle, **STREAM)
    batches = list(stream)
    assert len(batches) == len(stream)
    for ours, theirs in zip(flatten(batches), flatten([dataset.batch]), strict=True):
        assert torch.equal(ours, theirs)
    index = torch.cat([batch.index for batch in batches])
    assert bool((index.diff() > 0).all()) is not shuffle
    assert (stream.label == dataset.label).all()
    assert (stream.weight == dataset.weight).all()
    assert stream.classes == dataset.classes


def test_streamed_weights_are_those_in_memory(source: EventSource) -> None:
    weighting = Weighting(class_weights="weights")
    dataset = EventDataset(source, INPUT, PART)
    stream = StreamingEvents(source, INPUT, part=PART, **STREAM)
    factors = weighting.fit(stream.label, stream.weight, stream.classes)
    streamed = flatten(list(stream.weigh(weighting, factors)))[5]
    assert torch.equal(streamed, dataset.weigh(weighting, factors).batch.weight)
    with pytest.raises(ValueError, match="needs events in memory"):
        stream.weigh(Weighting(None, resampling="under"), None)


@pytest.mark.parametrize("served", [1, 5, 11])
def test_a_stream_goes_on_where_it_stopped(source: EventSource, served: int) -> None:
    loader = StreamingLoader(StreamingEvents(source, INPUT, part=PART, **STREAM))
    iterator = iter(loader)
    for _ in range(served):
        next(iterator)
    state = copy.deepcopy(loader.state_dict())
    rest = [batch.index.tolist() for batch in iterator]
    again = StreamingLoader(StreamingEvents(source, INPUT, part=PART, **STREAM))
    again.load_state_dict(state)
    assert [batch.index.tolist() for batch in again] == rest


def test_ranks_share_the_events_and_fill_up_with_weight_zero(source: EventSource) -> None:
    ranks = [
        list(StreamingEvents(source, INPUT, part=PART, rank=rank, num_ranks=4, **STREAM))
        for rank in range(4)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    batches = [batch for own in ranks for batch in own]
    index = torch.cat([b.index for b in batches])[torch.cat([b.weight for b in batches]) != 0]
    expected = EventDataset(source, INPUT, PART).batch.index
    assert sorted(index.tolist()) == expected.tolist()


def test_ranks_evaluate_each_event_once(source: EventSource) -> None:
    ranks = [
        StreamingEvents(source, INPUT, part=PART, rank=r, num_ranks=4, is_filled=False, **STREAM)
        for r in range(4)
    ]
    batches = [list(stream) for stream in ranks]
    assert [len(own) for own in batches] == [len(stream) for stream in ranks]
    index = torch.cat([batch.index for own in batches for batch in own])
    expected = EventDataset(source, INPUT, PART).batch.index
    assert sorted(index.tolist()) == expected.tolist()


def test_events_to_predict_may_lack_labels(source: EventSource) -> None:
    inputs = EventInput(SCHEMA, INPUT.momentum, Labels(None), weight=None)
    stream = StreamingEvents(source, inputs, labelled=False, shuffle=False, **STREAM)
    batches = list(stream)
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(210))
    assert all((batch.label == -1).all() for batch in batches)


def test_a_stream_of_nothing_and_missing_columns_are_refused(tmp_path: Path) -> None:
    source = open_events(write_ours(tmp_path / "a.h5", draw_tables(9)))
    none = EventInput(SCHEMA, INPUT.momentum, selection=Selection({"year": [1999]}))
    with pytest.raises(DataError, match=r"events: found none of the 9 events"):
        StreamingEvents(source, none, **STREAM)
    lacking = EventInput(EventSchema((Feature("ht"),)))
    with pytest.raises(DataError, match=r"columns of events: found no ht"):
        StreamingEvents(source, lacking, **STREAM)


def test_memory_holds_a_buffer_at_most(
    source: EventSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    own = StreamingEvents._read_buffer

    def count(self: StreamingEvents, *bounds: object) -> tuple[EventBatch, int]:
        rows, number = own(self, *bounds)
        read.append(len(rows.label))
        return rows, number

    monkeypatch.setattr(StreamingEvents, "_read_buffer", count)
    stream = StreamingEvents(source, INPUT, part=PART, **STREAM)
    list(stream)
    assert max(read) <= 30
    assert sum(read) == np.count_nonzero(stream.chosen)
