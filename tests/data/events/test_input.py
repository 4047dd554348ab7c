"""What a network gets of events in files."""

import logging
import math
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from data.events.make_events import CLASSES, MOMENTA, Tables, draw_tables, write_ours
from hepattn.data import DataError
from hepattn.data.epoch_loader import EpochLoader
from hepattn.data.events import (
    EventDataset,
    EventInput,
    EventSampler,
    EventSource,
    EventSplit,
    GroupedHDF5,
    Labels,
    Momentum,
    RootEvents,
    Selection,
    Weighting,
    collate,
    open_events,
)
from hepattn.data.events.split import PARTS
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Feature


def features(*names: str) -> tuple[Feature, ...]:
    return tuple(Feature(name) for name in names)


SCHEMA = EventSchema(
    features("met", "year"),
    {"muons": features("charge", "pt"), "jets": features("pt", "eta", "energy", "btag")},
    {"muons": 3, "jets": 2},
    ("jets", "muons"),
)
INPUT = EventInput(SCHEMA, MOMENTA, auxiliary=("year", "event_number"))
TABLES = draw_tables(60)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> EventSource:
    return open_events(write_ours(tmp_path_factory.mktemp("input") / "a.h5", TABLES))


def open_tables(folder: Path, tables: Tables) -> EventSource:
    return open_events(write_ours(folder / "a.h5", tables))


def test_batches_hold_the_leading_objects_of_each_event(source: EventSource) -> None:
    batch = INPUT.read(source, 0, 60)
    assert [x.shape for x in batch.objects] == [(60, 3, 2), (60, 2, 4)]
    assert batch.vectors.shape == (60, 5, 4)
    for event in range(60):
        for kind, first, number in (("muons", 0, 3), ("jets", 3, 2)):
            rows = TABLES[kind][event]
            rows = rows[rows["valid"]]
            rows = rows[np.argsort(-rows["pt"])][:number]
            valid = batch.valid[event, first : first + number]
            assert valid.tolist() == [True] * len(rows) + [False] * (number - len(rows))
            columns = batch.objects[SCHEMA.kinds.index(kind)][event]
            vectors = batch.vectors[event, first : first + number]
            assert (columns[~valid] == 0).all()
            assert (vectors[~valid] == 0).all()
            for slot, row in enumerate(rows):
                pt, eta = float(row["pt"]), float(row["eta"])
                mass = float(row["mass"]) if kind == "jets" else 0.105658
                energy = math.hypot(pt * math.cosh(eta), mass)
                assert vectors[slot, 0].item() == pytest.approx(energy, rel=1e-5)
                assert vectors[slot, 3].item() == pytest.approx(pt * math.sinh(eta), rel=1e-5)
                known = {**{n: row[n] for n in row.dtype.names}, "pt": pt, "energy": energy}
                expected = [float(known[f.name]) for f in SCHEMA.objects[kind]]
                assert columns[slot].tolist() == pytest.approx(expected)


def test_batches_hold_columns_classes_and_weights(source: EventSource) -> None:
    batch = INPUT.read(source, 10, 40)
    events = TABLES["events"][10:40]
    assert batch.events.tolist() == [[float(e["met"]), float(e["year"])] for e in events]
    assert (batch.auxiliary[:, 0].numpy() == events["year"]).all()
    assert (batch.auxiliary[:, 1].numpy() == events["event_number"]).all()
    assert (batch.weight.numpy() == events["weight"]).all()
    assert batch.index.tolist() == list(range(10, 40))
    order = sorted(CLASSES.values())
    assert batch.label.tolist() == [order.index(number) for number in events["label"]]


def test_objects_without_momentum_keep_the_order_of_the_file(source: EventSource) -> None:
    objects = {**SCHEMA.objects, "jets": features("pt")}
    schema = replace(SCHEMA, objects=objects, with_vectors=("muons",))
    inputs = EventInput(schema, {"muons": MOMENTA["muons"]})
    batch = inputs.read(source, 0, 60)
    for event, jets in enumerate(TABLES["jets"]):
        kept = jets["pt"][jets["valid"]][:2].tolist()
        assert batch.objects[1][event, : len(kept), 0].tolist() == kept
    assert (batch.vectors[:, 3:] == 0).all()


def test_a_column_that_is_missing_may_have_a_value(source: EventSource) -> None:
    schema = EventSchema(
        (Feature("ht", missing=-5.0), Feature("met")),
        {"jets": (Feature("tau21", missing=0.5),)},
        {"jets": 4},
    )
    batch = EventInput(schema).read(source, 0, 60)
    assert (batch.events[:, 0] == -5).all()
    assert (batch.objects[0][batch.valid] == 0.5).all()
    assert (batch.objects[0][~batch.valid] == 0).all()
    assert batch.valid.any()
    assert not batch.valid.all()


def test_parts_selections_and_classes_choose_events(
    source: EventSource, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = replace(
        INPUT,
        labels=Labels(classes={"background": ["zjets"], "signal": [5]}),
        selection=Selection({"year": [2016, 2018]}),
    )
    split = EventSplit(0.5, 0.2, 0.2, 0.1)
    with caplog.at_level(logging.INFO):
        parts = [EventDataset(source, inputs, split.part(name)) for name in PARTS]
    rows = np.concatenate([dataset.batch.index for dataset in parts])
    events = TABLES["events"]
    chosen = np.isin(events["year"], [2016, 2018])
    wanted = np.flatnonzero(chosen & np.isin(events["label"], [1, 5]))
    assert sorted(rows.tolist()) == wanted.tolist()
    assert sum(dataset.label.sum() for dataset in parts) == (events["label"][wanted] == 5).sum()
    dropped = (chosen & (events["label"] == 0)).sum()
    said = [r.args[1] for r in caplog.records if r.levelno == logging.WARNING]
    assert sum(said) == dropped


def test_events_to_predict_need_no_labels_and_weights(tmp_path: Path) -> None:
    path = write_ours(tmp_path / "a.h5", TABLES)
    with h5py.File(path, "a") as file:
        del file["events"], file.attrs["classes"]
        file["events"] = TABLES["events"][["met", "year", "event_number"]]
    source = open_events(path)
    with pytest.raises(DataError, match=r"found no label, .*name the column .* in labels.column"):
        EventDataset(source, replace(INPUT, labels=Labels(classes={"a": [0], "b": [1]})))
    dataset = EventDataset(source, INPUT, labelled=False)
    assert (dataset.label == -1).all()
    assert (dataset.weight == 1).all()
    assert dataset.batch.index.tolist() == list(range(60))


def test_events_to_predict_may_be_of_unknown_processes(source: EventSource, tmp_path: Path) -> None:
    number = TABLES["events"]["label"]
    some = replace(INPUT, labels=Labels(classes={"a": ["wjets", "zjets"], "b": ["signal"]}))
    label = EventDataset(source, some, labelled=False).label
    assert (label == np.select([number == 5, number == 1], [1, 0], -1)).all()
    path = write_ours(tmp_path / "a.h5", TABLES)
    with h5py.File(path, "a") as file:
        file.attrs["classes"] = "{}"
    assert (EventDataset(open_events(path), INPUT, labelled=False).label == -1).all()


def test_pieces_do_not_change_the_events(source: EventSource) -> None:
    whole = INPUT.read(source, 0, 60)
    pieces = list(INPUT.chunks(source, chunk_size=7))
    assert len(pieces) == 9
    for name in ("events", "vectors", "valid", "label", "index"):
        joined = torch.cat([getattr(piece, name) for piece in pieces])
        assert (joined == getattr(whole, name)).all()


def test_a_loader_gives_every_event_once(source: EventSource) -> None:
    dataset = EventDataset(source, INPUT)
    sampler = EventSampler(dataset.label, dataset.classes, 16)
    loader = EpochLoader(dataset, sampler, collate)
    batches = list(loader)
    assert [len(batch.label) for batch in batches] == [16, 16, 16, 12]
    index = torch.cat([batch.index for batch in batches])
    assert sorted(index.tolist()) == list(range(60))
    jets = torch.cat([batch.objects[1] for batch in batches])
    assert (jets[index.argsort()] == dataset.batch.objects[1]).all()
    assert dataset[5].index.tolist() == [5]


def test_weights_of_the_training_leave_the_events_as_they_are(source: EventSource) -> None:
    dataset = EventDataset(source, INPUT)
    weighting = Weighting(class_weights="counts")
    factors = weighting.fit(dataset.label, dataset.weight, dataset.classes)
    weighed = dataset.weigh(weighting, factors)
    expected = dataset.weight * np.array(factors, np.float32)[dataset.label]
    assert weighed.weight == pytest.approx(expected, rel=1e-6)
    assert (dataset.weight == TABLES["events"]["weight"]).all()
    assert weighed[3].weight.item() == weighed.weight[3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": "w"}, r"found no w, .*set the column of the weights to null"),
        ({"auxiliary": ("mjj",)}, r"columns of events: found no mjj, .*met"),
        ({"labels": Labels("process")}, r"found no process, .*labels.column"),
        ({"labels": Labels(None)}, r"labels.column: found none"),
        ({"selection": Selection({"tight": [1]})}, r"found no tight"),
    ],
)
def test_missing_columns_say_what_to_do(
    source: EventSource, change: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        EventDataset(source, replace(INPUT, **change))


def test_a_source_without_event_numbers_says_what_to_do(source: EventSource) -> None:
    split = EventSplit(column="number")
    with pytest.raises(DataError, match=r"found no number, .*set split.column to null"):
        EventDataset(source, INPUT, split.part("train"))


def test_an_empty_part_is_refused(source: EventSource) -> None:
    split = EventSplit(1.0, 0.0, 0.0, 0.0)
    with pytest.raises(DataError, match=r"part val: found none of the 60 events"):
        EventDataset(source, INPUT, split.part("val"))


@pytest.mark.parametrize("place", ["weight", "momentum", "feature"])
def test_values_beyond_float32_and_nan_weights_are_refused(tmp_path: Path, place: str) -> None:
    tables = draw_tables(9)
    jets = tables["jets"]
    jets["valid"][4] = True
    jets[4] = [(9, 1, 1, 1, 0, True)] * 4
    if place == "weight":
        tables["events"]["weight"][4] = np.nan
    elif place == "momentum":
        jets["eta"][4, 1] = 200
    else:
        wide = [("met", "f8"), ("label", "i4"), ("weight", "f4"), ("event_number", "i8")]
        events = np.zeros(9, [*wide, ("year", "i2")])
        events["met"][4] = 1e300
        tables["events"] = events
    with pytest.raises(DataError, match=r"event 4(: |, )(weight|jets: momentum|met): found"):
        INPUT.read(open_tables(tmp_path, tables), 0, 9)


def test_whole_numbers_that_float32_would_change_are_refused(tmp_path: Path) -> None:
    tables = draw_tables(9)
    tables["events"]["event_number"][4] = 2**24
    assert INPUT.read(open_tables(tmp_path, tables), 0, 9).auxiliary[4, 1] == 2**24
    tables["events"]["event_number"][4] += 1
    with pytest.raises(DataError, match=r"event 4: event_number: found 16777217, .*exactly"):
        INPUT.read(open_tables(tmp_path, tables), 0, 9)


def test_inputs_that_contradict_the_schema_are_refused() -> None:
    with pytest.raises(ValueError, match=r"momentum of \['jets'\] must be of the kinds"):
        EventInput(SCHEMA, {"jets": MOMENTA["jets"]})
    with pytest.raises(ValueError, match="no kind of object may be called events"):
        EventInput(EventSchema(objects={"events": features("pt")}, max_objects={"events": 1}))
    with pytest.raises(ValueError, match="max_objects of jets=0 must be at least 1"):
        EventInput(EventSchema(objects={"jets": features("pt")}, max_objects={"jets": 0}))


def test_events_need_no_objects_and_objects_no_columns_of_events(source: EventSource) -> None:
    flat = EventInput(EventSchema(features("met"))).read(source, 0, 60)
    assert (flat.objects, flat.vectors.shape, flat.valid.shape) == ((), (60, 0, 4), (60, 0))
    jagged = EventSchema(objects={"jets": features("pt")}, max_objects={"jets": 6})
    batch = EventInput(jagged).read(source, 0, 60)
    assert batch.events.shape == (60, 0)
    assert batch.valid.sum() == TABLES["jets"]["valid"].sum()


def test_the_four_lepton_tuple_is_read(data_dir: Path) -> None:
    kinds = {"jets": "Jet_", "muons": "Muon_", "electrons": "Electron_"}
    source = open_events(data_dir / "events/uproot-HZZ.root", RootEvents(objects=kinds))
    schema = EventSchema(
        features("MET_px", "MET_py"),
        {kind: features("pt", "eta", "phi", "mass") for kind in kinds},
        dict.fromkeys(kinds, 4),
        tuple(kinds),
    )
    momentum = Momentum(px="Px", py="Py", pz="Pz", energy="E")
    inputs = EventInput(
        schema,
        dict.fromkeys(kinds, momentum),
        Labels("triggerIsoMu24", {"other": [0], "triggered": [1]}),
        weight="EventWeight",
    )
    split = EventSplit(0.8, 0.1, 0.1, 0.0, column=None)
    batch = EventDataset(source, inputs, split.part("train")).batch
    assert len(batch.label) == pytest.approx(0.8 * 2421, rel=0.05)
    muons = slice(4, 8)
    real = batch.valid[:, muons]
    mass = batch.objects[1][..., 3][real]
    assert mass.median().item() == pytest.approx(0.105658, abs=0.02)
    pairs = batch.vectors[:, muons][real.sum(1) == 2].sum(1)
    pair_mass = (pairs[:, 0] ** 2 - pairs[:, 1:].square().sum(1)).clamp(min=0).sqrt()
    assert pair_mass.median().item() == pytest.approx(91.2, abs=3)  # Z bosons


def test_the_all_hadronic_top_file_is_read(data_dir: Path) -> None:
    source = open_events(data_dir / "events/example_1k.h5", GroupedHDF5({"jets": "INPUTS/Source"}))
    jets = features("pt", "eta", "phi", "mass", "btag")
    inputs = EventInput(
        EventSchema(objects={"jets": jets}, max_objects={"jets": 10}, with_vectors=("jets",)),
        {"jets": MOMENTA["jets"]},
        Labels("TARGETS/t1/b", {"lost": [-1], "found": list(range(10))}),
        weight=None,
        auxiliary=("TARGETS/t1/q1", "TARGETS/t1/q2", "TARGETS/t1/b"),
    )
    dataset = EventDataset(source, inputs)
    assert len(dataset) == 1000
    # The file has its jets by falling pt, so that its indices of the daughters hold.
    daughters = dataset.batch.auxiliary.long()
    whole = (daughters >= 0).all(1)
    places = daughters[whole][..., None].expand(-1, -1, 4)
    top = dataset.batch.vectors[whole].gather(1, places).sum(1)
    mass = (top[:, 0] ** 2 - top[:, 1:].square().sum(1)).clamp(min=0).sqrt()
    assert mass.median().item() == pytest.approx(160, abs=5)  # jets lose some of the 172.5 GeV
