"""Weights of jets by class and transverse momentum."""

# J jets, C classes, K bins

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from hepattn.data.chunks import chunk_ranges
from hepattn.data.error import DataError
from hepattn.data.jets.features import fill_jets
from hepattn.data.jets.source import JetSource
from hepattn.data.jets.split import JetPart


@dataclass(frozen=True)
class JetWeights:
    """A weight for each class and bin of the jet's pt.

    A jet outside the bins has the weight of the nearest one; one without a label has weight 1.

    Args:
        edges: Edges of the bins in GeV (K + 1), rising.
        weights: Weights (C, K), not negative.

    Raises:
        ValueError: If the edges do not rise, or the weights do not fit them.
    """

    edges: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if len(self.edges) < 2 or (np.diff(self.edges) <= 0).any():
            raise ValueError(f"edges={self.edges} must be at least two and rise")
        num_bins = len(self.edges) - 1
        if not self.weights or any(len(row) != num_bins for row in self.weights):
            raise ValueError(f"weights must have a row of {num_bins} for each class")
        if not (np.isfinite(self.weights).all() and (np.asarray(self.weights) >= 0).all()):
            raise ValueError("weights must be finite and not negative")

    @classmethod
    def fit(
        cls,
        source: JetSource,
        edges: Sequence[float],
        part: JetPart | None = None,
        chunk_size: int = 10_000,
    ) -> Self:
        """Make each class flat in pt, and all classes worth the same.

        The weights average to 1 over the jets of each class within the edges; empty bins weigh
        nothing.

        Args:
            source: The jets, read once in pieces.
            edges: Edges of the bins in GeV, rising.
            part: The jets to count, which should be those of the training; null for all.
            chunk_size: Number of jets read at once.

        Raises:
            DataError: If the jets have no labels, or a class has none within the edges.
        """
        if not source.classes:
            raise DataError.of(source.name, "labels", found="none", expected="classes to weight")
        counts = np.zeros((len(source.classes), len(edges) - 1))  # (C, K)
        wanted = source.columns & {"jet_pt"}
        for start, stop in chunk_ranges(source.block_ends, chunk_size):
            table = source.read(start, stop, wanted, skip_bad=True)
            table = fill_jets(table, ["jet_pt"])
            keep = table.label >= 0
            if part is not None:
                keep &= part.holds(table.index)
            counts += np.histogram2d(
                table.label[keep],
                table.jets["jet_pt"][keep],
                [np.arange(len(source.classes) + 1) - 0.5, np.asarray(edges)],
            )[0]
        total = counts.sum(1, keepdims=True)  # (C, 1)
        if not total.all():
            rare = source.classes[int(np.argmin(total))]
            raise DataError.of(
                source.name,
                "jet_pt",
                found=f"no {rare} within {edges[0]} to {edges[-1]}",
                expected="jets of every class",
                remedy="widen the edges",
            )
        filled = (counts > 0).sum(1, keepdims=True)
        with np.errstate(divide="ignore"):
            weights = np.where(counts > 0, total / (filled * counts), 0.0)
        return cls(tuple(map(float, edges)), tuple(tuple(row) for row in weights.tolist()))

    def of(self, jet_pt: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Look up the weights of jets.

        Args:
            jet_pt: Transverse momenta in GeV (J).
            label: Numbers of the classes (J).

        Returns:
            Weights (J) in float32.

        Raises:
            ValueError: If a label has no row of weights.
        """
        if len(label) and label.max() >= len(self.weights):
            raise ValueError(f"label {label.max()} has none of the {len(self.weights)} rows")
        bins = np.searchsorted(self.edges, jet_pt, side="right") - 1
        table = np.asarray(self.weights, np.float32)
        weights = table[label, bins.clip(0, table.shape[1] - 1)]
        return np.where(label < 0, np.float32(1), weights)
