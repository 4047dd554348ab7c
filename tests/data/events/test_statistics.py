"""Statistics of the training columns."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data.events.make_events import MOMENTA, draw_tables, write_ours
from hepattn.data import DataError
from hepattn.data.events import (
    EventBatch,
    EventInput,
    EventSource,
    EventSplit,
    Statistics,
    open_events,
    summarise,
)
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import TRANSFORMS, Feature

SCHEMA = EventSchema(
    (Feature("met", "log"), Feature("year", categories=(2016, 2017))),
    {"jets": (Feature("pt", "log1p"), Feature("eta"), Feature("btag"))},
    {"jets": 3},
    ("jets",),
)
INPUT = EventInput(SCHEMA, {"jets": MOMENTA["jets"]})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> EventSource:
    return open_events(write_ours(tmp_path_factory.mktemp("stats") / "a.h5", draw_tables(300)))


def test_statistics_are_those_of_the_real_training_entries(source: EventSource) -> None:
    part = EventSplit(0.5, 0.5, 0.0, 0.0).part("train")
    statistics = summarise(INPUT.chunks(source, part, chunk_size=37), SCHEMA)
    batch = INPUT.read(source, 0, 300, part)
    raw = {"events": batch.events, "jets": batch.objects[0][batch.valid]}
    assert set(statistics.summaries) == set(raw)
    for name, features in (("events", SCHEMA.events), ("jets", SCHEMA.objects["jets"])):
        summary = statistics.summaries[name]
        for place, feature in enumerate(features):
            if feature.categories is not None:
                continue
            x = TRANSFORMS[feature.transform](raw[name][:, place]).double().numpy()
            assert summary.count[place] == len(x)
            assert summary.mean[place].item() == pytest.approx(x.mean(), rel=1e-5, abs=1e-6)
            assert summary.std[place].item() == pytest.approx(x.std(), rel=1e-5)
            expected = np.quantile(x, np.linspace(0, 1, 1001))
            assert summary.quantiles[:, place].numpy() == pytest.approx(
                expected, rel=1e-5, abs=1e-6
            )


def test_other_parts_do_not_count(source: EventSource, tmp_path: Path) -> None:
    part = EventSplit().part("train")
    statistics = summarise(INPUT.chunks(source, part), SCHEMA)
    tables = draw_tables(300)
    others = ~part.holds({"event_number": tables["events"]["event_number"]}, np.arange(300))
    tables["events"]["met"][others] = 1e6
    changed = open_events(write_ours(tmp_path / "b.h5", tables))
    again = summarise(INPUT.chunks(changed, part), SCHEMA)
    for ours, theirs in zip(statistics.summaries["events"], again.summaries["events"], strict=True):
        assert torch.equal(ours, theirs)


def test_categorical_columns_have_values_and_no_statistics(source: EventSource) -> None:
    statistics = summarise(INPUT.chunks(source), SCHEMA)
    summary = statistics.summaries["events"]
    assert summary.count[1] == summary.mean[1] == summary.std[1] == 0
    assert (summary.quantiles[:, 1] == 0).all()
    assert statistics.values == {"events": {"year": (2016, 2017, 2018)}, "jets": {"btag": (0, 1)}}


def test_a_large_sample_is_drawn_alike_whatever_the_pieces(source: EventSource) -> None:
    few = summarise(INPUT.chunks(source), SCHEMA, max_rows=100)
    small = summarise(INPUT.chunks(source, chunk_size=11), SCHEMA, max_rows=100)
    exact = summarise(INPUT.chunks(source), SCHEMA)
    for name, summary in few.summaries.items():
        assert torch.equal(summary.quantiles, small.summaries[name].quantiles)
        whole = exact.summaries[name]
        assert torch.equal(summary.count, whole.count)
        assert torch.allclose(summary.mean, whole.mean)
        assert torch.equal(summary.quantiles[[0, -1]], whole.quantiles[[0, -1]])
        assert not torch.equal(summary.quantiles, whole.quantiles)
    other = summarise(INPUT.chunks(source), SCHEMA, max_rows=100, seed=1)
    assert not torch.equal(other.summaries["jets"].quantiles, few.summaries["jets"].quantiles)


def test_a_sample_has_the_quantiles_of_all_within_its_errors() -> None:
    schema = EventSchema((Feature("x"),))
    x = torch.randn(40_000, 1)
    none = torch.zeros(40_000)
    whole = EventBatch(x, none, none, (), none, none, none, none)
    sampled = summarise([whole], schema, max_rows=4000).summaries["events"].quantiles[:, 0]
    normal = torch.distributions.Normal(0.0, 1.0)
    share = normal.cdf(sampled)
    assert (share - torch.linspace(0, 1, 1001)).abs().max() < 0.03


def test_the_order_of_max_objects_does_not_matter() -> None:
    objects = {"jets": (Feature("x"),), "muons": (Feature("y"),)}
    schema = EventSchema((), objects, {"muons": 1, "jets": 2})
    valid = torch.tensor([[True, True, False], [True, False, True]])  # two jets, then a muon
    columns = (torch.tensor([[[1.0], [2.0]], [[3.0], [9.0]]]), torch.tensor([[[9.0]], [[7.0]]]))
    none = torch.zeros(2)
    batch = EventBatch(none, none, valid, columns, none, none, none, none)
    summaries = summarise([batch], schema).summaries
    assert (summaries["jets"].count.item(), summaries["jets"].mean.item()) == (3, 2)
    assert (summaries["muons"].count.item(), summaries["muons"].mean.item()) == (1, 7)


def test_kinds_that_never_occur_have_zeros(tmp_path: Path) -> None:
    tables = draw_tables(10)
    tables["jets"]["valid"] = False
    source = open_events(write_ours(tmp_path / "a.h5", tables))
    summary = summarise(INPUT.chunks(source), SCHEMA).summaries["jets"]
    assert all((x == 0).all() for x in summary)


def test_statistics_are_saved_and_read_back(source: EventSource, tmp_path: Path) -> None:
    statistics = summarise(INPUT.chunks(source), SCHEMA)
    path = tmp_path / "statistics.json"
    statistics.save(path)
    read = Statistics.load(path, SCHEMA)
    for name, summary in statistics.summaries.items():
        for ours, theirs in zip(summary, read.summaries[name], strict=True):
            assert torch.equal(ours, theirs)
            assert ours.dtype == theirs.dtype
    assert read.values == statistics.values
    met = json.loads(path.read_text())["events"][0]
    assert (met["name"], met["transform"], met["count"]) == ("met", "log", 300)


def test_statistics_of_other_columns_are_refused(source: EventSource, tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    summarise(INPUT.chunks(source), SCHEMA).save(path)
    other = EventSchema((Feature("met"),))
    with pytest.raises(DataError, match=r"columns: found .*make the statistics anew"):
        Statistics.load(path, other)
    numeric = EventSchema((SCHEMA.events[0], Feature("year")), SCHEMA.objects, {"jets": 3})
    with pytest.raises(DataError, match=r"columns: found .*make the statistics anew"):
        Statistics.load(path, numeric)
    path.write_text('{"events": [{"name": "met"}]}')
    with pytest.raises(DataError, match=r"contents: found 'transform'"):
        Statistics.load(path, other)
    with pytest.raises(DataError, match=r"contents: .*No such file"):
        Statistics.load(tmp_path / "none.json", other)
