"""Simulated jets of the ten classes of JetClass."""

from hepattn.simulate.jets.command import main
from hepattn.simulate.jets.config import CLASSES, JetConfig
from hepattn.simulate.jets.make import make_jets
from hepattn.simulate.jets.write import VERSION, simulate_jets

__all__ = ["CLASSES", "VERSION", "JetConfig", "main", "make_jets", "simulate_jets"]
