"""A schema says what the inputs of a network are."""

from dataclasses import replace

import pytest

from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Feature

COLUMNS = (Feature("pt"), Feature("eta"))
SCHEMA = EventSchema(
    events=COLUMNS,
    objects={"jets": COLUMNS, "muons": COLUMNS},
    max_objects={"jets": 4, "muons": 2},
)


def turned(columns: dict) -> dict:
    return dict(reversed(columns.items()))


def test_the_order_of_kinds_makes_another_schema() -> None:
    assert replace(SCHEMA) == SCHEMA
    assert replace(SCHEMA, max_objects=turned(SCHEMA.max_objects)) == SCHEMA
    assert replace(SCHEMA, objects=turned(SCHEMA.objects)) != SCHEMA


@pytest.mark.parametrize(
    "change",
    [
        {"events": COLUMNS[:1]},
        {"objects": {"jets": COLUMNS, "muons": COLUMNS[:1]}},
        {"max_objects": {"jets": 4, "muons": 3}},
        {"with_vectors": ("jets",)},
    ],
)
def test_every_part_makes_another_schema(change: dict) -> None:
    assert replace(SCHEMA, **change) != SCHEMA
    assert SCHEMA != "jets"


def test_columns_that_lack_are_named_with_the_options_that_give_them() -> None:
    with pytest.raises(ValueError, match=r"data\.inputs .* data\.use"):
        EventSchema()
    with pytest.raises(ValueError, match=r"A classifies sets .* data\.use to objects or both"):
        EventSchema(events=COLUMNS).require_objects("A")
    objects = EventSchema(objects={"jets": COLUMNS}, max_objects={"jets": 1})
    with pytest.raises(ValueError, match=r"A classifies columns .* data\.use to events or both"):
        objects.require_events("A")


def test_kinds_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="must name the kinds of objects"):
        EventSchema(objects={"jets": COLUMNS})
    with pytest.raises(ValueError, match=r"\['muons'\], which are no kinds"):
        EventSchema(COLUMNS, {"jets": COLUMNS}, {"jets": 1}, ("muons",))
