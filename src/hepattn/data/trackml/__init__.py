"""TrackML events: reading, preparing, features, targets and batches."""

from hepattn.data.trackml.batch import HitBatch, HitItem, collate, empty_last
from hepattn.data.trackml.dataset import HitDataset
from hepattn.data.trackml.detector import Detector
from hepattn.data.trackml.event import Columns, Event, EventSource, event_number
from hepattn.data.trackml.features import FEATURE_NAMES, check_features, hit_features
from hepattn.data.trackml.hit_scores import HitScores, KeptHits
from hepattn.data.trackml.preparation import main, prepare
from hepattn.data.trackml.reader import CsvEvents
from hepattn.data.trackml.store import StoredEvents, fingerprint, open_events
from hepattn.data.trackml.submission import (
    SubmissionWriter,
    read_submission,
    write_submission,
)
from hepattn.data.trackml.targets import (
    PARTICLE_COLUMNS,
    ParticleSelection,
    Targets,
    make_targets,
)

__all__ = [
    "FEATURE_NAMES",
    "PARTICLE_COLUMNS",
    "Columns",
    "CsvEvents",
    "Detector",
    "Event",
    "EventSource",
    "HitBatch",
    "HitDataset",
    "HitItem",
    "HitScores",
    "KeptHits",
    "ParticleSelection",
    "StoredEvents",
    "SubmissionWriter",
    "Targets",
    "check_features",
    "collate",
    "empty_last",
    "event_number",
    "fingerprint",
    "hit_features",
    "main",
    "make_targets",
    "open_events",
    "prepare",
    "read_submission",
    "write_submission",
]
