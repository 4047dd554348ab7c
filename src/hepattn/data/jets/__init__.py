"""Jets: files to batches."""

from hepattn.data.jets.arrays import ArrayJets
from hepattn.data.jets.batch import JetBatch
from hepattn.data.jets.dataset import JetDataset, collate
from hepattn.data.jets.features import check_features, particle_features, particle_vectors
from hepattn.data.jets.input import JetInput
from hepattn.data.jets.labels import JetLabels
from hepattn.data.jets.open import open_jets
from hepattn.data.jets.source import FirstJets, JetSource
from hepattn.data.jets.split import JetPart, JetSplit
from hepattn.data.jets.streaming import StreamingJets
from hepattn.data.jets.table import JetTable
from hepattn.data.jets.typed import TypedJets
from hepattn.data.jets.weights import JetWeights
from hepattn.data.streaming_loader import StreamingLoader

__all__ = [
    "ArrayJets",
    "FirstJets",
    "JetBatch",
    "JetDataset",
    "JetInput",
    "JetLabels",
    "JetPart",
    "JetSource",
    "JetSplit",
    "JetTable",
    "JetWeights",
    "StreamingJets",
    "StreamingLoader",
    "TypedJets",
    "check_features",
    "collate",
    "open_jets",
    "particle_features",
    "particle_vectors",
]
