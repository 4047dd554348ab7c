"""Layers: parts of networks."""
