"""Simulated jets of the ten classes of JetClass."""

from hepattn.simulate.jets.command import main
from hepattn.simulate.jets.config import CLASSES, JETNET_CLASSES, JetConfig
from hepattn.simulate.jets.make import make_jets
from hepattn.simulate.jets.write import VERSION, simulate_jets

__all__ = [
    "CLASSES",
    "JETNET_CLASSES",
    "VERSION",
    "JetConfig",
    "main",
    "make_jets",
    "simulate_jets",
]
