"""Events to padded batches."""

# B events, N hits, F features, P particles

import logging
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from hepattn.data.error import DataError
from hepattn.data.trackml.event import Event, EventSource, event_number
from hepattn.data.trackml.features import check_features, hit_features, missing_features
from hepattn.data.trackml.targets import PARTICLE_COLUMNS, ParticleSelection, make_targets
from hepattn.nn.normalise import Feature

logger = logging.getLogger(__name__)


class HitBatch(NamedTuple):
    """Several events, padded at the end.

    ``label`` and the particle fields are None where there is no truth or no selection.

    Attributes:
        hits: Raw features of the hits in the selected volumes (B, N, F) float32, 0 in padding.
        valid: True for real hits (B, N).
        label: True for hits of reconstructable particles (B, N).
        hit_id: Ids of the hits in their event (B, N) int64, -1 in padding.
        particle_index: Row in ``particles`` of each such hit, else -1 (B, N) int64.
        particles: Reconstructable particles (B, P, 6) float32: pt in GeV, eta, phi in radians,
            vz in mm, charge, number of hits in the selected volumes; 0 in padding.
        particle_valid: True for real particles (B, P).
        event: Number of each event (B,) int64.
    """

    hits: Tensor
    valid: Tensor
    label: Tensor | None
    hit_id: Tensor
    particle_index: Tensor | None
    particles: Tensor | None
    particle_valid: Tensor | None
    event: Tensor


class HitItem(NamedTuple):
    """One event before padding; fields as in ``HitBatch`` without the B axis."""

    event: int
    hits: Tensor
    hit_id: Tensor
    label: Tensor | None = None
    particle_index: Tensor | None = None
    particles: Tensor | None = None


class HitDataset(Dataset[HitItem]):
    """The hits of events, as a network reads them.

    Hits outside the selected volumes are dropped; ``hit_id`` says which are left. An event that
    has none left is an item without hits. One event is read at once, to report missing features
    before the training starts.

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

    Raises:
        DataError: If a feature is unknown or missing.
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
        self._kept: dict[int, HitItem] | None = {} if in_memory else None
        # Shared, so that the main process sees what the workers of a loader skip.
        self._bad = torch.zeros(len(self.indices), dtype=torch.bool).share_memory_()
        self._warn_of_missing()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def num_skipped(self) -> int:
        """Number of events that were skipped so far."""
        return int(self._bad.sum())

    @property
    def lengths(self) -> list[int]:
        """Number of hits of each event, in all volumes, for a sampler; 0 for skipped events."""
        lengths = []
        for place, index in enumerate(self.indices):
            try:
                lengths.append(self.source.num_hits(index))
            except DataError as error:
                self._skip(place, error)
                lengths.append(0)
        return lengths

    def __getitem__(self, place: int) -> HitItem:
        if self._kept is None:
            return self._read(place)
        if place not in self._kept:
            self._kept[place] = self._read(place)
        return self._kept[place]

    def _read(self, place: int) -> HitItem:
        try:
            return self._item(self.source.read(self.indices[place]))
        except DataError as error:
            self._skip(place, error)
        number = event_number(self.source.names[self.indices[place]])
        none = torch.empty(0, dtype=torch.int64)
        empty = HitItem(number, torch.empty(0, len(self.features)), none)
        if not self.require_truth:
            return empty
        particles = torch.empty(0, len(PARTICLE_COLUMNS))
        return empty._replace(label=none.bool(), particle_index=none, particles=particles)

    def _item(self, event: Event) -> HitItem:
        hits = torch.from_numpy(hit_features(event, self.features))
        hit_id = torch.from_numpy(event.hits["hit_id"])
        if self.selection is None:
            return HitItem(event.number, hits, hit_id)
        selected = torch.from_numpy(self.selection.select(event))
        hits, hit_id = hits[selected], hit_id[selected]
        if not event.has_truth and not self.require_truth:
            return HitItem(event.number, hits, hit_id)
        targets = make_targets(event, self.selection)
        return HitItem(
            event.number,
            hits,
            hit_id,
            torch.from_numpy(targets.label)[selected],
            torch.from_numpy(targets.particle_index)[selected],
            torch.from_numpy(targets.particles),
        )

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


def collate(items: Sequence[HitItem]) -> HitBatch:
    """Pad events to the longest of them.

    N and P are at least 1, so that no tensor is empty. Items of skipped events, which have
    neither hits nor truth, go with any others.

    Args:
        items: The events.

    Raises:
        DataError: If some events have truth and others do not.
    """
    labelled = [item for item in items if item.label is not None]
    plain = [item for item in items if item.label is None and len(item.hits)]
    if labelled and plain:
        raise DataError.of(
            f"event {plain[0].event}",
            "truth",
            found="none",
            expected=f"truth, as event {labelled[0].event} of the same batch has",
            remedy="read events with and without truth separately",
        )
    batch = HitBatch(
        hits=_pad([item.hits for item in items], 0),  # (B, N, F)
        valid=_valid([len(item.hits) for item in items]),
        label=None,
        hit_id=_pad([item.hit_id for item in items], -1),
        particle_index=None,
        particles=None,
        particle_valid=None,
        event=torch.tensor([item.event for item in items]),
    )
    if not labelled:
        return batch
    none = torch.empty(0, dtype=torch.int64)
    particles = [
        torch.empty(0, len(PARTICLE_COLUMNS)) if item.particles is None else item.particles
        for item in items
    ]
    index = [none if item.particle_index is None else item.particle_index for item in items]
    return batch._replace(
        label=_pad([none.bool() if i.label is None else i.label for i in items], False),
        particle_index=_pad(index, -1),
        particles=_pad(particles, 0),  # (B, P, 6)
        particle_valid=_valid([len(table) for table in particles]),
    )


def _pad(rows: Sequence[Tensor], value: float) -> Tensor:
    """Stack tensors (N_b, ...) to (B, N, ...)."""
    length = max(1, *(len(row) for row in rows))
    padded = rows[0].new_full((len(rows), length, *rows[0].shape[1:]), value)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded


def _valid(lengths: Sequence[int]) -> Tensor:
    """True for the first so many of each row (B, N)."""
    length = max(1, *lengths)
    return torch.arange(length) < torch.tensor(lengths).unsqueeze(1)  # (B, N)
