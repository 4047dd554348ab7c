"""Charged-particle reconstruction on the TrackML detector."""
