"""From jets of a source to what a network reads."""

# B jets of a batch, J jets, N particles of the longest, P particles of all, F features

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hepattn.data.error import DataError
from hepattn.data.jets.batch import JetBatch
from hepattn.data.jets.features import (
    check_features,
    fill_jets,
    find_columns,
    needed_columns,
    particle_features,
    particle_vectors,
)
from hepattn.data.jets.source import JetSource
from hepattn.data.jets.table import JetTable, find_particles
from hepattn.data.jets.weights import JetWeights
from hepattn.nn.normalise import Feature

NUM_PROBED = 100  # jets that are read to find faults of a source before the training


@dataclass(frozen=True)
class JetInput:
    """What a network reads of each jet.

    Args:
        features: The feature list.
        max_particles: Particles kept of each jet, those of highest pt. Columns of the jet that a
            source lacks are sums over all its particles, before this cut.
        pad_to: Number of slots of every batch; null for its longest jet.
        weights: Weights by class and pt; by default all jets count alike.
        skip_bad: Whether a jet with a value that is not finite, or with a wrong label, becomes a
            jet without particles, label and weight, with a logged warning, instead of an error.

    Raises:
        ValueError: If a number is not positive, or ``pad_to`` is too small.
    """

    features: Sequence[Feature]
    max_particles: int = 128
    pad_to: int | None = None
    weights: JetWeights | None = None
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.max_particles < 1:
            raise ValueError(f"max_particles={self.max_particles} must be at least 1")
        if self.pad_to is not None and self.pad_to < self.max_particles:
            raise ValueError(
                f"pad_to={self.pad_to} must be at least max_particles={self.max_particles}"
            )

    def check(self, source: JetSource) -> None:
        """Find what would stop the training, from the first jets.

        Args:
            source: The jets.

        Raises:
            DataError: If the source cannot give the features or the weights.
        """
        check_features(self.features, source.columns, source.name)
        if self.weights and source.classes and len(self.weights.weights) != len(source.classes):
            raise DataError.of(
                source.name,
                "weights",
                found=f"{len(self.weights.weights)} rows",
                expected=f"one for each class of {', '.join(source.classes)}",
            )
        self.read(source, 0, min(NUM_PROBED, source.num_jets))

    def batch(self, source: JetSource) -> JetBatch:
        """Read all jets of a source that fit into a batch, in order.

        Args:
            source: The jets.

        Raises:
            DataError: If they cannot be read, lack a feature or contradict themselves.
        """
        check_features(self.features, source.columns, source.name)
        jets = self.read(source, 0, source.num_jets)
        return Padder(jets, self.pad_to).batch(torch.arange(source.num_jets))

    def read(self, source: JetSource, start: int, stop: int) -> PackedJets:
        """Read some jets.

        Args:
            source: The jets.
            start: First row.
            stop: Row after the last.

        Raises:
            DataError: If they cannot be read or contradict themselves.
        """
        columns = needed_columns(self.features, source.columns)
        if self.weights:
            columns |= source.columns & {"jet_pt"}
        return self.pack(source.read(start, stop, columns, self.skip_bad), source)

    def pack(self, table: JetTable, source: JetSource) -> PackedJets:
        """Turn jets into features and four-vectors.

        Args:
            table: The jets.
            source: Where they come from.
        """
        wanted = {
            column
            for feature in self.features
            for column in find_columns(feature.name, source.columns) or ()
        }
        table = fill_jets(table, wanted | ({"jet_pt"} if self.weights else set()))
        table = table.sort_by_pt().keep_leading(self.max_particles)
        weight = np.ones(table.num_jets, np.float32) if table.weight is None else table.weight
        if self.weights:
            weight = weight * self.weights.of(table.jets["jet_pt"], table.label)
        return PackedJets(
            table.counts,
            particle_features(table, self.features, source.name),
            particle_vectors(table),
            table.label,
            weight,
            table.index,
        )


@dataclass(frozen=True)
class PackedJets:
    """Jets with the particles of one after those of the other.

    Args:
        counts: Number of particles (J).
        particles: Features (P, F).
        vectors: Four-vectors (P, 4).
        label: Numbers of the classes (J).
        weight: Weights (J).
        index: Rows in the source (J).
    """

    counts: np.ndarray
    particles: np.ndarray
    vectors: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    index: np.ndarray

    def take(self, jets: np.ndarray) -> PackedJets:
        """Return some jets, in the given order.

        Args:
            jets: Positions in here.
        """
        counts = self.counts[jets]
        places = find_particles((np.cumsum(self.counts) - self.counts)[jets], counts)
        return PackedJets(
            counts,
            self.particles[places],
            self.vectors[places],
            self.label[jets],
            self.weight[jets],
            self.index[jets],
        )


def join(parts: Sequence[PackedJets]) -> PackedJets:
    """Put jets one after the other.

    Args:
        parts: At least one.
    """
    if len(parts) == 1:
        return parts[0]
    names = PackedJets.__dataclass_fields__
    return PackedJets(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class Padder:
    """Cut batches out of packed jets.

    Args:
        jets: The jets.
        pad_to: Number of slots; null for the longest jet of the batch, at least 1.
    """

    def __init__(self, jets: PackedJets, pad_to: int | None = None) -> None:
        self.counts = torch.from_numpy(jets.counts)
        self.starts = self.counts.cumsum(0) - self.counts
        # A last particle of zeros, to pad with.
        self.particles = _with_zeros(jets.particles)  # (P + 1, F)
        self.vectors = _with_zeros(jets.vectors)  # (P + 1, 4)
        self.label = torch.from_numpy(jets.label)
        self.weight = torch.from_numpy(jets.weight)
        self.index = torch.from_numpy(jets.index)
        self.pad_to = pad_to

    def batch(self, jets: Tensor) -> JetBatch:
        """Pad some jets.

        Args:
            jets: Positions (B) in int64.
        """
        counts = self.counts[jets]
        num_slots = self.pad_to or max(1, int(counts.max()) if len(counts) else 1)
        slots = torch.arange(num_slots)
        valid = slots < counts[:, None]  # (B, N)
        places = torch.where(valid, self.starts[jets][:, None] + slots, len(self.particles) - 1)
        shape = (*places.shape, -1)
        return JetBatch(
            particles=self.particles.index_select(0, places.view(-1)).view(shape),
            vectors=self.vectors.index_select(0, places.view(-1)).view(shape),
            valid=valid,
            label=self.label[jets],
            weight=self.weight[jets],
            index=self.index[jets],
        )


def _with_zeros(columns: np.ndarray) -> Tensor:
    zeros = np.zeros((1, columns.shape[1]), columns.dtype)
    return torch.from_numpy(np.concatenate([columns, zeros]))
