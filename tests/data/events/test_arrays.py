"""Events in arrays are read as the same events in a file are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.events.make_events import MOMENTA, draw_tables, write_ours
from hepattn.data import DataError
from hepattn.data.events import ArrayEvents, EventInput, Selection, open_events
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
INPUT = EventInput(SCHEMA, MOMENTA)
NUM = 40
TABLES = draw_tables(NUM)
EVENTS = {name: TABLES["events"][name] for name in ("met", "year", "weight")}
OBJECTS = {
    kind: {name: TABLES[kind][name] for name in TABLES[kind].dtype.names if name != "valid"}
    for kind in ("jets", "muons")
}
VALID = {kind: TABLES[kind]["valid"] for kind in OBJECTS}


def test_arrays_give_the_batch_of_a_file(tmp_path: Path) -> None:
    source = open_events(write_ours(tmp_path / "a.h5", TABLES))
    theirs = INPUT.read(source, 0, NUM)
    ours = INPUT.batch(ArrayEvents(EVENTS, OBJECTS, VALID))
    for name in ("events", "vectors", "valid", "objects", "weight", "index"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=0, atol=0)
    assert (ours.label == -1).all()


def test_no_event_is_left_out_and_no_auxiliary_column_needed() -> None:
    inputs = EventInput(
        SCHEMA, MOMENTA, selection=Selection(ranges={"met": (1e3, 1e4)}), auxiliary=("m_jj",)
    )
    batch = inputs.batch(ArrayEvents(EVENTS, OBJECTS, VALID))
    assert batch.index.tolist() == list(range(NUM))
    assert batch.auxiliary.shape == (NUM, 0)


def test_weights_may_be_left_out() -> None:
    events = {name: EVENTS[name] for name in ("met", "year")}
    batch = INPUT.batch(ArrayEvents(events, OBJECTS, VALID))
    assert (batch.weight == 1).all()


def test_columns_or_objects_alone_are_enough() -> None:
    columns = EventInput(EventSchema(features("met")))
    assert columns.batch(ArrayEvents({"met": [1.0, 2.0]})).events.tolist() == [[1.0], [2.0]]
    schema = EventSchema(objects={"jets": features("btag")}, max_objects={"jets": 2})
    source = ArrayEvents(objects={"jets": {"btag": [[1, 0]]}}, valid={"jets": [[True, False]]})
    assert EventInput(schema).batch(source).objects[0].tolist() == [[[1.0], [0.0]]]


def test_a_fingerprint_tells_arrays_apart() -> None:
    assert ArrayEvents({"met": [1]}).fingerprint() == ArrayEvents({"met": [1]}).fingerprint()
    assert ArrayEvents({"met": [1]}).fingerprint() != ArrayEvents({"met": [2]}).fingerprint()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "arrays: events: found none"),
        ({"events": {"met": []}}, "arrays: events: found none"),
        ({"events": {"met": [1.0], "ht": [1.0, 2.0]}}, r"ht: found float64 \(2,\), expected num"),
        ({"events": {"met": ["a"]}}, "met: found <U1"),
        ({"objects": {"jets": {"pt": [[1.0]]}}}, r"valid: found \[\], expected \['jets'\]"),
        (
            {"objects": {"jets": {"pt": [[1.0]]}}, "valid": {"jets": [[True, True]]}},
            r"jets: pt: found float64 \(1, 1\), expected numbers \(1, 2\)",
        ),
        (
            {"objects": {"jets": {"pt": [[1.0]]}}, "valid": {"jets": [[1]]}},
            r"valid of jets: found int64 \(1, 1\), expected bool",
        ),
    ],
)
def test_faults_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ArrayEvents(**given)


def test_a_column_that_lacks_and_a_value_that_is_none_are_named() -> None:
    with pytest.raises(DataError, match="year"):
        INPUT.batch(ArrayEvents({"met": EVENTS["met"]}, OBJECTS, VALID))
    met = np.where(np.arange(NUM) == 7, np.nan, EVENTS["met"])
    with pytest.raises(DataError, match="arrays, event 7: met"):
        INPUT.batch(ArrayEvents(EVENTS | {"met": met}, OBJECTS, VALID))
