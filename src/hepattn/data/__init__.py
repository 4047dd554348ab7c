"""Files to batches: readers, targets, splits and samplers.

Every reader raises ``DataError`` and nothing else for bad data.
"""

from hepattn.data.batching import EpochBatches, LengthBucketSampler, RowSampler
from hepattn.data.epoch_loader import EpochLoader
from hepattn.data.error import DataError
from hepattn.data.split import Split, split_events

__all__ = [
    "DataError",
    "EpochBatches",
    "EpochLoader",
    "LengthBucketSampler",
    "RowSampler",
    "Split",
    "split_events",
]
