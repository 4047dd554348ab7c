"""Simulated events with jets, electrons and muons, with answers that are known exactly."""

from hepattn.simulate.events.command import main
from hepattn.simulate.events.config import PROCESSES, EventsConfig
from hepattn.simulate.events.make import make_events
from hepattn.simulate.events.write import VERSION, simulate_events

__all__ = ["PROCESSES", "VERSION", "EventsConfig", "main", "make_events", "simulate_events"]
