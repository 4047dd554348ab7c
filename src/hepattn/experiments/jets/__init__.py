"""Jet tagging."""
