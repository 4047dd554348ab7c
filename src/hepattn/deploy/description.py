"""What a run takes and answers, in plain types."""

from dataclasses import asdict
from typing import Any

from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Normalise
from hepattn.training.load import LoadedRun


def features(loaded: LoadedRun) -> Any:
    """Raw columns that the network takes, which it scales itself: of one input or, by name, all."""
    schema = getattr(loaded.data, "schema", None)
    if isinstance(schema, EventSchema):
        columns = {"events": schema.events, **schema.objects}
        return {name: [asdict(feature) for feature in of] for name, of in columns.items()}
    modules = loaded.module.net.modules()
    found = next((m.features for m in modules if isinstance(m, Normalise)), ())
    return [asdict(feature) for feature in found]


def classes(loaded: LoadedRun) -> list[str] | None:
    """Names of the classes, if the data has any."""
    found = getattr(loaded.data, "classes", None)
    return None if found is None else list(found)
