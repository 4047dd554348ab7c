"""What a network is told about the events that it gets."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from hepattn.nn.normalise import Feature


@dataclass(frozen=True, eq=False)
class EventSchema:
    """Columns of an event and of the objects in it.

    Two are equal if their kinds of objects come in the same order, too: that of the inputs.

    Args:
        events: Columns of the event as a whole, in order; none by default.
        objects: For each kind of object, such as ``jets``, its columns, in order; none by default.
        max_objects: For each kind of object, the largest number in an event; batches are always
            padded to exactly that many.
        with_vectors: Kinds of objects whose four-vectors are known.

    Raises:
        ValueError: If there are no columns at all, or the maps name different kinds.
    """

    events: tuple[Feature, ...] = ()
    objects: Mapping[str, tuple[Feature, ...]] = field(default_factory=dict)
    max_objects: Mapping[str, int] = field(default_factory=dict)
    with_vectors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.events and not self.objects:
            raise ValueError(
                "an event needs columns of its own or of objects; name some in data.inputs that "
                "data.use keeps"
            )
        if self.objects.keys() != self.max_objects.keys():
            raise ValueError(
                f"max_objects={dict(self.max_objects)} must name the kinds of objects "
                f"{list(self.objects)}"
            )
        unknown = set(self.with_vectors) - set(self.objects)
        if unknown:
            raise ValueError(f"with_vectors names {sorted(unknown)}, which are no kinds of objects")

    def __eq__(self, other: object) -> bool:
        """Whether the inputs of a network are the same."""
        if not isinstance(other, EventSchema):
            return NotImplemented
        mine, theirs = (tuple(getattr(s, f.name) for f in fields(s)) for s in (self, other))
        return mine == theirs and self.kinds == other.kinds

    __hash__ = None  # of maps there is none

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of objects, in the order of the network's inputs."""
        return tuple(self.objects)

    def require_events(self, network: str) -> tuple[Feature, ...]:
        """Columns of the event for a network that needs them.

        Raises:
            ValueError: If there are none.
        """
        if not self.events:
            raise ValueError(
                f"{network} classifies columns of the event; set data.use to events or both, and "
                "data.inputs to some with events"
            )
        return self.events

    def require_objects(self, network: str) -> Mapping[str, tuple[Feature, ...]]:
        """Columns of the objects for a network that needs them.

        Raises:
            ValueError: If there are none.
        """
        if not self.objects:
            raise ValueError(
                f"{network} classifies sets of objects; set data.use to objects or both, and "
                "data.inputs to some with objects"
            )
        return self.objects
