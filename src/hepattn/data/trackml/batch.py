"""Events to padded batches."""

# B events, N hits, F features, P particles

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hepattn.data.error import DataError
from hepattn.data.trackml.targets import PARTICLE_COLUMNS


class HitBatch(NamedTuple):
    """Several events, padded at the end.

    ``label`` and the particle fields are None where there is no truth or no selection. Targets
    are made from all hits in the selected volumes; where hits were dropped afterwards by the
    scores of a filter, particles may have lost some or all of theirs.

    Attributes:
        hits: Raw features of the hits in the selected volumes (B, N, F) float32, 0 in padding.
        valid: True for real hits (B, N).
        label: True for hits of reconstructable particles (B, N).
        hit_id: Ids of the hits in their event (B, N) int64, -1 in padding.
        particle_index: Row in ``particles`` of each such hit, else -1 (B, N) int64.
        particle_id: Id of the particle that left each hit, reconstructable or not (B, N) int64; 0
            for noise and in padding.
        num_particle_hits: Number of hits of that particle in the selected volumes (B, N) int64,
            before any filter; 0 for noise and in padding.
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
    particle_id: Tensor | None
    num_particle_hits: Tensor | None
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
    particle_id: Tensor | None = None
    num_particle_hits: Tensor | None = None
    particles: Tensor | None = None


def make_empty_item(event: int, num_features: int) -> HitItem:
    """An event without hits and particles: nothing is known to be there."""
    none = torch.empty(0, dtype=torch.int64)
    return HitItem(
        event,
        hits=torch.empty(0, num_features),
        hit_id=none,
        label=none.bool(),
        particle_index=none,
        particle_id=none,
        num_particle_hits=none,
        particles=torch.empty(0, len(PARTICLE_COLUMNS)),
    )


def keep_hits(item: HitItem, keep: Tensor) -> HitItem:
    """Drop hits of an event; its particles stay.

    Args:
        item: The event.
        keep: True for the hits to keep (N,).
    """
    fields = item._asdict().items()
    whole = ("event", "particles")
    return item._replace(**{k: v[keep] for k, v in fields if k not in whole and v is not None})


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
        particle_id=None,
        num_particle_hits=None,
        particles=None,
        particle_valid=None,
        event=torch.tensor([item.event for item in items]),
    )
    if not labelled:
        return batch
    items = [make_empty_item(i.event, 0) if i.label is None else i for i in items]
    particles = [item.particles for item in items]
    return batch._replace(
        label=_pad([item.label for item in items], False),
        particle_index=_pad([item.particle_index for item in items], -1),
        particle_id=_pad([item.particle_id for item in items], 0),
        num_particle_hits=_pad([item.num_particle_hits for item in items], 0),
        particles=_pad(particles, 0),  # (B, P, 6)
        particle_valid=_valid([len(table) for table in particles]),
    )


def empty_last(batch: HitBatch, number: int) -> HitBatch:
    """Make the last events of a batch ones without hits and particles.

    Args:
        batch: The batch.
        number: How many events.
    """
    there = torch.ones(len(batch.event), 1, dtype=torch.bool)
    there[-number:] = False
    batch = batch._replace(
        hits=batch.hits.where(there.unsqueeze(-1), 0),
        valid=batch.valid & there,
        hit_id=batch.hit_id.where(there, -1),
    )
    if batch.label is None:
        return batch
    return batch._replace(
        label=batch.label & there,
        particle_index=batch.particle_index.where(there, -1),
        particle_id=batch.particle_id.where(there, 0),
        num_particle_hits=batch.num_particle_hits.where(there, 0),
        particles=batch.particles.where(there.unsqueeze(-1), 0),
        particle_valid=batch.particle_valid & there,
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
