"""What a network learns of its input columns from the training events."""

# R real entries (events, or objects of a kind), F columns, Q quantiles

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hepattn.data.error import DataError
from hepattn.data.events.batch import EventBatch
from hepattn.data.events.write import EVENTS
from hepattn.nn.column_summary import ColumnSummary
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import TRANSFORMS, Feature

NUM_QUANTILES = 1001
MAX_ROWS = 1_000_000
MAX_VALUES = 50  # listed of a column of whole numbers


@dataclass(frozen=True)
class Statistics:
    """Statistics of all columns of a schema.

    Args:
        schema: The columns.
        summaries: Their statistics, by ``events`` and the kinds of objects; zeros for categorical
            columns and those without finite entries.
        values: The values of columns that hold few different ones, all whole, by source and
            column: what ``categories`` of a feature may list.
    """

    schema: EventSchema
    summaries: Mapping[str, ColumnSummary]
    values: Mapping[str, Mapping[str, tuple[int, ...]]]

    def save(self, path: str | Path) -> None:
        """Write them as JSON, one line for each column.

        Args:
            path: The file.
        """
        sources = []
        for source, features in list_sources(self.schema).items():
            summary = self.summaries[source]
            columns = [
                {
                    "name": feature.name,
                    "transform": feature.transform,
                    "categorical": feature.categories is not None,
                    "count": int(summary.count[place]),
                    "mean": _shortest(summary.mean[place]),
                    "std": _shortest(summary.std[place]),
                    "values": self.values[source].get(feature.name),
                    "quantiles": [_shortest(x) for x in summary.quantiles[:, place]],
                }
                for place, feature in enumerate(features)
            ]
            lines = ",\n  ".join(json.dumps(column) for column in columns)
            sources.append(f" {json.dumps(source)}: [\n  {lines}\n ]")
        Path(path).write_text("{\n" + ",\n".join(sources) + "\n}\n")

    @classmethod
    def load(cls, path: str | Path, schema: EventSchema) -> "Statistics":
        """Read what ``save`` wrote.

        Args:
            path: The file.
            schema: The columns that it must be about.

        Raises:
            DataError: If it cannot be read or is about other columns.
        """
        try:
            text = json.loads(Path(path).read_text())
            found = {
                source: [
                    (column["name"], column["transform"], column["categorical"])
                    for column in columns
                ]
                for source, columns in text.items()
            }
            summaries = {source: _to_summary(columns) for source, columns in text.items()}
            values = {
                source: {
                    column["name"]: tuple(column["values"])
                    for column in columns
                    if column["values"] is not None
                }
                for source, columns in text.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError.of(
                path, "contents", found=error, expected="statistics of columns as saved here"
            ) from error
        expected = {
            source: [(x.name, x.transform, x.categories is not None) for x in features]
            for source, features in list_sources(schema).items()
        }
        if found != expected:
            raise DataError.of(
                path,
                "columns",
                found=found,
                expected=expected,
                remedy="make the statistics anew for this feature list",
            )
        return cls(schema, summaries, values)


def summarise(
    batches: Iterable[EventBatch],
    schema: EventSchema,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
) -> Statistics:
    """Summarise the columns of events, which should be those of the training.

    Events count alike, whatever their weights. Numbers, means, standard deviations, minima and
    maxima are those of all entries; the quantiles in between are those of a random sample where
    there are more than ``max_rows``.

    Args:
        batches: The events, in pieces of any size; the pieces do not change the sample.
        schema: Their columns.
        max_rows: Size of the sample of the events and of the objects of each kind.
        seed: Seed of the sample.
    """
    tallies = {
        source: _Tally(features, max_rows, seed)
        for source, features in list_sources(schema).items()
    }
    for batch in batches:
        if EVENTS in tallies:
            tallies[EVENTS].add(batch.events)
        ends = np.cumsum([schema.max_objects[kind] for kind in schema.kinds], dtype=int)
        for kind, end, columns in zip(schema.kinds, ends, batch.objects, strict=True):
            tallies[kind].add(columns[batch.valid[:, end - columns.shape[1] : end]])
    return Statistics(
        schema,
        {source: tally.summary() for source, tally in tallies.items()},
        {source: tally.list_values() for source, tally in tallies.items()},
    )


def list_sources(schema: EventSchema) -> dict[str, tuple[Feature, ...]]:
    """Columns by ``events``, where there are any, and the kinds of objects.

    Args:
        schema: The columns.
    """
    return ({EVENTS: tuple(schema.events)} if schema.events else {}) | {
        kind: tuple(features) for kind, features in schema.objects.items()
    }


class _Tally:
    """Statistics of the columns of one source, over pieces."""

    def __init__(self, features: Sequence[Feature], max_rows: int, seed: int) -> None:
        self.features = features
        self.max_rows = max_rows
        self.generator = np.random.default_rng(seed)
        num_columns = len(features)
        self.count = np.zeros(num_columns)
        self.mean = np.zeros(num_columns)
        self.squares = np.zeros(num_columns)  # sum of the squared distances from the mean
        self.low = np.full(num_columns, np.inf)
        self.high = np.full(num_columns, -np.inf)
        self.sample = np.empty((0, num_columns), np.float32)  # (R, F), NaN for what does not count
        self.keys = np.empty(0)  # (R); the rows with the lowest keys stay
        self.values: list[np.ndarray | None] = [np.empty(0)] * num_columns

    def add(self, columns: Tensor) -> None:
        """Count more entries, given as raw columns (R, F)."""
        for place, found in enumerate(self.values):
            if found is not None:
                found = np.union1d(found, columns[:, place].numpy())
                whole = len(found) <= MAX_VALUES and bool((found == np.round(found)).all())
                self.values[place] = found if whole else None
        x = columns.new_full(columns.shape, torch.nan)  # (R, F)
        for place, feature in enumerate(self.features):
            if feature.categories is None:
                x[:, place] = TRANSFORMS[feature.transform](columns[:, place])
        x = torch.where(x.isfinite(), x, torch.nan).numpy()
        self._add_moments(x.astype(np.float64))
        self.keys = np.append(self.keys, self.generator.random(len(x)))
        self.sample = np.concatenate([self.sample, x])
        if len(self.keys) > self.max_rows:
            stay = np.sort(np.argpartition(self.keys, self.max_rows)[: self.max_rows])
            self.keys, self.sample = self.keys[stay], self.sample[stay]

    def _add_moments(self, x: np.ndarray) -> None:
        """Merge the moments of a piece (R, F) into those of all before (Chan et al. 1979)."""
        finite = np.isfinite(x)
        count = finite.sum(0)
        mean = np.where(finite, x, 0).sum(0) / np.maximum(count, 1)
        squares = np.where(finite, x - mean, 0)
        total = np.maximum(self.count + count, 1)
        shift = mean - self.mean
        self.squares += (squares**2).sum(0) + shift**2 * self.count * count / total
        self.mean += shift * count / total
        self.count += count
        self.low = np.minimum(self.low, np.where(finite, x, np.inf).min(0, initial=np.inf))
        self.high = np.maximum(self.high, np.where(finite, x, -np.inf).max(0, initial=-np.inf))

    def summary(self) -> ColumnSummary:
        """Statistics of all entries so far."""
        quantiles = np.zeros((NUM_QUANTILES, len(self.features)))  # (Q, F)
        steps = np.linspace(0, 1, NUM_QUANTILES)
        for place in np.flatnonzero(self.count):
            column = self.sample[:, place]
            column = column[~np.isnan(column)]
            ends = [self.low[place], self.high[place]]
            # Of a rare column the sample may have nothing.
            quantiles[:, place] = np.quantile(column if len(column) else ends, steps)
            quantiles[[0, -1], place] = ends
        std = np.sqrt(self.squares / np.maximum(self.count, 1))
        count = torch.from_numpy(self.count.astype(np.int64))
        moments = (torch.from_numpy(x).float() for x in (self.mean, std, quantiles))
        return ColumnSummary(count, *moments)

    def list_values(self) -> dict[str, tuple[int, ...]]:
        """The values of columns with few different ones, all whole."""
        return {
            feature.name: tuple(found.astype(int).tolist())
            for feature, found in zip(self.features, self.values, strict=True)
            if found is not None and len(found)
        }


def _to_summary(columns: Sequence[Mapping[str, list[float]]]) -> ColumnSummary:
    count = torch.tensor([column["count"] for column in columns])
    moments = (
        torch.tensor([column[name] for column in columns], dtype=torch.float32)
        for name in ("mean", "std")
    )
    quantiles = torch.tensor([column["quantiles"] for column in columns], dtype=torch.float32)
    return ColumnSummary(count, *moments, quantiles.T.contiguous())


def _shortest(value: Tensor) -> float:
    """A float32 with the digits that it has."""
    return float(f"{value.item():.9g}")
