"""Events of a source as a network reads them."""

# N hits

import logging
import warnings
from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from hepattn.data.error import DataError
from hepattn.data.trackml.batch import HitItem, keep_hits, make_empty_item
from hepattn.data.trackml.event import Event, EventSource, event_number
from hepattn.data.trackml.features import check_features, hit_features, missing_features
from hepattn.data.trackml.hit_scores import KeptHits
from hepattn.data.trackml.targets import ParticleSelection, make_targets
from hepattn.nn.normalise import Feature

logger = logging.getLogger(__name__)


class HitDataset(Dataset[HitItem]):
    """The hits of events, as a network reads them.

    Hits outside the selected volumes are dropped, then those that a filter does not keep;
    ``hit_id`` says which are left. An event that has none left is an item without hits, though
    not without particles: targets are made before the filter. One event is read at once, to
    report missing features before the training starts.

    Args:
        source: The events.
        indices: Positions in the source; null for all.
        features: Columns of the network's input.
        selection: Volumes to read and particles to find; by default all hits and no targets.
        require_truth: Whether an event without truth is an error. Otherwise it has no targets,
            as in prediction.
        skip_bad: Whether an event that cannot be read becomes an item without hits, with a
            logged warning and counted in ``num_skipped``, instead of an error.
        in_memory: Whether to keep every event once it was read, for sets that fit.
        kept_hits: What a hit filter keeps; by default everything. ``skip_bad`` does not excuse
            hits without scores.

    Raises:
        DataError: If a feature is unknown or missing, or an event has hits but no scores.
    """

    def __init__(
        self,
        source: EventSource,
        indices: Sequence[int] | None,
        features: Sequence[Feature],
        selection: ParticleSelection | None = None,
        require_truth: bool = False,
        skip_bad: bool = False,
        in_memory: bool = False,
        kept_hits: KeptHits | None = None,
    ) -> None:
        if require_truth and selection is None:
            raise ValueError("require_truth=True needs a selection: it says what to find")
        check_features(features)
        self.source = source
        self.features = tuple(features)
        self.indices = list(range(len(source)) if indices is None else indices)
        self.selection = selection
        self.require_truth = require_truth
        self.skip_bad = skip_bad
        self.kept_hits = kept_hits
        self._kept: dict[int, HitItem] | None = {} if in_memory else None
        # Shared, so that the main process sees what the workers of a loader skip.
        self._bad = torch.zeros(len(self.indices), dtype=torch.bool).share_memory_()
        self._warn_of_missing()
        self._check_scores()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def num_skipped(self) -> int:
        """Number of events that were skipped so far."""
        return int(self._bad.sum())

    @property
    def lengths(self) -> list[int]:
        """Number of hits of each event, for a sampler; 0 for skipped events.

        Those that a filter keeps or, without one, those in all volumes.
        """
        lengths = []
        for place, index in enumerate(self.indices):
            try:
                num_hits = self.source.num_hits(index)
            except DataError as error:
                self._skip(place, error)
                num_hits = 0
            if num_hits and self.kept_hits is not None:
                num_hits = self.kept_hits.num_kept(self._number(place))
            lengths.append(num_hits)
        return lengths

    def __getitem__(self, place: int) -> HitItem:
        if self._kept is None:
            return self._read(place)
        if place not in self._kept:
            self._kept[place] = self._read(place)
        return self._kept[place]

    def _read(self, place: int) -> HitItem:
        try:
            item = self._item(self.source.read(self.indices[place]))
        except DataError as error:
            self._skip(place, error)
        else:
            return self._filtered(item)
        empty = make_empty_item(self._number(place), len(self.features))
        return empty if self.require_truth else HitItem(empty.event, empty.hits, empty.hit_id)

    def _item(self, event: Event) -> HitItem:
        hits = torch.from_numpy(hit_features(event, self.features))
        item = HitItem(event.number, hits, torch.from_numpy(event.hits["hit_id"]))
        if self.selection is None:
            return item
        if event.has_truth or self.require_truth:
            targets = make_targets(event, self.selection)
            item = item._replace(
                label=torch.from_numpy(targets.label),
                particle_index=torch.from_numpy(targets.particle_index),
                particle_id=torch.from_numpy(event.hits["particle_id"]),
                num_particle_hits=torch.from_numpy(targets.num_particle_hits),
                particles=torch.from_numpy(targets.particles),
            )
        return keep_hits(item, torch.from_numpy(self.selection.select(event)))

    def _filtered(self, item: HitItem) -> HitItem:
        if self.kept_hits is None:
            return item
        keep = self.kept_hits.select(item.event, item.hit_id.numpy())
        return keep_hits(item, torch.from_numpy(keep))

    def _number(self, place: int) -> int:
        return event_number(self.source.names[self.indices[place]])

    def _skip(self, place: int, error: DataError) -> None:
        """Count and log a bad event, or raise if skipping was not asked for."""
        if not self.skip_bad:
            raise error
        if not self._bad[place]:
            self._bad[place] = True
            logger.warning("skipped %s: %s", self.source.names[self.indices[place]], error)

    def _warn_of_missing(self) -> None:
        """Say once which features are filled, judging by the first readable event."""
        for place, index in enumerate(self.indices):
            try:
                event = self.source.read(index)
            except DataError as error:
                self._skip(place, error)
                continue
            if missing := missing_features(event, self.features):
                hit_features(event, self.features)  # an error where there is nothing to fill with
                warnings.warn(
                    f"{self.source.path}: no columns for the features {', '.join(missing)}; "
                    "they hold their `missing` values",
                    UserWarning,
                    stacklevel=3,
                )
            return

    def _check_scores(self) -> None:
        """Refuse events with hits but without scores before the training starts."""
        if self.kept_hits is not None:
            for place in range(len(self)):
                if self._number(place) not in self.kept_hits:
                    self._read(place)  # raises, unless it has no hits in the selected volumes
