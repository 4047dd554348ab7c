"""Callbacks for what Lightning lacks."""

from hepattn.training.callbacks.attention_maps import AttentionMaps
from hepattn.training.callbacks.checkpoints import BestCheckpoint, LastCheckpoint, StepCheckpoint
from hepattn.training.callbacks.ema import EMA
from hepattn.training.callbacks.estimate import Estimate
from hepattn.training.callbacks.gradient_norm import GradientNorm
from hepattn.training.callbacks.loader_state import LoaderState
from hepattn.training.callbacks.nan_guard import NanGuard, NonFiniteError
from hepattn.training.callbacks.prediction_writer import PredictionWriter
from hepattn.training.callbacks.process_memory import ProcessMemory
from hepattn.training.callbacks.random_state import RandomState
from hepattn.training.callbacks.requeue import Requeue
from hepattn.training.callbacks.start_weights import StartWeights
from hepattn.training.callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "AttentionMaps",
    "BestCheckpoint",
    "Estimate",
    "GradientNorm",
    "LastCheckpoint",
    "LoaderState",
    "NanGuard",
    "NonFiniteError",
    "PredictionWriter",
    "ProcessMemory",
    "RandomState",
    "Requeue",
    "StartWeights",
    "StepCheckpoint",
    "Throughput",
]
