"""Collision events: files to batches."""

from hepattn.data.events.arrays import ArrayEvents
from hepattn.data.events.batch import EventBatch
from hepattn.data.events.dataset import EventDataset, collate
from hepattn.data.events.first import FirstEvents
from hepattn.data.events.grouped import GroupedHDF5
from hepattn.data.events.hdf5 import EventHDF5
from hepattn.data.events.input import EventInput
from hepattn.data.events.labels import Labels, Selection
from hepattn.data.events.momentum import Momentum
from hepattn.data.events.open import Paths, open_events
from hepattn.data.events.padded import PaddedHDF5
from hepattn.data.events.reader import EventReader
from hepattn.data.events.root import RootEvents
from hepattn.data.events.sampler import EventSampler
from hepattn.data.events.source import EventSource
from hepattn.data.events.split import EventPart, EventSplit
from hepattn.data.events.statistics import Statistics, summarise
from hepattn.data.events.streaming import StreamingEvents
from hepattn.data.events.weights import Weighting, require_every_class
from hepattn.data.events.write import write_events
from hepattn.data.streaming_loader import StreamingLoader

__all__ = [
    "ArrayEvents",
    "EventBatch",
    "EventDataset",
    "EventHDF5",
    "EventInput",
    "EventPart",
    "EventReader",
    "EventSampler",
    "EventSource",
    "EventSplit",
    "FirstEvents",
    "GroupedHDF5",
    "Labels",
    "Momentum",
    "PaddedHDF5",
    "Paths",
    "RootEvents",
    "Selection",
    "Statistics",
    "StreamingEvents",
    "StreamingLoader",
    "Weighting",
    "collate",
    "open_events",
    "require_every_class",
    "summarise",
    "write_events",
]
