"""Whole networks that more than one experiment can use."""
