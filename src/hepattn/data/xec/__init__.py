"""Events of the MEG II liquid-xenon detector: ROOT files to batches."""

from hepattn.data.streaming_loader import StreamingLoader
from hepattn.data.xec.batch import TRUTH, XecBatch, join, take
from hepattn.data.xec.dataset import XecDataset, collate
from hepattn.data.xec.open import open_xec
from hepattn.data.xec.source import XecSource
from hepattn.data.xec.streaming import StreamingXec

__all__ = [
    "TRUTH",
    "StreamingLoader",
    "StreamingXec",
    "XecBatch",
    "XecDataset",
    "XecSource",
    "collate",
    "join",
    "open_xec",
    "take",
]
