"""What a network is told about the events that it gets."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hepattn.nn.normalise import Feature


@dataclass(frozen=True)
class EventSchema:
    """Columns of an event and of the objects in it.

    Args:
        events: Columns of the event as a whole, in order; none by default.
        objects: For each kind of object, such as ``jets``, its columns, in order; none by default.
        max_objects: For each kind of object, the largest number in an event: those of the batches
            are padded to at most that many.
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
            raise ValueError("an event needs columns of its own or of objects; give at least one")
        if self.objects.keys() != self.max_objects.keys():
            raise ValueError(
                f"max_objects={dict(self.max_objects)} must name the kinds of objects "
                f"{list(self.objects)}"
            )
        unknown = set(self.with_vectors) - set(self.objects)
        if unknown:
            raise ValueError(f"with_vectors names {sorted(unknown)}, which are no kinds of objects")

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
            raise ValueError(f"{network} classifies columns of the event; give data.events some")
        return self.events

    def require_objects(self, network: str) -> Mapping[str, tuple[Feature, ...]]:
        """Columns of the objects for a network that needs them.

        Raises:
            ValueError: If there are none.
        """
        if not self.objects:
            raise ValueError(f"{network} classifies sets of objects; give data.objects some")
        return self.objects
