"""Simulated tracker events in the TrackML file format."""

from hepattn.simulate.tracker.command import main
from hepattn.simulate.tracker.config import TrackerConfig
from hepattn.simulate.tracker.event import RawEvent, simulate_event
from hepattn.simulate.tracker.geometry import detector_table
from hepattn.simulate.tracker.write import VERSION, simulate_events

__all__ = [
    "VERSION",
    "RawEvent",
    "TrackerConfig",
    "detector_table",
    "main",
    "simulate_event",
    "simulate_events",
]
