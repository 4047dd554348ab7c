"""Simulated photons in the liquid-xenon calorimeter of MEG II."""

from hepattn.simulate.xec.command import main
from hepattn.simulate.xec.config import XecConfig
from hepattn.simulate.xec.make import make_event, make_events
from hepattn.simulate.xec.write import VERSION, simulate_xec

__all__ = ["VERSION", "XecConfig", "main", "make_event", "make_events", "simulate_xec"]
